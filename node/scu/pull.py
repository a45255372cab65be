"""Fetches what a pipeline lacks from the peers that may be asked for it, each thing once.

One thread, one retrieval at a time, with a pause between two: an archive serves clinicians first.
The search is by the identity in a stored object of the patient, an answer that names another one
is passed over, and only what was wanted by UID or frame of reference is retrieved. Objects come
in by the normal door: over an association that the peer opens (C-MOVE), or over ours (C-GET).
"""

import logging
import re
import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import pydicom
from pydicom.dataset import Dataset

from node.config.model import Config, Pull
from node.domain import Accepted, AETitle, Clock, Source, Uid
from node.errors import (
    CannotUnderstand,
    DeliveryError,
    NodeError,
    NotAccepted,
    PeerRefused,
    PeerUnreachable,
)
from node.log import event
from node.routing.wants import Want
from node.scu.association import PeerAE
from node.scu.destinations import peer_of
from node.scu.query import Retrieved, find, get, held_at, move
from node.store.header import parse_header
from node.store.series import PULL_BEGAN, PULL_ENDED

_log = logging.getLogger(__name__)

RETRIEVED_CLASSES: Final = tuple(
    Uid(uid)
    for uid in (
        "1.2.840.10008.5.1.4.1.1.2",
        "1.2.840.10008.5.1.4.1.1.4",
        "1.2.840.10008.5.1.4.1.1.128",
        "1.2.840.10008.5.1.4.1.1.481.3",
        "1.2.840.10008.5.1.4.1.1.481.5",
        "1.2.840.10008.5.1.4.1.1.481.8",
        "1.2.840.10008.5.1.4.1.1.66.1",
        "1.2.840.10008.5.1.4.1.1.66.3",
    )
)
"""CT, MR, PET, RT Structure Set, RT Plan, RT Ion Plan, spatial and deformable registration."""

_FIRST_S: Final = 10.0
_LONGEST_S: Final = 900.0
_MOST_ATTEMPTS: Final = 8
_HOPEFUL_ATTEMPTS: Final = 3
"""So many failures of a peer keep a job waiting that could run without what is wanted."""
_MOST_STUDIES: Final = 20
_MOST_SERIES: Final = 200
_POLL_S: Final = 30.0
_NOT_AUTHORIZED: Final = 0x0124
"""What a sub-operation is answered that nobody asked for (PS3.7 C.5.3)."""


class Arrival(Protocol):
    """An object on its way in."""

    def write(self, fragment: memoryview, /) -> None:
        """Take the bytes of the data set."""
        ...

    def accept(self) -> Accepted:
        """Return when the object is durable; raise a `NodeError` when it is not."""
        ...


class Door(Protocol):
    """Where objects of a C-GET go (`node.routing.door.Door`)."""

    def receive(
        self,
        *,
        transfer_syntax_uid: Uid,
        sop_class_uid: Uid,
        sop_instance_uid: Uid,
        source: Source,
    ) -> Arrival:
        """Begin to take in an object."""
        ...

    def association_opened(self, source: Source) -> None:
        """Record that objects may come from now on."""
        ...

    def association_ended(
        self, association_id: str, *, end: str, received: int, refused: int
    ) -> None:
        """Record how it ended."""
        ...


class Note(Protocol):
    """`Ledger.note`."""

    def __call__(
        self, action: str, *, kind: str, subject: str, correlation: str = "", **detail: object
    ) -> None:
        """Append an event."""
        ...


def _unnoted(
    action: str, *, kind: str, subject: str, correlation: str = "", **detail: object
) -> None:
    """Keep nothing: for a puller without a ledger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A peer to fetch from."""

    name: str
    peer: PeerAE
    pull: Pull
    pause_s: float
    """Between two retrievals."""


@dataclass(slots=True)
class _Search:
    """One thing that is wanted: how often it was looked for, and when again."""

    want: Want
    due: float
    attempt: int = 0
    over: bool = False
    """It was retrieved, or every peer says that it has none."""


@dataclass(slots=True)
class _Found:
    """What is still to be looked for in one search."""

    instances: set[Uid]
    series: set[Uid]
    frames: set[Uid]
    registrations: bool
    retrieved: int = 0
    got: set[str] = field(default_factory=set)


class Puller:
    """Looks for what is wanted, in its own thread.

    Parameters
    ----------
    archives : sequence of Archive
        Asked in this order.
    door : Door
    our_title : AETitle
        Where a C-MOVE sends to.
    clock : Clock
    largest : int
        Most bytes of one object of a C-GET.
    note : callable
        `Ledger.note`: what a C-MOVE did not bring must be known when its series is judged.
    """

    def __init__(
        self,
        archives: Sequence[Archive],
        door: Door,
        our_title: AETitle,
        clock: Clock,
        *,
        largest: int,
        note: Note = _unnoted,
    ) -> None:
        self.on_news: Callable[[], None] = lambda: None
        """Called when a search ended, so that decisions which wait for it are judged again."""
        self._archives = tuple(archives)
        self._door = door
        self._title = our_title
        self._clock = clock
        self._largest = largest
        self._mark = note
        self._searches: dict[tuple[str, str], _Search] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pull", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs; for the watchdog."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Finish the retrieval that is under way, and end."""
        self._stopping.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def ask(self, want: Want) -> bool:
        """Note what is wanted; tell whether it may still come. From any thread, never blocks."""
        if not self._archives or not want:
            return False
        now = self._clock.monotonic()
        with self._lock:
            searches = []
            for piece in (*want.instances, *want.series, *want.frames):
                key = (want.patient_key, piece)
                search = self._searches.get(key)
                if search is None:
                    search = self._searches[key] = _Search(want=want, due=now)
                    self._wake.set()
                search.want = want
                searches.append(search)
            return any(not s.over and s.attempt < _HOPEFUL_ATTEMPTS for s in searches)

    def run_once(self) -> float:
        """Look for what is due; return the seconds until more is."""
        for want, pieces in self._due():
            if self._stopping.is_set():
                return 0.0
            failed = self._look_for(want, pieces)
            self._note(want, pieces, failed=failed)
            self.on_news()
        with self._lock:
            waiting = [s.due for s in self._searches.values() if not s.over]
        return min([_POLL_S, *(max(0.05, due - self._clock.monotonic()) for due in waiting)])

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                pause = self.run_once()
            except Exception as error:  # noqa: BLE001 - the edge of a thread that must not end
                event(_log, "pull_failed", level=logging.ERROR, error=error)
                pause = _FIRST_S
            self._wake.wait(pause)

    def _due(self) -> list[tuple[Want, frozenset[str]]]:
        now = self._clock.monotonic()
        grouped: dict[Want, set[str]] = {}
        with self._lock:
            for (_, piece), search in self._searches.items():
                if not search.over and search.due <= now:
                    grouped.setdefault(search.want, set()).add(piece)
        return [(want, frozenset(pieces)) for want, pieces in grouped.items()]

    def _note(self, want: Want, pieces: Iterable[str], *, failed: bool) -> None:
        """Plan the next look: later each time, and none when there is no hope."""
        now = self._clock.monotonic()
        with self._lock:
            for piece in pieces:
                search = self._searches[want.patient_key, piece]
                search.attempt += 1
                search.over = not failed or search.attempt >= _MOST_ATTEMPTS
                search.due = now + min(_FIRST_S * 2.0 ** (search.attempt - 1), _LONGEST_S)

    def _look_for(self, want: Want, pieces: frozenset[str]) -> bool:
        """Ask each archive for what is left; return whether one of them could not be asked."""
        left = _Found(
            instances={u for u in want.instances if u in pieces},
            series={u for u in want.series if u in pieces},
            frames={u for u in want.frames if u in pieces},
            registrations=want.registrations,
        )
        failed = False
        for archive in self._archives:
            if not (left.instances or left.series or left.frames):
                break
            try:
                self._ask(archive, want, left)
            except DeliveryError as error:
                failed = True
                event(_log, "pull_not_possible", level=logging.WARNING, peer=archive.name,
                      reason=str(error), hint=error.advice)  # fmt: skip
            except Exception as error:  # noqa: BLE001 - an odd answer must not stop all other searches
                failed = True
                event(_log, "pull_failed", level=logging.ERROR, error=error, peer=archive.name)
        event(_log, "pulled", objects=left.retrieved, wanted=len(pieces),
              missing=len(left.instances) + len(left.series) + len(left.frames))  # fmt: skip
        return failed

    def _ask(self, archive: Archive, want: Want, left: _Found) -> None:
        for study in _studies(archive.peer, want):
            for series in _series_in(archive.peer, study):
                if not (left.instances or left.series or left.frames):
                    return
                self._consider(archive, study, series, left)

    def _consider(self, archive: Archive, study: Uid, series: Dataset, left: _Found) -> None:
        """Retrieve of one series what is wanted of it."""
        uid = Uid(str(series.get("SeriesInstanceUID", "")))
        modality = str(series.get("Modality", ""))
        keys = Dataset()
        keys.QueryRetrieveLevel = "SERIES"
        keys.StudyInstanceUID = study
        keys.SeriesInstanceUID = uid
        if uid in left.series:
            self._retrieve(archive, keys, left)
            left.series.discard(uid)
        elif modality in ("RTPLAN", "RTSTRUCT") and left.instances:
            there = held_at(archive.peer, study, uid, left.instances)
            if there:
                keys.QueryRetrieveLevel = "IMAGE"
                keys.SOPInstanceUID = sorted(there)
                self._retrieve(archive, keys, left)
                left.instances -= there
        elif modality == "REG" and left.registrations:
            self._retrieve(archive, keys, left)
        elif modality == "CT" and left.frames:
            frame = _frame_of(archive.peer, study, series)
            if frame in left.frames:
                self._retrieve(archive, keys, left)
                left.frames.clear()  # one CT is enough; where two fit, a person decides

    def _retrieve(self, archive: Archive, keys: Dataset, left: _Found) -> None:
        if self._stopping.is_set():
            raise PeerUnreachable("the node stops")
        retrieve = self._move if archive.pull is Pull.MOVE else self._get
        done = retrieve(archive, keys)
        left.retrieved += done.completed
        event(_log, "retrieved", peer=archive.name, level=logging.INFO,
              series=str(keys.SeriesInstanceUID), objects=done.completed,
              failed=done.failed)  # fmt: skip
        self._stopping.wait(archive.pause_s)
        if done.failed:
            raise PeerUnreachable(
                f"{done.failed} objects did not arrive from {archive.name}",
                hint="for C-MOVE the peer must know our AE title, host and port, and may have to"
                " be a peer with `receive: true` here",
            )

    def _move(self, archive: Archive, keys: Dataset) -> Retrieved:
        """Let the archive send a series to us, and note whether it sent all of it.

        Its own association ends in order either way, so without the note a part of a series would
        count as whole.
        """
        series = str(keys.SeriesInstanceUID)
        peer = archive.peer.ae_title
        self._mark(PULL_BEGAN, kind="series", subject=series, peer=peer)
        failed = 1  # an answer that never comes tells of no success
        try:
            done = move(archive.peer, keys, self._title)
            failed = done.failed
        except (NotAccepted, PeerRefused):
            failed = 0  # it sent nothing at all
            raise
        finally:
            self._mark(PULL_ENDED, kind="series", subject=series, peer=peer, failed=failed)
        return done

    def _get(self, archive: Archive, keys: Dataset) -> Retrieved:
        source = Source(
            calling_ae_title=archive.peer.ae_title,
            called_ae_title=self._title,
            address=archive.peer.host,
            association_id=secrets.token_hex(4),
        )
        counts = {True: 0, False: 0}

        def receive(sop_class: Uid, sop_instance: Uid, syntax: Uid, data: bytes) -> int:
            if not _answers(keys, data, syntax):
                counts[False] += 1
                event(_log, "retrieved_refused", level=logging.WARNING, peer=archive.name,
                      assoc=source.association_id, sop=sop_instance,
                      reason="it is of another series than was asked for")  # fmt: skip
                return _NOT_AUTHORIZED
            try:
                arrival = self._door.receive(
                    transfer_syntax_uid=syntax,
                    sop_class_uid=sop_class,
                    sop_instance_uid=sop_instance,
                    source=source,
                )
                arrival.write(memoryview(data))
                arrival.accept()
            except NodeError as error:
                counts[False] += 1
                return 0xA700 if error.transient else 0xC000
            counts[True] += 1
            return 0x0000

        self._door.association_opened(source)
        end = "LOST"
        try:
            done = get(archive.peer, keys, RETRIEVED_CLASSES, receive, largest=self._largest)
            # an end in order would be evidence that the series is whole
            end = "ABORTED" if done.failed or counts[False] else "RELEASED"
        finally:
            self._door.association_ended(
                source.association_id, end=end, received=counts[True], refused=counts[False]
            )
        return done


def puller_of(config: Config, door: Door, note: Note, clock: Clock) -> Puller:
    """Return the puller that the configuration describes; without archives it finds nothing."""
    archives = [
        Archive(name=name, peer=peer, pull=entry.pull, pause_s=60.0 / entry.pull_per_minute)
        for name, entry in config.peers.items()
        if entry.pull is not Pull.NONE and (peer := peer_of(config, name)) is not None
    ]
    largest = config.receive.max_object_mb * 1024 * 1024
    title = AETitle(config.node.ae_titles[0])
    return Puller(archives, door, title, clock, largest=largest, note=note)


def _studies(peer: PeerAE, want: Want) -> list[Uid]:
    """Return the studies of the patient, the one of the trigger first."""
    patient, issuer = _identity(want.trigger)
    keys = Dataset()
    keys.QueryRetrieveLevel = "STUDY"
    keys.PatientID = patient
    keys.IssuerOfPatientID = ""
    keys.StudyInstanceUID = "" if patient else want.study_instance_uid
    found = []
    for answer in find(peer, keys, limit=_MOST_STUDIES):
        uid = Uid(str(answer.get("StudyInstanceUID", "")))
        theirs = str(answer.get("IssuerOfPatientID", "") or "").strip()
        same_issuer = not theirs or not issuer or theirs == issuer
        if not patient and uid != want.study_instance_uid:
            continue  # without an identifier only the study says whose it is
        if _is_uid(uid) and str(answer.get("PatientID", "")).strip() == patient and same_issuer:
            found.append(uid)
    return sorted(set(found), key=lambda uid: (uid != want.study_instance_uid, uid))


def _series_in(peer: PeerAE, study: Uid) -> list[Dataset]:
    """Return the series of a study: registrations and plans first, images last."""
    keys = Dataset()
    keys.QueryRetrieveLevel = "SERIES"
    keys.StudyInstanceUID = study
    keys.SeriesInstanceUID = ""
    keys.Modality = ""
    keys.FrameOfReferenceUID = ""
    answers = find(peer, keys, limit=_MOST_SERIES)
    ours = [
        a
        for a in answers
        if str(a.get("StudyInstanceUID", study)) == study
        and _is_uid(str(a.get("SeriesInstanceUID", "")))
    ]
    return sorted(ours, key=lambda a: str(a.get("Modality", "")) == "CT")


def _frame_of(peer: PeerAE, study: Uid, series: Dataset) -> str:
    """Return the frame of reference of an image series, asking one image where need be."""
    if series.get("FrameOfReferenceUID"):
        return str(series.FrameOfReferenceUID)
    keys = Dataset()
    keys.QueryRetrieveLevel = "IMAGE"
    keys.StudyInstanceUID = study
    keys.SeriesInstanceUID = series.SeriesInstanceUID
    keys.SOPInstanceUID = ""
    keys.FrameOfReferenceUID = ""
    answers = find(peer, keys, limit=1)
    return str(answers[0].get("FrameOfReferenceUID", "") or "") if answers else ""


def _is_uid(text: str) -> bool:
    """Tell whether a key names one thing: an empty or general one may stand for the archive."""
    return re.fullmatch(r"[0-9.]{1,64}", text) is not None


def _answers(keys: Dataset, data: bytes, transfer_syntax_uid: Uid) -> bool:
    """Tell whether an object is one of those that were asked for, by what it says itself."""
    try:
        header = parse_header(data, transfer_syntax_uid)
    except CannotUnderstand:
        return True  # the door keeps it in quarantine and says why
    named = keys.get("SOPInstanceUID") or [header.sop_instance_uid]
    return (
        header.study_instance_uid == keys.StudyInstanceUID
        and header.series_instance_uid == keys.SeriesInstanceUID
        and header.sop_instance_uid in ([named] if isinstance(named, str) else named)
    )


def _identity(path: Path) -> tuple[str, str]:
    """Return PatientID and its issuer as a stored object states them.

    Raises
    ------
    NotAccepted
        They cannot be searched for: wild cards would find other patients.
    """
    try:
        header = pydicom.dcmread(
            path,
            force=True,
            stop_before_pixels=True,
            specific_tags=["SpecificCharacterSet", "PatientID", "IssuerOfPatientID"],
        )
        patient = str(header.get("PatientID", "") or "").strip()
        issuer = str(header.get("IssuerOfPatientID", "") or "").strip()
    except Exception as error:
        raise NotAccepted("the stored object cannot be read", hint="run `rtnode check`") from error
    if any(c in patient for c in "*?\\") or not patient.isascii():
        raise NotAccepted(
            "the PatientID cannot be searched for exactly", hint="send what is missing to the node"
        )
    return patient, issuer
