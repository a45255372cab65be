"""The answer table: every error has a failure status, a short comment, and no way to success."""

import inspect

import pytest

from node import errors
from node.scp.status import FAILURES, answer

ALL_ERRORS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.NodeError)
]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.OutOfResources(), 0xA700),
        (errors.LedgerError(), 0xA700),
        (errors.NotAuthorized(), 0x0124),
        (errors.InstanceMismatch(), 0xA900),
        (errors.CannotUnderstand(), 0xC000),
        (errors.NodeError(), 0x0110),
        (OSError("disk"), 0x0110),
        (KeyError("x"), 0x0110),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, Exception) else f"{v:04X}",
)
def test_each_error_has_its_status(error, status):
    assert answer(error).status == status


@pytest.mark.parametrize("kind", ALL_ERRORS, ids=lambda k: k.__name__)
def test_no_error_is_ever_answered_with_success_or_warning(kind):
    error = kind([]) if kind is errors.ConfigError else kind()

    status = answer(error).status

    assert status == 0x0110 or status == 0x0124 or 0xA700 <= status < 0xB000 or status >= 0xC000


def test_a_subclass_stands_before_its_base():
    kinds = [kind for kind, _ in FAILURES]
    for n, kind in enumerate(kinds):
        assert not any(issubclass(later, kind) for later in kinds[n + 1 :])


def test_comments_fit_the_error_comment_element():
    """(0000,0902) is LO: at most 64 characters, no backslash."""
    for _, row in FAILURES:
        assert 0 < len(row.comment) <= 64
        assert "\\" not in row.comment
        assert row.meaning
