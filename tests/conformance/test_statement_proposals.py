"""What the node proposes as requestor is what CONFORMANCE.md prints (5.4.1)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from node.domain import AETitle
from node.errors import DeliveryError
from node.scu.archives import RETRIEVED_CLASSES
from node.scu.association import Association, PeerAE, Roles
from node.scu.commitment import CONTEXTS
from node.scu.echo import echo
from node.scu.query import SERVICES, find, get, move
from node.scu.sender import send_batch
from node.scu.transaction import PUSH_MODEL
from tests.conformance.test_statement_negotiation import NAME_OF, rows
from tests.integration.network.support import (
    CT,
    EXPLICIT,
    IMPLICIT,
    outgoing,
    peer_at,
    write_object,
)

PLAIN = {EXPLICIT, IMPLICIT}
NAMES = NAME_OF | {name: uid for uid, name in SERVICES.items()}


@contextmanager
def refusing_listener() -> Iterator[tuple[PeerAE, list[object]]]:
    """Accept associations without a useful context; yield the peer and the requests that came."""
    requests: list[object] = []
    ae = AE("PACS")
    ae.acse_timeout = ae.network_timeout = ae.dimse_timeout = 10
    ae.add_supported_context("1.2.840.10008.5.1.1.9")
    server = ae.start_server(
        ("127.0.0.1", 0),
        block=False,
        evt_handlers=[(evt.EVT_REQUESTED, lambda event: requests.append(event.assoc.requestor))],
    )
    try:
        yield peer_at(server.server_address[1], called="PACS"), requests
    finally:
        server.shutdown()


def proposed(act: Callable[[PeerAE], object]) -> tuple[dict[str, set[str]], dict[str, tuple]]:
    """Return abstract syntax -> transfer syntaxes, and -> (SCU role, SCP role), of one request."""
    with refusing_listener() as (peer, requests):
        with suppress(DeliveryError, StopIteration):
            act(peer)
        (requestor,) = requests
        contexts: dict[str, set[str]] = {}
        for context in requestor.requested_contexts:
            contexts.setdefault(str(context.abstract_syntax), set()).update(context.transfer_syntax)
        roles = {
            str(uid): (item.scu_role, item.scp_role)
            for uid, item in requestor.role_selection.items()
        }
    return contexts, roles


def printed(activity: str) -> dict[str, tuple[set[str], str]]:
    """Return abstract syntax -> transfer syntaxes and role, of the rows of an activity."""
    found = {}
    for row in rows("#### 5.4.1 Presentation contexts proposed"):
        if row[0] == activity:
            syntaxes = {str(NAMES[name]) for name in row[2].split(", ")}
            for name in row[1].split(", "):
                found[str(NAMES.get(name) or NAMES[f"{name} SOP Class"])] = (syntaxes, row[3])
    return found


def keys() -> Dataset:
    ds = Dataset()
    ds.QueryRetrieveLevel = "STUDY"
    ds.StudyInstanceUID = "2.25.1"
    return ds


def never(*_: object) -> int:
    raise AssertionError("nothing is stored here")


@pytest.mark.parametrize(
    ("activity", "act"),
    [
        ("test a peer", lambda peer: echo(peer, count=1)),
        ("query and retrieve", lambda peer: find(peer, keys(), limit=1)),
        ("query and retrieve", lambda peer: move(peer, keys(), AETitle("RTNODE"))),
        ("ask for commitment", lambda peer: Association.open(peer, CONTEXTS).release()),
    ],
    ids=["echo", "find", "move", "commitment"],
)
def test_each_proposal_is_on_the_page(activity: str, act: Callable[[PeerAE], object]) -> None:
    page = printed(activity)

    contexts, roles = proposed(act)

    assert roles == {}
    for uid, syntaxes in contexts.items():
        assert page[uid] == (syntaxes, "SCU")


def test_a_report_on_commitment_is_proposed_in_the_role_of_the_provider() -> None:
    roles = {PUSH_MODEL: Roles(scu=False, scp=True)}

    contexts, said = proposed(lambda peer: Association.open(peer, CONTEXTS, roles=roles).release())

    page = printed("report on commitment")
    assert page == {PUSH_MODEL: (contexts[PUSH_MODEL], "SCP by role selection")}
    assert said == {PUSH_MODEL: (False, True)}


def test_a_c_get_proposes_the_provider_role_for_what_may_come() -> None:
    contexts, roles = proposed(
        lambda peer: get(peer, keys(), RETRIEVED_CLASSES, never, largest=1024)
    )

    page = printed("query and retrieve") | printed("retrieve by C-GET")
    for uid, syntaxes in contexts.items():
        assert page[uid][0] == syntaxes
        assert (uid in roles) == (page[uid][1] == "SCP by role selection")
    assert set(roles.values()) == {(False, True)}


def test_an_object_is_proposed_as_it_is_stored_and_in_the_other_plain_syntax(
    tmp_path: Path,
) -> None:
    plain = outgoing(write_object(tmp_path))
    packed = outgoing(write_object(tmp_path, 2, syntax="1.2.840.10008.1.2.4.70"))

    for item, wanted in ((plain, PLAIN), (packed, {"1.2.840.10008.1.2.4.70"})):
        contexts, roles = proposed(lambda peer, item=item: send_batch(peer, [item], print))
        assert contexts == {CT: wanted}
        assert roles == {}
