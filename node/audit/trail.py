"""From events of the ledger to DICOM audit messages: one table of what becomes what.

Each row of `KINDS` names the events of one kind, how they are put together (a delivery of two
hundred slices is one message, not two hundred) and the message of PS3.15 A.5.3 that tells of them.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from node.audit.message import Action, Code, Entity, Message, Outcome, Participant
from node.config.model import Config
from node.log import event
from node.store import audit as trail
from node.store.acceptance import FINISHED
from node.store.audit import AuditEvent, AuditStudy
from node.store.ledger import Ledger
from node.store.records import EventLine

_log = logging.getLogger(__name__)

APPLICATION_ACTIVITY: Final = Code(value="110100", meaning="Application Activity")
BEGIN_TRANSFERRING: Final = Code(value="110102", meaning="Begin Transferring DICOM Instances")
INSTANCES_ACCESSED: Final = Code(value="110103", meaning="DICOM Instances Accessed")
INSTANCES_TRANSFERRED: Final = Code(value="110104", meaning="DICOM Instances Transferred")
DATA_EXPORT: Final = Code(value="110106", meaning="Export")
DATA_IMPORT: Final = Code(value="110107", meaning="Import")
SECURITY_ALERT: Final = Code(value="110113", meaning="Security Alert")
USER_AUTHENTICATION: Final = Code(value="110114", meaning="User Authentication")
_START: Final = Code(value="110120", meaning="Application Start")
_STOP: Final = Code(value="110121", meaning="Application Stop")
_LOGIN: Final = Code(value="110122", meaning="Login")
_LOGOUT: Final = Code(value="110123", meaning="Logout")
_RESTRICTED: Final = Code(value="110132", meaning="Use of Restricted Function")
_APPLICATION: Final = Code(value="110150", meaning="Application")
_DESTINATION: Final = Code(value="110152", meaning="Destination Role ID")
_SOURCE: Final = Code(value="110153", meaning="Source Role ID")
_DESTINATION_MEDIA: Final = Code(value="110154", meaning="Destination Media")
_SOURCE_MEDIA: Final = Code(value="110155", meaning="Source Media")
_STUDY_UID: Final = Code(value="110180", meaning="Study Instance UID")
_NODE_ID: Final = Code(value="110182", meaning="Node ID")
_PATIENT_NUMBER: Final = Code(value="2", meaning="Patient Number", scheme="RFC-3881")
_URI: Final = Code(value="110037", meaning="URI")
UNKNOWN_PATIENT: Final = "unknown"
"""Identifier of a patient whose files are gone, or never said it."""
_FOLDER: Final = "folder"
"""Address of what came from a watched folder."""
_LONGEST: Final = 1000
"""Characters of words from the ledger in one message."""

Group = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Events of one kind and what they become."""

    group: Callable[[EventLine], Group | None]
    """Events with one answer become one message; None: not of this kind."""
    tell: Callable[["Reporter", Sequence[EventLine]], Iterable[Message]]


class Reporter:
    """Turns events into messages.

    Parameters
    ----------
    ledger
        Knows whose data an event touched.
    config
        Knows names and addresses of destinations.
    """

    def __init__(self, ledger: Ledger, config: Config) -> None:
        self.ledger = ledger
        self.config = config
        titles = ",".join(config.node.ae_titles)
        self.us = Participant(
            user_id=f"rtnode@{config.node.ae_titles[0]}", alternative=f"AETITLES={titles}"
        )

    def messages(self, events: Iterable[AuditEvent]) -> list[Message]:
        """Return what is to be told of `events`, in their order."""
        groups: dict[tuple[int, Group], list[EventLine]] = {}
        for item in events:
            for number, kind in enumerate(KINDS):
                key = kind.group(item.line)
                if key is not None:
                    groups.setdefault((number, key), []).append(item.line)
        found: list[Message] = []
        for (number, _), lines in groups.items():
            try:
                told = [*KINDS[number].tell(self, lines)]
            except (LookupError, ValueError, TypeError) as error:
                # what cannot be told must not keep the rest of the trail back for ever
                event(_log, "audit_event_untold", level=logging.ERROR, error=error,
                      what=lines[0].action)  # fmt: skip
                continue
            found += [replace(message, words=message.words[:_LONGEST]) for message in told]
        return found

    def about(self, studies: Iterable[AuditStudy]) -> Iterator[tuple[Entity, ...]]:
        """Yield (study, patient) for each study: a message speaks of one patient alone."""
        for study in studies:
            yield (
                Entity(id=study.study_instance_uid, id_type=_STUDY_UID, kind="2", role="3",
                       sop_classes=study.sop_classes),
                Entity(id=patient_id(study.sample), id_type=_PATIENT_NUMBER, kind="1", role="1"),
            )  # fmt: skip

    def destination(self, name: str) -> tuple[Participant, bool]:
        """Return who receives under the name of a destination, and whether over the network."""
        peer, folder = self.config.peers.get(name), self.config.folders.get(name)
        if peer is not None:
            who = Participant(user_id=peer.ae_title, alternative=f"AETITLES={peer.ae_title}",
                              role=_DESTINATION, address=peer.host or "")  # fmt: skip
            return who, True
        server = self.config.dicomweb.get(name)
        if server is not None:
            return Participant(user_id=server.url, role=_DESTINATION), True
        place = folder.path.absolute().as_uri() if folder is not None else name
        return Participant(user_id=place, role=_DESTINATION_MEDIA, media=_URI), False


def patient_id(sample: Path | None) -> str:
    """Return Patient ID as a file of the study has it; `UNKNOWN_PATIENT` where there is none."""
    if sample is None:
        return UNKNOWN_PATIENT
    try:
        ds = dcmread(sample, specific_tags=["PatientID", "SpecificCharacterSet"],
                     stop_before_pixels=True)  # fmt: skip
        return str(ds.get("PatientID") or "").strip() or UNKNOWN_PATIENT
    except (OSError, InvalidDicomError, ValueError, LookupError) as error:
        event(_log, "audit_patient_unread", level=logging.WARNING, kind=type(error).__name__)
        return UNKNOWN_PATIENT


def _of(*actions: str) -> Callable[[EventLine], Group | None]:
    """Return a grouping in which each event of `actions` stands alone."""

    def group(line: EventLine) -> Group | None:
        return (line.action, line.subject, line.at.isoformat()) if line.action in actions else None

    return group


def _delivery(*actions: str, first_try: bool = False) -> Callable[[EventLine], Group | None]:
    """Return a grouping of deliveries by what happened, where to and for which association."""

    def group(line: EventLine) -> Group | None:
        if line.action not in actions or (first_try and line.detail.get("attempt") != 1):
            return None
        return line.action, str(line.detail.get("destination")), line.correlation

    return group


def _operator(line: EventLine) -> Group | None:
    if not line.action.startswith("operator_"):
        return None
    return line.action, line.subject, line.at.isoformat()


def _activity(reporter: Reporter, lines: Sequence[EventLine]) -> Iterator[Message]:
    begun = lines[0].action == trail.NODE_STARTED
    yield Message(
        event=APPLICATION_ACTIVITY,
        types=(_START if begun else _STOP,),
        action=Action.EXECUTE,
        at=lines[0].at,
        participants=(replace(reporter.us, role=_APPLICATION),),
    )


def _received(reporter: Reporter, lines: Sequence[EventLine]) -> Iterator[Message]:
    """Tell of instances that came: over the network, or out of a watched folder."""
    line = lines[0]
    caller = reporter.ledger.caller(line.subject)
    if caller is None:
        return
    imported = caller.address == _FOLDER
    broken = line.detail.get("end") not in {"RELEASED", None} or bool(line.detail.get("refused"))
    sender = Participant(
        user_id=caller.ae_title,
        requestor=True,
        alternative="" if imported else f"AETITLES={caller.ae_title}",
        role=_SOURCE_MEDIA if imported else _SOURCE,
        media=_URI if imported else None,
        address="" if imported else caller.address,
    )
    for entities in reporter.about(reporter.ledger.audit_of_association(line.subject)):
        yield Message(
            event=DATA_IMPORT if imported else INSTANCES_TRANSFERRED,
            action=Action.CREATE,
            at=line.at,
            outcome=Outcome.MINOR_FAILURE if broken else Outcome.SUCCESS,
            words=f"ended {line.detail.get('end')}, {line.detail.get('refused')} refused"
            if broken
            else "",
            participants=(sender, replace(reporter.us, role=_DESTINATION)),
            entities=entities,
        )


def _beginning(reporter: Reporter, lines: Sequence[EventLine]) -> Iterator[Message]:
    receiver, network = reporter.destination(str(lines[0].detail.get("destination")))
    if not network:
        return
    studies = reporter.ledger.audit_of_results({line.subject for line in lines})
    for entities in reporter.about(studies):
        yield Message(
            event=BEGIN_TRANSFERRING,
            action=Action.EXECUTE,
            at=lines[0].at,
            participants=(replace(reporter.us, role=_SOURCE, requestor=True), receiver),
            entities=entities,
        )


def _sent(reporter: Reporter, lines: Sequence[EventLine]) -> Iterator[Message]:
    receiver, network = reporter.destination(str(lines[0].detail.get("destination")))
    refused = lines[0].action == trail.REFUSED
    studies = reporter.ledger.audit_of_results({line.subject for line in lines})
    for entities in reporter.about(studies):
        yield Message(
            event=INSTANCES_TRANSFERRED if network else DATA_EXPORT,
            action=Action.READ,
            at=lines[-1].at,
            outcome=Outcome.SERIOUS_FAILURE if refused else Outcome.SUCCESS,
            words=str(lines[0].detail.get("reason") or "") if refused else "",
            participants=(replace(reporter.us, role=_SOURCE, requestor=True), receiver),
            entities=entities,
        )


def _made(reporter: Reporter, lines: Sequence[EventLine]) -> Iterator[Message]:
    for entities in reporter.about(reporter.ledger.audit_of_job(int(lines[0].subject))):
        yield Message(
            event=INSTANCES_ACCESSED,
            action=Action.CREATE,
            at=lines[0].at,
            participants=(replace(reporter.us, requestor=True),),
            entities=entities,
        )


def _purged(reporter: Reporter, lines: Sequence[EventLine]) -> Iterator[Message]:
    studies = reporter.ledger.audit_of_files({line.subject for line in lines})
    for entities in reporter.about(studies):
        yield Message(
            event=INSTANCES_ACCESSED,
            action=Action.DELETE,
            at=lines[-1].at,
            words=str(lines[0].detail.get("reason") or ""),
            participants=(replace(reporter.us, requestor=True),),
            entities=entities,
        )


def _viewed(reporter: Reporter, lines: Sequence[EventLine]) -> Iterator[Message]:
    line = lines[0]
    ask: Mapping[str, Callable[[str], list[AuditStudy]]] = {
        "job": lambda subject: reporter.ledger.audit_of_inputs(int(subject)),
        "series": reporter.ledger.audit_of_series,
        "study": reporter.ledger.audit_of_study,
    }
    for entities in reporter.about(ask[line.kind](line.subject)):
        yield Message(
            event=INSTANCES_ACCESSED,
            action=Action.READ,
            at=line.at,
            participants=(_person(line), reporter.us),
            entities=entities,
        )


def _authenticated(reporter: Reporter, lines: Sequence[EventLine]) -> Iterator[Message]:
    line = lines[0]
    refused = line.action == "web_login_refused"
    yield Message(
        event=USER_AUTHENTICATION,
        types=(_LOGOUT if line.action == "web_logout" else _LOGIN,),
        action=Action.EXECUTE,
        at=line.at,
        outcome=Outcome.MINOR_FAILURE if refused else Outcome.SUCCESS,
        words="wrong name or password" if refused else "",
        participants=(replace(_person(line), user_id=line.subject), reporter.us),
    )


def _acted(reporter: Reporter, lines: Sequence[EventLine]) -> Iterator[Message]:
    """Tell that a person changed what the node does: releases, cancels, sends once more."""
    line = lines[0]
    refused = line.action.endswith("_refused")
    yield Message(
        event=SECURITY_ALERT,
        types=(_RESTRICTED,),
        action=Action.EXECUTE,
        at=line.at,
        outcome=Outcome.MINOR_FAILURE if refused else Outcome.SUCCESS,
        words=f"{line.action} {line.kind} {line.subject}",
        participants=(_person(line), reporter.us),
        entities=(
            Entity(
                id=reporter.config.node.ae_titles[0], id_type=_NODE_ID, kind="2", role="13",
                details={"Alert Description": str(line.detail.get("reason") or "")[:_LONGEST]},
            ),
        ),
    )  # fmt: skip


def _person(line: EventLine) -> Participant:
    return Participant(
        user_id=str(line.detail.get("by") or ""),
        requestor=True,
        address=str(line.detail.get("address") or ""),
    )


KINDS: Final[tuple[Kind, ...]] = (
    Kind(group=_of(trail.NODE_STARTED, trail.NODE_STOPPED), tell=_activity),
    Kind(group=_of(trail.ASSOCIATION_ENDED), tell=_received),
    Kind(group=_of(FINISHED), tell=_made),
    Kind(group=_delivery(trail.DELIVERING, first_try=True), tell=_beginning),
    Kind(group=_delivery(trail.DELIVERED, trail.REFUSED), tell=_sent),
    Kind(group=lambda line: (line.action,) if line.action == trail.PURGED else None, tell=_purged),
    Kind(group=_of(trail.VIEWED), tell=_viewed),
    Kind(group=_of("web_login", "web_login_refused", "web_logout"), tell=_authenticated),
    Kind(group=_operator, tell=_acted),
)
"""What the trail tells; docs/security.md holds the same table in words."""
