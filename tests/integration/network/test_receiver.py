"""Real associations with the receiver: who may associate, what is stored, what is answered."""

import logging
import socket
import struct
import subprocess
import threading
import time
from ipaddress import ip_network

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pynetdicom import AE

from node.clock import SystemClock
from node.domain import AETitle, Uid
from node.errors import (
    AssociationRejected,
    CannotUnderstand,
    ConfigError,
    InstanceMismatch,
    LedgerError,
    NotAuthorized,
    OutOfResources,
    PeerBusy,
    PeerUnreachable,
)
from node.scp.association import Connection
from node.scp.contexts import STORAGE_CLASSES, STORAGE_SYNTAXES
from node.scp.server import Receiver
from node.scp.settings import ReceiverSettings
from node.scu import dimse
from node.scu.association import Context
from node.scu.sender import Outcome, Outgoing, contexts_for, send, send_batch
from tests.conftest import program
from tests.integration.network.support import (
    CT,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    FakeDoor,
    associate,
    data_set_of,
    outgoing,
    peer_at,
    receiving,
    until,
    write_object,
)

LOOPBACK = (ip_network("127.0.0.0/8"),)
ELSEWHERE = (ip_network("192.0.2.0/24"),)


@pytest.mark.dcmtk
@pytest.mark.parametrize("called", ["RTNODE", "SECOND"])
def test_every_called_ae_title_answers_c_echo_on_one_port(called):
    with receiving(FakeDoor(), ae_titles=(AETitle("RTNODE"), AETitle("SECOND"))) as receiver:
        run = subprocess.run(
            [program("echoscu"), "-aec", called, "127.0.0.1", str(receiver.port)], check=False
        )

    assert run.returncode == 0


@pytest.mark.parametrize(
    ("called", "calling", "words"),
    [
        ("NOBODY", "CTSIM1", "called AE title is not recognized"),
        ("RTNODE", "STRANGER", "our AE title is not recognized"),
        ("RTNODE", "TPS", "our AE title is not recognized"),
    ],
    ids=["called-unknown", "calling-unknown", "right-title-from-wrong-address"],
)
def test_an_unknown_ae_title_is_rejected_for_good(called, calling, words):
    """Fault B5; A-ASSOCIATE-RJ (1,1,7) and (1,1,3)."""
    allowed = {AETitle("CTSIM1"): LOOPBACK, AETitle("TPS"): ELSEWHERE}
    with (
        receiving(FakeDoor(), accept_unknown=False, allowed=allowed) as receiver,
        pytest.raises(AssociationRejected, match=words) as caught,
    ):
        associate(receiver.port, called=called, calling=calling)

    assert not caught.value.transient


def test_a_check_that_fails_lets_nobody_in(monkeypatch):
    """Nobody is in by mistake: a connection is accepted at one place, after every check."""

    def broken(*_):
        raise RuntimeError("our own mistake")

    monkeypatch.setattr(Connection, "_rejection", broken)
    with receiving(FakeDoor()) as receiver:
        with pytest.raises(PeerUnreachable):
            associate(receiver.port)
        assert receiver.associations == 0


def test_a_known_peer_from_its_address_is_accepted():
    allowed = {AETitle("CTSIM1"): LOOPBACK}
    with (
        receiving(FakeDoor(), accept_unknown=False, allowed=allowed) as receiver,
        associate(receiver.port, calling="CTSIM1") as association,
    ):
        assert association.accepted


@pytest.mark.parametrize("allowed", [{}, {AETitle("CTSIM1"): ELSEWHERE}], ids=["none", "other"])
def test_an_address_that_no_peer_has_is_closed_before_any_byte(allowed):
    """Fault B5, by address."""
    with (
        receiving(FakeDoor(), accept_unknown=False, allowed=allowed) as receiver,
        socket.create_connection(("127.0.0.1", receiver.port), 5) as connection,
    ):
        assert connection.recv(1) == b""


def test_one_association_too_many_is_rejected_for_now():
    with (
        receiving(FakeDoor(), max_associations=1) as receiver,
        associate(receiver.port, Context(VERIFICATION, IMPLICIT)) as first,
    ):
        with pytest.raises(PeerBusy, match="limit"):
            associate(receiver.port)
        assert first.echo().status == 0


def test_idle_connections_make_room_for_whoever_associates():
    """Fault B2: the oldest is cut, so that neither a scanner nor a health check shuts us."""
    with receiving(FakeDoor(), max_per_address=3) as receiver:
        idle = [socket.create_connection(("127.0.0.1", receiver.port), 5) for _ in range(12)]
        assert idle[0].recv(1) == b""
        with associate(receiver.port, Context(VERIFICATION, IMPLICIT)) as association:
            assert association.echo().status == 0
        for connection in idle:
            connection.close()


def test_associations_from_one_address_are_limited():
    with (
        receiving(FakeDoor(), max_per_address=2) as receiver,
        associate(receiver.port),
        associate(receiver.port),
        pytest.raises(PeerBusy, match="limit"),
    ):
        associate(receiver.port)


def test_every_listed_class_is_accepted_in_every_listed_syntax():
    """The tables that CONFORMANCE.md is printed from are what is negotiated."""
    contexts = [Context(c, s) for c in STORAGE_CLASSES for s in STORAGE_SYNTAXES]
    accepted = set()
    with receiving(FakeDoor()) as receiver:
        for at in range(0, len(contexts), 128):
            with associate(receiver.port, *contexts[at : at + 128]) as association:
                accepted |= set(association.accepted)

    assert accepted == set(contexts)


def test_unlisted_classes_and_syntaxes_are_not_accepted():
    video = Context(CT, Uid("1.2.840.10008.1.2.4.102"))
    ultrasound = Context(Uid("1.2.840.10008.5.1.4.1.1.6.1"), EXPLICIT)
    with (
        receiving(FakeDoor()) as receiver,
        associate(receiver.port, video, ultrasound, Context(CT, EXPLICIT)) as association,
    ):
        assert set(association.accepted) == {Context(CT, EXPLICIT)}


def test_of_many_syntaxes_in_one_context_explicit_little_endian_is_chosen():
    ae = AE(ae_title="TESTER")
    ae.add_requested_context(CT, [*reversed(list(STORAGE_SYNTAXES))])
    with receiving(FakeDoor()) as receiver:
        association = ae.associate("127.0.0.1", receiver.port, ae_title="RTNODE")
        chosen = association.accepted_contexts[0].transfer_syntax[0]
        association.release()

    assert chosen == EXPLICIT


DCMTK_PROPOSALS = {
    EXPLICIT: "-xe",
    IMPLICIT: "-xi",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.5": "-xr",
    "1.2.840.10008.1.2.1.99": "-xd",
}


@pytest.mark.dcmtk
@pytest.mark.parametrize("syntax", DCMTK_PROPOSALS)
def test_storescu_delivers_the_bytes_of_each_syntax(tmp_path, syntax):
    path = write_object(tmp_path, syntax=syntax)
    door = FakeDoor()
    with receiving(door) as receiver:
        run = subprocess.run(
            [
                *(program("storescu"), "-R", DCMTK_PROPOSALS[syntax], "-aec", "RTNODE"),
                *("127.0.0.1", str(receiver.port), str(path)),
            ],
            capture_output=True,
            check=False,
        )

    assert run.returncode == 0, run.stderr
    assert [s.transfer_syntax_uid for s in door.stored] == [syntax]
    assert len(door.stored[0].dataset) % 2 == 0


@pytest.mark.dcmtk
@pytest.mark.parametrize(
    "command",
    [["storescu"], ["dcmsend"], ["dcmsend", "--decompress-never"]],
    ids=["storescu-default-list", "dcmsend", "dcmsend-as-stored"],
)
def test_the_default_proposals_of_dcmtk_are_accepted(tmp_path, command):
    syntaxes = list(DCMTK_PROPOSALS) if len(command) > 1 else [EXPLICIT, IMPLICIT]
    paths = [write_object(tmp_path, n, syntax=s) for n, s in enumerate(syntaxes, 1)]
    command = [*command, "-aec", "RTNODE"]
    door = FakeDoor()
    with receiving(door) as receiver:
        run = subprocess.run(
            [program(command[0]), *command[1:], "127.0.0.1", str(receiver.port), *map(str, paths)],
            capture_output=True,
            check=False,
        )

    assert run.returncode == 0, run.stderr
    assert len(door.stored) == len(paths)
    if "--decompress-never" in command:  # uncompressed ones may be turned into each other
        compressed = {s for s in syntaxes if s.startswith("1.2.840.10008.1.2.4")}
        assert {s.transfer_syntax_uid for s in door.stored} >= compressed


def test_each_syntax_arrives_byte_for_byte(tmp_path):
    paths = [write_object(tmp_path, n, syntax=s) for n, s in enumerate(STORAGE_SYNTAXES, 1)]
    door, results = FakeDoor(), []
    with receiving(door) as receiver:
        send_batch(peer_at(receiver.port), [Outgoing.read(p) for p in paths], results.append)

    assert {r.outcome for r in results} == {Outcome.SENT}
    assert [s.dataset for s in door.stored] == [data_set_of(p) for p in paths]
    assert [s.transfer_syntax_uid for s in door.stored] == list(STORAGE_SYNTAXES)


@pytest.mark.parametrize("pdu", [128, 16384, 131072, 1024 * 1024])
def test_objects_arrive_whole_in_pdus_of_any_size(tmp_path, pdu):
    path = write_object(tmp_path, pixels=256 * 1024)
    door = FakeDoor()
    with receiving(door) as receiver, associate(receiver.port) as association:
        association._fragment = pdu - 6
        send(association, outgoing(path))

    assert door.stored[0].dataset == data_set_of(path)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OutOfResources("full"), 0xA700),
        (LedgerError("locked"), 0xA700),
        (NotAuthorized("no"), 0x0124),
        (InstanceMismatch("other"), 0xA900),
        (CannotUnderstand("what"), 0xC000),
        (RuntimeError("patient Canary^Name"), 0x0110),
        (MemoryError(), 0x0110),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, Exception) else f"{v:04X}",
)
def test_each_error_of_the_intake_has_its_status_and_the_association_lives(
    tmp_path, caplog, error, status
):
    item = outgoing(write_object(tmp_path))
    door = FakeDoor(error=error)
    contexts = [*contexts_for([item]), Context(VERIFICATION, IMPLICIT)]
    with receiving(door) as receiver, associate(receiver.port, *contexts) as association:
        assert send(association, item).status == status
        assert association.echo().status == 0
        door.error = None
        assert send(association, item).status == 0x0000
    until(lambda: door.ended)

    assert door.ended[0][1:] == ("RELEASED", 1, 0)  # taken at the second try: nothing is lacking
    assert "Canary" not in "".join(str(vars(r).get("fields")) for r in caplog.records)


def test_an_over_long_uid_is_one_objects_fault(tmp_path):
    first, second = (outgoing(write_object(tmp_path, n)) for n in (1, 2))
    odd = Outgoing(
        path=first.path,
        sop_class_uid=CT,
        sop_instance_uid=Uid("2.25." + "9" * 80),
        transfer_syntax_uid=EXPLICIT,
    )
    door = FakeDoor()
    with receiving(door) as receiver, associate(receiver.port) as association:
        statuses = [send(association, item).status for item in (first, odd, second)]

    assert statuses == [0, 0, 0]  # whether an over-long UID is kept is the intake's decision
    assert door.stored[1].sop_instance_uid == odd.sop_instance_uid


def _request(association, context_id, elements, data=None):
    """Send a hand-made request and return the status of the answer."""
    command = dimse._command({0x0110: struct.pack("<H", 77), **elements})
    buffers = dimse.p_data(context_id, command, command=True, last=True)
    if data is not None:
        buffers += dimse.p_data(context_id, data, command=False, last=True)
    association._send(buffers)
    command = association._read_command(time.monotonic() + 5)
    assert dimse._number(command, 0x0120) == 77
    return dimse._number(command, 0x0900)


def _us(value):
    return struct.pack("<H", value)


C_STORE = {0x0100: _us(0x0001), 0x0700: _us(0), 0x0800: _us(1)}
BAD_REQUESTS = {
    "store-of-another-class": (
        C_STORE | {0x0002: b"1.2.840.10008.5.1.4.1.1.4\0", 0x1000: b"2.25.1"},
        b"x" * 8,
        0x0122,
    ),
    "store-of-an-unknown-class": (
        C_STORE | {0x0002: b"1.2.3.4\0", 0x1000: b"2.25.1"},
        b"x" * 8,
        0x0122,
    ),
    "store-without-instance-uid": (C_STORE | {0x0002: CT.encode()}, b"x" * 8, 0xC000),
    "store-without-class-uid": (C_STORE | {0x1000: b"2.25.1"}, b"x" * 8, 0xC000),
    "store-without-data-set": (
        C_STORE | {0x0002: CT.encode() + b"\0", 0x1000: b"2.25.1", 0x0800: _us(0x0101)},
        None,
        0xC000,
    ),
    "find": (
        {0x0002: CT.encode() + b"\0", 0x0100: _us(0x0020), 0x0700: _us(0), 0x0800: _us(1)},
        b"x" * 8,
        0x0122,
    ),
    "n-action": (
        {
            0x0003: CT.encode() + b"\0",
            0x0100: _us(0x0130),
            0x0800: _us(0x0101),
            0x1001: b"2.25.1",
            0x1008: _us(1),
        },
        None,
        0x0211,
    ),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_bad_request_is_answered_and_the_batch_goes_on(tmp_path, name):
    elements, data, status = BAD_REQUESTS[name]
    item = outgoing(write_object(tmp_path))
    door = FakeDoor()
    with receiving(door) as receiver, associate(receiver.port) as association:
        answered = _request(association, 1, elements, data)
        after = send(association, item).status

    assert (answered, after, len(door.stored)) == (status, 0, 1)


def test_refused_are_objects_that_did_not_come_and_nothing_else(tmp_path):
    """The completeness of a series rests on it: what was taken after all is not missing."""
    items = [outgoing(write_object(tmp_path, n)) for n in (1, 2)]
    door = FakeDoor()
    with receiving(door) as receiver:
        association = associate(receiver.port)
        _request(association, 1, *BAD_REQUESTS["n-action"][:2])
        _request(association, 1, *BAD_REQUESTS["find"][:2])
        door.error = OutOfResources("full")
        statuses = [send(association, item).status for item in items]
        door.error = None
        statuses.append(send(association, items[0]).status)
        association.release()
        until(lambda: door.ended)

    assert statuses == [0xA700, 0xA700, 0]
    assert door.ended[0][1:] == ("RELEASED", 1, 1)


def test_the_end_of_an_association_is_recorded_as_it_was(tmp_path):
    item = outgoing(write_object(tmp_path))
    door = FakeDoor()
    with receiving(door) as receiver:
        released = associate(receiver.port)
        send(released, item)
        released.release()
        until(lambda: len(door.ended) == 1)
        associate(receiver.port).abort()
        until(lambda: len(door.ended) == 2)
        lost = associate(receiver.port)
        lost._connection.shutdown(socket.SHUT_RDWR)
        until(lambda: len(door.ended) == 3)

    ids = [source.association_id for source in door.opened]
    assert door.ended == [
        (ids[0], "RELEASED", 1, 0),
        (ids[1], "ABORTED", 0, 0),
        (ids[2], "LOST", 0, 0),
    ]
    assert len(set(ids)) == 3
    assert all(len(i) == 8 and int(i, 16) >= 0 for i in ids)


def test_one_line_tells_of_an_association(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = write_object(tmp_path)
    door = FakeDoor()
    with receiving(door) as receiver:
        with associate(receiver.port, calling="CTSIM1") as association:
            send(association, outgoing(path))
        until(lambda: door.ended)

    lines = [r.fields for r in caplog.records if r.message == "association_ended"]
    seconds = lines[0].pop("seconds")
    assert 0 <= seconds < 5
    assert lines == [
        {
            "assoc": door.opened[0].association_id,
            "calling": "CTSIM1",
            "called": "RTNODE",
            "address": "127.0.0.1",
            "received": 1,
            "refused": 0,
            "bytes": len(data_set_of(path)),
            "end": "RELEASED",
        }
    ]


def test_a_database_that_is_away_stops_stores_but_not_echoes(tmp_path):
    item = outgoing(write_object(tmp_path))
    door = FakeDoor(ledger_error=LedgerError("away"))
    contexts = [Context(CT, EXPLICIT), Context(VERIFICATION, IMPLICIT)]
    with receiving(door) as receiver:
        association = associate(receiver.port, *contexts)
        assert association.echo().status == 0
        assert send(association, item).status == 0xA700
        door.ledger_error = None
        assert send(association, item).status == 0
        door.ledger_error = LedgerError("away again")
        association.release()
        until(lambda: receiver.associations == 0)
        assert door.ended == []
        door.ledger_error = None
        until(lambda: door.ended)  # the sweep records the end once the database is back

    assert door.ended[0][1:] == ("RELEASED", 1, 0)


def test_four_associations_store_side_by_side(tmp_path):
    items = [outgoing(write_object(tmp_path, n)) for n in range(1, 41)]
    door, results = FakeDoor(), []
    with receiving(door) as receiver:
        threads = [
            threading.Thread(
                target=send_batch, args=(peer_at(receiver.port), items[n::4], results.append)
            )
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert {r.status for r in results} == {0}
    assert sorted(s.sop_instance_uid for s in door.stored) == sorted(
        i.sop_instance_uid for i in items
    )
    assert len({s.source.association_id for s in door.stored}) == 4


def test_stopping_answers_the_message_under_way_and_aborts_idle_peers(tmp_path):
    item = outgoing(write_object(tmp_path))
    begun, finish = threading.Event(), threading.Event()
    results = []

    def slowly():
        begun.set()
        finish.wait(5)

    door = FakeDoor(before=slowly)
    with receiving(door) as receiver:
        idle, busy = associate(receiver.port), associate(receiver.port)
        sending = threading.Thread(target=lambda: results.append(send(busy, item)))
        sending.start()
        begun.wait(5)
        stopping = threading.Thread(target=receiver.stop)
        stopping.start()
        until(lambda: _ended(idle))  # told at once, while the other one is still answered
        finish.set()
        sending.join(5)
        stopping.join(10)
        until(lambda: _ended(busy))
        with pytest.raises(PeerUnreachable):
            associate(receiver.port)

    assert [r.status for r in results] == [0]
    assert {e[1] for e in door.ended} == {"ABORTED"}


def _ended(association) -> bool:
    try:
        association.check()
    except PeerUnreachable:
        return True
    return False


def test_a_port_in_use_is_told_before_anything_runs():
    with receiving(FakeDoor()) as receiver:
        settings = ReceiverSettings(ae_titles=(AETitle("RTNODE"),), port=receiver.port)
        with pytest.raises(ConfigError, match="cannot listen"):
            Receiver(settings, FakeDoor(), SystemClock()).start()


def test_pynetdicom_as_sender_is_served(tmp_path):
    ae = AE(ae_title="TESTER")
    ae.add_requested_context(CT, [EXPLICIT])
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CT, "2.25.77"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = EXPLICIT
    door = FakeDoor()
    with receiving(door) as receiver:
        association = ae.associate("127.0.0.1", receiver.port, ae_title="RTNODE")
        status = association.send_c_store(ds)
        association.release()

    assert status.Status == 0
    assert door.stored[0].sop_instance_uid == "2.25.77"


def test_a_release_is_answered_only_when_the_end_is_durable():
    """A peer that was answered never comes back: a node killed after that must know the end."""
    order = []

    class SlowBook(FakeDoor):
        def association_ended(self, association_id, *, end, received, refused) -> None:
            time.sleep(0.3)
            order.append(end)
            super().association_ended(association_id, end=end, received=received, refused=refused)

    with receiving(SlowBook()) as receiver:
        association = associate(receiver.port, Context(VERIFICATION, IMPLICIT))
        assert association.echo().status == 0
        association.release()
        order.append("answered")

    assert order == ["RELEASED", "answered"]
