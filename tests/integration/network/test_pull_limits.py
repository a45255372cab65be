"""Fetching is polite: each thing once, later after a failure, and never a stranger's."""

import dataclasses
import itertools
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from node.config.model import Pull
from node.domain import AETitle, Uid
from node.errors import NotAccepted, OutOfResources, PeerRefused, PeerUnreachable
from node.routing.wants import Want
from node.scu.archives import PeerArchive
from node.scu.association import MAXIMUM_PDU_LENGTH, PeerAE
from node.scu.bringing import HEAD
from node.scu.pull import Puller
from node.scu.query import FIND, GET, MOVE, Retrieved, find, get, move
from tests.integration.network.support import (
    CT,
    EXPLICIT,
    IMPLICIT,
    FakeDoor,
    data_set_of,
    dead_port,
    peer_at,
    write_object,
)
from tests.store_kit import FakeClock


class Peer:
    """An archive that answers queries and retrievals as told, and counts them."""

    def __init__(
        self,
        *,
        patient="CANARY-ID",
        issuer="",
        move_status=0x0000,
        study="2.25.1",
        series="2.25.77",
        brings=None,
    ):
        self.patient, self.issuer, self.study, self.series = patient, issuer, study, series
        self.move_status = move_status
        self.brings: list[Path] | None = brings
        self.levels: list[str] = []
        self.moves: list[Dataset] = []

    def __enter__(self):
        ae = AE(ae_title="PACS")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 5
        for service in (FIND, MOVE, GET):
            ae.add_supported_context(service)
        ae.add_supported_context(CT, [EXPLICIT, IMPLICIT], scu_role=True, scp_role=True)
        handlers = [(evt.EVT_C_FIND, self._on_find), (evt.EVT_C_MOVE, self._on_move)]
        handlers += [(evt.EVT_C_GET, self._on_get)]
        self._server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = self._server.server_address[1]
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()

    def _on_find(self, event):
        asked = event.identifier
        self.levels.append(asked.QueryRetrieveLevel)
        answer = Dataset()
        answer.QueryRetrieveLevel = asked.QueryRetrieveLevel
        answer.StudyInstanceUID = self.study
        answer.PatientID = self.patient
        answer.IssuerOfPatientID = self.issuer
        if asked.QueryRetrieveLevel == "SERIES":
            answer.SeriesInstanceUID, answer.Modality = self.series, "CT"
        yield 0xFF00, answer

    def _on_move(self, event):
        self.moves.append(event.identifier)
        yield None, None  # an unknown destination: 0xA801

    def _on_get(self, event):
        if self.brings is None:
            yield 1
            yield self.move_status, None
            return
        yield len(self.brings)
        for path in self.brings:
            yield 0xFF00, dcmread(path)


class Desk:
    """A door that takes everything, up to a number of objects, and writes down how it ended."""

    def __init__(self, room: int = 99) -> None:
        self.taken: list[str] = []
        self.ends: list[tuple[str, int, int]] = []
        self.room = room

    def receive(self, *, sop_instance_uid, **_):
        desk = self

        class Arrival:
            def write(self, fragment) -> None:
                """Fine."""

            def accept(self) -> None:
                if len(desk.taken) >= desk.room:
                    raise OutOfResources("full")
                desk.taken.append(sop_instance_uid)

            def discard(self) -> None:
                """Fine."""

        return Arrival()

    def association_opened(self, source) -> None:
        """Fine."""

    def association_ended(self, association_id, *, end, received, refused) -> None:
        self.ends.append((end, received, refused))


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def want(tmp_path) -> Want:
    return Want(
        patient_key="k",
        study_instance_uid=Uid("2.25.1"),
        trigger=write_object(tmp_path),
        series=frozenset({Uid("2.25.77")}),
    )


def puller(port: int, clock, pull: Pull = Pull.MOVE, door=None, **changes) -> Puller:
    peer: PeerAE = peer_at(port, called="PACS", connect_timeout_s=1.0, response_timeout_s=2.0)
    settings = {"largest": 1 << 20, "door": door, "title": AETitle("RTNODE")} | changes
    archive = PeerArchive(name="pacs", peer=peer, pull=pull, pause_s=0.0, **settings)
    return Puller([archive], clock)


def test_a_thing_that_nobody_has_is_looked_for_once(clock, want, tmp_path):
    with Peer() as peer:
        missing = Want(
            patient_key="k", study_instance_uid=want.study_instance_uid, trigger=want.trigger,
            series=frozenset({Uid("2.25.404")}),
        )  # fmt: skip
        looking = puller(peer.port, clock)
        assert looking.ask(missing)
        looking.run_once()
        assert not looking.ask(missing)
        for _ in range(5):
            clock.advance(1000)
            looking.ask(missing)
            looking.run_once()

    assert peer.levels == ["STUDY", "SERIES"]
    assert not peer.moves


def test_a_peer_that_is_away_is_tried_again_later_each_time_and_not_for_ever(clock, want):
    looking = puller(dead_port(), clock)
    news = []
    looking.on_news = lambda: news.append(clock.elapsed)
    assert looking.ask(want)
    hopes = []
    for _ in range(400):
        looking.run_once()
        hopes.append(looking.ask(want))
        clock.advance(20)

    assert len(news) == 8
    pauses = [b - a for a, b in itertools.pairwise(news)]
    assert pauses == sorted(pauses)
    assert pauses[0] >= 10
    assert hopes[0]
    assert not hopes[-1]


@pytest.mark.parametrize(
    ("patient", "issuer"), [("SOMEBODY-ELSE", ""), ("CANARY-ID-2", ""), ("canary-id", "")]
)
def test_answers_about_another_patient_are_passed_over(clock, want, patient, issuer):
    with Peer(patient=patient, issuer=issuer) as peer:
        looking = puller(peer.port, clock)
        looking.ask(want)
        looking.run_once()

    assert peer.levels == ["STUDY"]
    assert not peer.moves


@pytest.mark.parametrize("identifier", ["*", "CAN?RY", "山田", "A\\B"])
def test_an_identifier_that_could_find_others_is_not_searched_for(
    clock, want, tmp_path, identifier, monkeypatch
):
    monkeypatch.setattr("node.scu.pull.pydicom.dcmread", lambda *_, **__: {"PatientID": identifier})
    with Peer() as peer:
        looking = puller(peer.port, clock)
        looking.ask(want)
        looking.run_once()

    assert not peer.levels


def some_failed(*_) -> Retrieved:
    return Retrieved(completed=3, failed=2, status=0xB000)


def hung_up(*_) -> Retrieved:
    raise PeerUnreachable("the connection broke")


@pytest.mark.parametrize(
    ("answer", "failed"), [(move, 0), (some_failed, 2), (hung_up, 1)],
    ids=["refused at once", "some failed", "broken"],
)  # fmt: skip
def test_what_a_move_did_not_bring_is_noted_for_whoever_judges_its_series(
    clock, want, monkeypatch, answer, failed
):
    monkeypatch.setattr("node.scu.archives.move", answer)
    notes = []
    with Peer() as peer:
        looking = puller(peer.port, clock, note=lambda action, **d: notes.append((action, d)))
        looking.ask(want)
        looking.run_once()

    (began, first), (ended, last) = notes
    assert (began, first["subject"], first["peer"]) == ("pull_began", "2.25.77", "PACS")
    assert (ended, last["subject"], last["failed"]) == ("pull_ended", "2.25.77", failed)


def test_a_refused_retrieval_is_told_and_tried_again(clock, want):
    with Peer() as peer:
        looking = puller(peer.port, clock)
        looking.ask(want)
        looking.run_once()
        assert looking.ask(want)
        clock.advance(11)
        looking.run_once()

    assert len(peer.moves) == 2
    assert [m.SeriesInstanceUID for m in peer.moves] == ["2.25.77"] * 2


def wanted(folder) -> Want:
    """Want the series that `write_object` writes."""
    return Want(
        patient_key="k", study_instance_uid=Uid("2.25.1"), trigger=write_object(folder, 99),
        series=frozenset({Uid("2.25.2")}),
    )  # fmt: skip


def test_what_a_c_get_brings_comes_in_and_ends_well(clock, tmp_path):
    desk = Desk()
    with Peer(series="2.25.2", brings=[write_object(tmp_path, n) for n in (1, 2)]) as peer:
        looking = puller(peer.port, clock, Pull.GET, desk)
        looking.ask(wanted(tmp_path))
        looking.run_once()

    assert desk.taken == ["2.25.1234567890.1", "2.25.1234567890.2"]
    assert desk.ends == [("RELEASED", 2, 0)]


def test_a_c_get_of_which_something_did_not_come_is_no_released_association(clock, tmp_path):
    """The end of an association is evidence that a series is whole."""
    strange = write_object(tmp_path, 2, sop_class="1.2.840.10008.5.1.4.1.1.7")
    desk = Desk()
    with Peer(series="2.25.2", brings=[write_object(tmp_path, 1), strange]) as peer:
        looking = puller(peer.port, clock, Pull.GET, desk)
        looking.ask(wanted(tmp_path))
        looking.run_once()
        assert looking.ask(wanted(tmp_path))  # it is looked for again

    assert desk.taken == ["2.25.1234567890.1"]
    assert desk.ends == [("ABORTED", 1, 0)]


def test_an_object_of_a_c_get_is_never_held_in_memory_as_a_whole(clock, tmp_path):
    """It goes to the door as it comes; before that only its beginning, to know whose it is."""
    size = 1 << 20
    door = FakeDoor()
    pieces: list[int] = []

    def write(arrival, fragment) -> None:
        pieces.append(len(fragment))

    large = write_object(tmp_path, 1, pixels=size)
    with Peer(series="2.25.2", brings=[large]) as peer, pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.integration.network.support.FakeArrival.write", write)
        looking = puller(peer.port, clock, Pull.GET, door, largest=2 * size)
        looking.ask(wanted(tmp_path))
        looking.run_once()

    assert sum(pieces) == len(data_set_of(large))
    assert max(pieces) <= HEAD + MAXIMUM_PDU_LENGTH < size
    assert [end[1:] for end in door.ended] == [("RELEASED", 1, 0)]


def test_an_object_of_a_c_get_beyond_the_limit_ends_the_association(clock, tmp_path):
    door = FakeDoor()
    large = write_object(tmp_path, 1, pixels=1 << 20)
    with Peer(series="2.25.2", brings=[large]) as peer:
        looking = puller(peer.port, clock, Pull.GET, door, largest=1 << 19)
        looking.ask(wanted(tmp_path))
        looking.run_once()

    assert not door.stored
    assert door.discarded == 1
    assert [end[1] for end in door.ended] == ["LOST"]


def test_a_large_object_of_a_stranger_is_refused_before_it_is_anywhere(clock, tmp_path):
    door = FakeDoor()
    other = write_object(tmp_path, 2, pixels=1 << 19)
    changed = dcmread(other)
    changed.SeriesInstanceUID = "2.25.3"
    changed.save_as(other)
    with Peer(series="2.25.2", brings=[other, write_object(tmp_path, 1)]) as peer:
        looking = puller(peer.port, clock, Pull.GET, door)
        looking.ask(wanted(tmp_path))
        looking.run_once()

    assert [s.sop_instance_uid for s in door.stored] == ["2.25.1234567890.1"]
    assert [end[1:] for end in door.ended] == [("ABORTED", 1, 1)]


def test_what_was_not_asked_for_does_not_come_in_by_c_get(clock, tmp_path):
    """Another series, and with it another patient: an archive may send what it likes."""
    other = write_object(tmp_path, 2)
    changed = dcmread(other)
    changed.SeriesInstanceUID, changed.PatientID = "2.25.3", "SOMEBODY-ELSE"
    changed.save_as(other)
    desk = Desk()
    with Peer(series="2.25.2", brings=[write_object(tmp_path, 1), other]) as peer:
        looking = puller(peer.port, clock, Pull.GET, desk)
        looking.ask(wanted(tmp_path))
        looking.run_once()

    assert desk.taken == ["2.25.1234567890.1"]


@pytest.mark.parametrize("series", ["", "*", "2.25.77\\2.25.78", "2.25.?"])
def test_a_series_without_a_uid_is_not_retrieved(clock, want, series):
    """An empty or general key may stand for the whole archive."""
    registrations = dataclasses.replace(want, series=frozenset({Uid(series)}))
    with Peer(series=series) as peer:
        looking = puller(peer.port, clock)
        looking.ask(registrations)
        looking.run_once()

    assert not peer.moves


def test_without_a_patient_id_no_study_but_the_own_is_looked_into(clock, want, monkeypatch):
    monkeypatch.setattr("node.scu.pull.pydicom.dcmread", lambda *_, **__: {"PatientID": ""})
    with Peer(patient="", study="2.25.666") as peer:
        looking = puller(peer.port, clock)
        looking.ask(want)
        looking.run_once()

    assert peer.levels == ["STUDY"]


def test_an_answer_that_nobody_foresaw_ends_its_own_search_and_no_other(clock, want, monkeypatch):
    """It counts as a failed look: a job must not wait for it for ever."""

    def stumble(*_, **__):
        raise ValueError("patient Canary^Name")

    monkeypatch.setattr("node.scu.archives.find", stumble)
    looking = puller(dead_port(), clock)
    news = []
    looking.on_news = lambda: news.append(1)
    looking.ask(want)
    for _ in range(20):
        looking.run_once()
        clock.advance(1000)

    assert len(news) == 8
    assert not looking.ask(want)


def test_without_archives_nothing_is_wanted(clock, want):
    assert not Puller([], clock).ask(want)


@pytest.mark.parametrize("status", [0xA701, 0xA900, 0xC000])
def test_the_failures_of_a_retrieval_are_errors(status):
    keys = Dataset()
    keys.QueryRetrieveLevel = "STUDY"
    with Peer(move_status=status) as peer:
        address = peer_at(peer.port, called="PACS")
        with pytest.raises(PeerRefused):
            get(address, keys, [CT], lambda **_: None, largest=1 << 20)
        with pytest.raises(PeerRefused, match="0xA801"):
            move(address, keys, AETitle("RTNODE"))


def test_a_peer_without_query_is_named():
    ae = AE(ae_title="PACS")
    ae.add_supported_context("1.2.840.10008.1.1")
    server = ae.start_server(("127.0.0.1", 0), block=False)
    try:
        with pytest.raises(NotAccepted, match="Study Root Query/Retrieve - FIND"):
            find(peer_at(server.server_address[1], called="PACS"), Dataset(), limit=1)
    finally:
        server.shutdown()


def test_a_dead_archive_is_told():
    keys = Dataset()
    keys.QueryRetrieveLevel = "STUDY"
    with pytest.raises(PeerUnreachable):
        find(peer_at(dead_port()), keys, limit=1)
