"""Every fault of the catalogue has a test that exists."""

import ast
from functools import cache

import pytest

from tests.conftest import ROOT
from tests.faults.index import FAULTS

COUNTS = {"A": 15, "B": 13, "C": 14, "D": 9, "E": 8}


@cache
def names_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))


def test_all_59_faults_are_in_the_index():
    wanted = [f"{letter}{n}" for letter, many in COUNTS.items() for n in range(1, many + 1)]

    assert list(FAULTS) == wanted
    assert len(wanted) == 59


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_has_a_test_or_a_reason(fault: str):
    assert FAULTS[fault]
    for entry in FAULTS[fault]:
        if entry.startswith("reason: "):
            assert len(entry) > 30
            continue
        path, _, name = entry.partition("::")
        assert name in names_in(path), f"{fault}: {entry}"
