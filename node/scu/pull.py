"""Fetches what a pipeline lacks from the peers that may be asked for it, each thing once.

One thread, one retrieval at a time, with a pause between two: an archive serves clinicians first.
The search is by the identity in a stored object of the patient, an answer that names another one
is passed over, and only what was wanted by UID or frame of reference is retrieved. Objects come
in by the normal door: over an association that the peer opens (C-MOVE), over ours (C-GET), or as
the answer of a DICOMweb server (WADO-RS).
"""

import logging
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pydicom
from pydicom.dataset import Dataset
from typing_extensions import override

from node.config.model import Config, Pull
from node.domain import AETitle, Clock, Door, Uid
from node.errors import DeliveryError, NotAccepted, PeerUnreachable
from node.log import event
from node.rounds import Rounds
from node.routing.wants import Want
from node.scu.archives import Archive, Note, PeerArchive
from node.scu.destinations import peer_of
from node.scu.dicomweb import Server, WebClient
from node.scu.query import held_by
from node.scu.wado import WebArchive

_log = logging.getLogger(__name__)

_FIRST_S: Final = 10.0
_LONGEST_S: Final = 900.0
_MOST_ATTEMPTS: Final = 8
_HOPEFUL_ATTEMPTS: Final = 3
"""So many failures of a peer keep a job waiting that could run without what is wanted."""
_MOST_STUDIES: Final = 20
_MOST_SERIES: Final = 200
_POLL_S: Final = 30.0


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


class Puller(Rounds):
    """Looks for what is wanted, in its own thread.

    Parameters
    ----------
    archives : sequence of Archive
        Asked in this order.
    clock : Clock
    """

    def __init__(self, archives: Sequence[Archive], clock: Clock) -> None:
        super().__init__("pull", failure_pause_s=_FIRST_S)
        self.on_news: Callable[[], None] = lambda: None
        """Called when a search ended, so that decisions which wait for it are judged again."""
        self._archives = tuple(archives)
        self._clock = clock
        self._searches: dict[tuple[str, str], _Search] = {}
        self._lock = threading.Lock()

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
                    self.wake()
                search.want = want
                searches.append(search)
            return any(not s.over and s.attempt < _HOPEFUL_ATTEMPTS for s in searches)

    @override
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
            finally:
                archive.close()
        event(_log, "pulled", objects=left.retrieved, wanted=len(pieces),
              missing=len(left.instances) + len(left.series) + len(left.frames))  # fmt: skip
        return failed

    def _ask(self, archive: Archive, want: Want, left: _Found) -> None:
        for study in _studies(archive, want):
            for series in _series_in(archive, study):
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
            there = held_by(archive.find, study, uid, left.instances)
            if there:
                keys.QueryRetrieveLevel = "IMAGE"
                keys.SOPInstanceUID = sorted(there)
                self._retrieve(archive, keys, left)
                left.instances -= there
        elif modality == "REG" and left.registrations:
            self._retrieve(archive, keys, left)
        elif modality == "CT" and left.frames:
            frame = _frame_of(archive, study, series)
            if frame in left.frames:
                self._retrieve(archive, keys, left)
                left.frames.clear()  # one CT is enough; where two fit, a person decides

    def _retrieve(self, archive: Archive, keys: Dataset, left: _Found) -> None:
        if self._stopping.is_set():
            raise PeerUnreachable("the node stops")
        done = archive.retrieve(keys)
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


def puller_of(config: Config, door: Door, note: Note, clock: Clock) -> Puller:
    """Return the puller that the configuration describes; without archives it finds nothing.

    Raises
    ------
    ConfigError
        A file of a secret or certificate cannot be used.
    """
    largest = config.receive.max_object_mb * 1024 * 1024
    title = AETitle(config.node.ae_titles[0])
    archives: list[Archive] = [
        PeerArchive(
            name=name, peer=peer, pull=entry.pull, pause_s=60.0 / entry.pull_per_minute,
            door=door, title=title, largest=largest, note=note,
        )
        for name, entry in config.peers.items()
        if entry.pull is not Pull.NONE and (peer := peer_of(config, name)) is not None
    ]  # fmt: skip
    archives += [
        WebArchive(
            name=name, client=WebClient(Server.of(name, web)), pause_s=60.0 / web.pull_per_minute,
            door=door, title=title, largest=largest,
        )
        for name, web in config.dicomweb.items()
        if web.pull
    ]  # fmt: skip
    return Puller(archives, clock)


def _studies(archive: Archive, want: Want) -> list[Uid]:
    """Return the studies of the patient, the one of the trigger first."""
    patient, issuer = _identity(want.trigger)
    keys = Dataset()
    keys.QueryRetrieveLevel = "STUDY"
    keys.PatientID = patient
    keys.IssuerOfPatientID = ""
    keys.StudyInstanceUID = "" if patient else want.study_instance_uid
    found = []
    for answer in archive.find(keys, limit=_MOST_STUDIES):
        uid = Uid(str(answer.get("StudyInstanceUID", "")))
        theirs = str(answer.get("IssuerOfPatientID", "") or "").strip()
        same_issuer = not theirs or not issuer or theirs == issuer
        if not patient and uid != want.study_instance_uid:
            continue  # without an identifier only the study says whose it is
        if _is_uid(uid) and str(answer.get("PatientID", "")).strip() == patient and same_issuer:
            found.append(uid)
    return sorted(set(found), key=lambda uid: (uid != want.study_instance_uid, uid))


def _series_in(archive: Archive, study: Uid) -> list[Dataset]:
    """Return the series of a study: registrations and plans first, images last."""
    keys = Dataset()
    keys.QueryRetrieveLevel = "SERIES"
    keys.StudyInstanceUID = study
    keys.SeriesInstanceUID = ""
    keys.Modality = ""
    keys.FrameOfReferenceUID = ""
    answers = archive.find(keys, limit=_MOST_SERIES)
    ours = [
        a
        for a in answers
        if str(a.get("StudyInstanceUID", study)) == study
        and _is_uid(str(a.get("SeriesInstanceUID", "")))
    ]
    return sorted(ours, key=lambda a: str(a.get("Modality", "")) == "CT")


def _frame_of(archive: Archive, study: Uid, series: Dataset) -> str:
    """Return the frame of reference of an image series, asking one image where need be."""
    if series.get("FrameOfReferenceUID"):
        return str(series.FrameOfReferenceUID)
    keys = Dataset()
    keys.QueryRetrieveLevel = "IMAGE"
    keys.StudyInstanceUID = study
    keys.SeriesInstanceUID = series.SeriesInstanceUID
    keys.SOPInstanceUID = ""
    keys.FrameOfReferenceUID = ""
    answers = archive.find(keys, limit=1)
    return str(answers[0].get("FrameOfReferenceUID", "") or "") if answers else ""


def _is_uid(text: str) -> bool:
    """Tell whether a key names one thing: an empty or general one may stand for the archive."""
    return re.fullmatch(r"[0-9.]{1,64}", text) is not None


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
