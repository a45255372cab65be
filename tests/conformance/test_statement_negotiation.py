"""CONFORMANCE.md against a running receiver: every SOP class in every transfer syntax (PS3.2)."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import UID_dictionary
from pynetdicom import AE

from node.cli.conformance.statement import SAMPLE, sample_config, statement
from node.cli.conformance.tables import REJECTIONS
from node.scp import negotiation
from node.scp.commitment import Commitment
from node.scp.server import Receiver
from node.scp.settings import ReceiverSettings
from node.scu.association import MAXIMUM_CONTEXTS, Context
from tests.integration.network.conftest import _library_options  # noqa: F401 - a fixture for here
from tests.integration.network.support import FakeDoor, associate, receiving

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "CONFORMANCE.md").read_text(encoding="utf-8")
UNCOMPRESSED = ("Explicit VR Little Endian", "Implicit VR Little Endian")
SYNTAXES = [uid for uid, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax"]
CLASSES = [
    uid for uid, entry in UID_dictionary.items()
    if entry[1] == "SOP Class" and not entry[4].startswith("Retired")
]  # fmt: skip
NAME_OF = {entry[0]: uid for uid, entry in UID_dictionary.items()}


def rows(heading: str) -> list[list[str]]:
    """Return the rows of the first table below a heading."""
    below = PAGE.split(f"{heading}\n", 1)[1]
    (table,) = re.findall(r"\A(?:[^|]*)((?:\|.*\n)+)", below)
    return [[c.strip() for c in line.strip(" |").split(" | ")] for line in table.splitlines()[2:]]


def printed_order() -> list[str]:
    """Return the transfer syntaxes of the page, in order of preference."""
    below = PAGE.split("| transfer syntax, in order of preference | UID |\n", 1)[1]
    return re.findall(r"^\| [^|]+ \| ([0-9.]+) \|$", below.split("\n\n")[0], re.MULTILINE)


def printed() -> set[Context]:
    """Return every presentation context that the page says is accepted."""
    found = set()
    for _, uid, syntaxes, _, _ in rows("#### 5.3.1 Presentation contexts accepted"):
        if syntaxes.startswith("each of"):
            accepted = printed_order()
        else:
            accepted = [NAME_OF[name.replace(" (retired)", "")] for name in syntaxes.split(", ")]
        found |= {Context(uid, syntax) for syntax in accepted}
    return found


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    commitment = Commitment(ledger=None, reachable=frozenset(), asked={})  # type: ignore[arg-type] # never asked
    with receiving(FakeDoor(), services=(commitment.service(),)) as running:
        yield running


def test_the_page_is_what_the_code_does() -> None:
    """Else: ``python -m node.cli.conformance CONFORMANCE.md``."""
    assert statement(sample_config(), source=SAMPLE) == PAGE, "run the command in the docstring"


def test_a_running_receiver_accepts_what_the_page_says_and_nothing_else(receiver) -> None:
    """Listed classes in every transfer syntax of the standard, all others in the two plain ones."""
    listed = {context.sop_class_uid for context in printed()}
    proposed = [
        Context(sop, syntax)
        for sop in CLASSES
        for syntax in (SYNTAXES if sop in listed else SYNTAXES[:2])
    ]
    accepted = set()

    for at in range(0, len(proposed), MAXIMUM_CONTEXTS):
        with associate(receiver.port, *proposed[at : at + MAXIMUM_CONTEXTS]) as association:
            accepted |= set(association.accepted)

    assert len(proposed) > 2_000
    assert accepted == printed()


def test_of_several_syntaxes_the_first_of_the_page_is_accepted(receiver) -> None:
    order = printed_order()
    ae = AE("TESTER")
    ae.acse_timeout = ae.network_timeout = 10
    for first in range(0, len(order) - 1, 3):
        ae.requested_contexts = []
        ae.add_requested_context("1.2.840.10008.5.1.4.1.1.2", list(reversed(order[first:])))
        association = ae.associate("127.0.0.1", receiver.port, ae_title="RTNODE")
        (context,) = association.accepted_contexts
        association.release()
        assert context.transfer_syntax == [order[first]]


def test_every_rejection_is_on_the_page() -> None:
    known = {r for r in vars(negotiation).values() if isinstance(r, negotiation.Rejection)}

    assert set(REJECTIONS) == known


def test_the_association_parameters_are_those_of_the_answer(receiver) -> None:
    ae = AE("TESTER")
    ae.acse_timeout = ae.network_timeout = 10
    ae.add_requested_context("1.2.840.10008.1.1")
    association = ae.associate("127.0.0.1", receiver.port, ae_title="RTNODE")
    answer = association.acceptor
    told = dict(row[:2] for row in rows("### 5.2 Association policies"))
    association.release()

    assert told["maximum PDU announced, both directions"] == f"{answer.maximum_length} bytes"
    assert f"| {answer.implementation_class_uid} | " in PAGE
    assert answer.asynchronous_operations == (1, 1)


def test_limits_of_the_page_are_those_of_the_receiver() -> None:
    settings = ReceiverSettings.of(sample_config())
    told = {key.strip("`"): value for key, value in rows("### 7.4 Parameters")}

    assert float(told["node.max_associations"]) == settings.max_associations
    assert float(told["receive.idle_timeout_s"]) == settings.idle_timeout_s
    assert float(told["receive.max_object_mb"]) * 2**20 == settings.max_object_bytes
