"""A DICOM audit message and its XML (PS3.15 A.5.1): what happened, who, where, to whose data.

Patient and study identifiers belong into an audit trail, so nothing here may reach the technical
log. Text that XML cannot hold (control characters of a peer's AE title) is left out.
"""

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final
from xml.etree import ElementTree as ET

_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 does not know (production 2)."""
_IP_ADDRESS: Final = "2"
"""Network Access Point Type Code."""
_APPLICATION_SERVER: Final = "4"
"""Audit Source Type Code (A.5.1.2.1)."""


class Action(StrEnum):
    """Event Action Code."""

    CREATE = "C"
    READ = "R"
    UPDATE = "U"
    DELETE = "D"
    EXECUTE = "E"


class Outcome(StrEnum):
    """Event Outcome Indicator."""

    SUCCESS = "0"
    MINOR_FAILURE = "4"
    SERIOUS_FAILURE = "8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A coded value; DCM unless it says otherwise."""

    value: str
    meaning: str
    scheme: str = "DCM"


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """Somebody or something that took part."""

    user_id: str
    requestor: bool = False
    role: Code | None = None
    media: Code | None = None
    """For what is no network: the kind of media."""
    alternative: str = ""
    """For a process: its AE titles, ``AETITLES=RTNODE`` (A.5.2.2)."""
    address: str = ""
    """IP address; empty where none is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """What it was about: a patient, a study, an alert."""

    id: str
    id_type: Code
    kind: str
    """Participant Object Type Code: 1 a person, 2 a system object."""
    role: str
    """Participant Object Type Code Role."""
    sop_classes: Mapping[str, int] = field(default_factory=dict)
    """SOP Class UID -> number of instances."""
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One audit message."""

    event: Code
    action: Action
    at: datetime
    """Aware."""
    participants: tuple[Participant, ...]
    types: tuple[Code, ...] = ()
    outcome: Outcome = Outcome.SUCCESS
    words: str = ""
    """Event Outcome Description."""
    entities: tuple[Entity, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSource:
    """Who reports."""

    id: str
    site: str = ""


def to_xml(message: Message, source: AuditSource) -> str:
    """Return the message as XML, in the order of the schema."""
    root = ET.Element("AuditMessage")
    identification = ET.SubElement(
        root,
        "EventIdentification",
        EventActionCode=message.action.value,
        EventDateTime=message.at.astimezone(UTC).isoformat(timespec="milliseconds"),
        EventOutcomeIndicator=message.outcome.value,
    )
    _coded(identification, "EventID", message.event)
    for code in message.types:
        _coded(identification, "EventTypeCode", code)
    if message.words:
        ET.SubElement(identification, "EventOutcomeDescription").text = _clean(message.words)
    for participant in message.participants:
        _participant(root, participant)
    reporter = ET.SubElement(root, "AuditSourceIdentification", AuditSourceID=_clean(source.id))
    if source.site:
        reporter.set("AuditEnterpriseSiteID", _clean(source.site))
    ET.SubElement(reporter, "AuditSourceTypeCode", {"csd-code": _APPLICATION_SERVER})
    for entity in message.entities:
        _entity(root, entity)
    return ET.tostring(root, encoding="unicode", short_empty_elements=True)


def _coded(parent: ET.Element, name: str, code: Code) -> None:
    ET.SubElement(
        parent,
        name,
        {"csd-code": code.value, "codeSystemName": code.scheme, "originalText": code.meaning},
    )


def _participant(root: ET.Element, participant: Participant) -> None:
    element = ET.SubElement(
        root,
        "ActiveParticipant",
        UserID=_clean(participant.user_id),
        UserIsRequestor="true" if participant.requestor else "false",
    )
    if participant.alternative:
        element.set("AlternativeUserID", _clean(participant.alternative))
    if participant.address:
        element.set("NetworkAccessPointID", _clean(participant.address))
        element.set("NetworkAccessPointTypeCode", _IP_ADDRESS)
    if participant.role is not None:
        _coded(element, "RoleIDCode", participant.role)
    if participant.media is not None:
        _coded(ET.SubElement(element, "MediaIdentifier"), "MediaType", participant.media)


def _entity(root: ET.Element, entity: Entity) -> None:
    element = ET.SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=_clean(entity.id),
        ParticipantObjectTypeCode=entity.kind,
        ParticipantObjectTypeCodeRole=entity.role,
    )
    _coded(element, "ParticipantObjectIDTypeCode", entity.id_type)
    # The schema demands a name or a query; we send no names: the identifier says who it is.
    ET.SubElement(element, "ParticipantObjectName").text = ""
    for kind, value in entity.details.items():
        encoded = b64encode(_clean(value).encode()).decode()
        ET.SubElement(element, "ParticipantObjectDetail", type=kind, value=encoded)
    if entity.sop_classes:
        description = ET.SubElement(element, "ParticipantObjectDescription")
        for uid, count in sorted(entity.sop_classes.items()):
            ET.SubElement(description, "SOPClass", UID=_clean(uid), NumberOfInstances=str(count))


def _clean(text: str) -> str:
    return _NOT_XML.sub("", text)
