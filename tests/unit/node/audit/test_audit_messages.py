"""Audit messages: the structure of PS3.15 A.5.1.1, framing of RFC 5425, a farewell that proves."""

from datetime import datetime, timedelta, timezone
from xml.etree import ElementTree as ET

import pytest

from node.audit.message import (
    Action,
    AuditSource,
    Code,
    Entity,
    Message,
    Outcome,
    Participant,
    to_xml,
)
from node.audit.syslog import LARGEST, Receiver, frame
from node.tls import requestor_context
from tests.audit_kit import SyslogServer, body, violations
from tests.tls_kit import OPENSSL, authority

AT = datetime(2026, 11, 21, 3, 4, 5, 678_000, timezone(timedelta(hours=9)))
CODE = Code(value="110104", meaning="DICOM Instances Transferred")


def message(**changes) -> Message:
    given = {
        "event": CODE,
        "types": (Code(value="110120", meaning="Application Start"),),
        "action": Action.CREATE,
        "at": AT,
        "participants": (
            Participant(user_id="CT<1>", requestor=True, role=CODE, address="192.0.2.1"),
            Participant(user_id="file:///x", media=CODE, alternative="AETITLES=RTNODE"),
        ),
        "entities": (
            Entity(id="1.2.3", id_type=CODE, kind="2", role="3", sop_classes={"1.2.840": 3},
                   details={"Alert Description": "why & how"}),
            Entity(id="病院\x00\x1b7", id_type=CODE, kind="1", role="1"),
        ),
    }  # fmt: skip
    return Message(**(given | changes))


def xml(**changes) -> ET.Element:
    return ET.fromstring(to_xml(message(**changes), AuditSource(id="RTNODE", site="RT")))


def test_a_message_has_the_structure_of_the_schema() -> None:
    assert violations(xml()) == []
    assert violations(xml(outcome=Outcome.MINOR_FAILURE, words="why", types=())) == []
    assert violations(xml(entities=())) == []


def test_the_check_itself_finds_what_is_wrong() -> None:
    root = xml()
    root[0].set("EventActionCode", "X")
    del root[1].attrib["UserID"]
    root.append(root[0])

    assert sorted(violations(root))[:3] == [
        "ActiveParticipant without UserID",
        "AuditMessage holds EventIdentification ActiveParticipant ActiveParticipant "
        "AuditSourceIdentification ParticipantObjectIdentification "
        "ParticipantObjectIdentification EventIdentification ",
        "EventActionCode=X",
    ]


def test_times_are_utc_and_text_is_what_xml_can_hold() -> None:
    root = xml()

    assert root[0].get("EventDateTime") == "2026-11-20T18:04:05.678+00:00"
    assert root[1].get("UserID") == "CT<1>"
    assert root[-1].get("ParticipantObjectID") == "病院7"


def test_a_frame_is_its_length_and_a_syslog_message() -> None:
    framed = frame("<a>é</a>", at=AT, host="röntgen host", app="rtnode", outcome=Outcome.SUCCESS)
    length, _, rest = framed.partition(b" ")

    assert len(rest) == int(length)
    assert rest.startswith(b"<85>1 2026-11-20T18:04:05.678Z rntgenhost rtnode ")
    assert body(rest) == "<a>é</a>"
    failed = frame("<a/>", at=AT, host="h", app="rtnode", outcome=Outcome.SERIOUS_FAILURE)
    assert failed.partition(b" ")[2].startswith(b"<84>1 ")


def test_what_receivers_need_not_take_is_not_sent() -> None:
    with pytest.raises(ValueError, match="octets"):
        frame("x" * LARGEST, at=AT, host="h", app="rtnode", outcome=Outcome.SUCCESS)


@pytest.fixture(scope="module")
def parties(tmp_path_factory):
    """Return (credentials of the server, of the node) under one authority, and a stranger's."""
    if OPENSSL is None:
        pytest.skip("openssl is not installed")
    ours = authority(tmp_path_factory.mktemp("ca"))
    stranger = authority(tmp_path_factory.mktemp("other"))
    return ours.issue("server"), ours.issue("node"), stranger.issue("node")


def receiver(server: SyslogServer, credentials, name: str = "localhost") -> Receiver:
    return Receiver(
        host="127.0.0.1", port=server.port, name=name, context=requestor_context(credentials)
    )


FRAMES = [
    frame(f"<m n='{n}'/>", at=AT, host="h", app="rtnode", outcome=Outcome.SUCCESS)
    for n in range(50)
]


def test_what_was_delivered_was_read(parties) -> None:
    with SyslogServer(parties[0]) as server:
        receiver(server, parties[1]).deliver(FRAMES)

        assert [body(m) for m in server.messages] == [f"<m n='{n}'/>" for n in range(50)]


def test_a_server_that_dies_in_the_middle_has_not_taken_the_batch(parties) -> None:
    with SyslogServer(parties[0], die_after=3) as server:
        with pytest.raises(OSError, match=r".*"):
            receiver(server, parties[1]).deliver(FRAMES)
        server.die_after = None
        receiver(server, parties[1]).deliver(FRAMES)

        assert {body(m) for m in server.messages} == {f"<m n='{n}'/>" for n in range(50)}


def test_without_a_certificate_that_the_server_believes_nothing_is_delivered(parties) -> None:
    with SyslogServer(parties[0]) as server:
        with pytest.raises(OSError, match=r".*"):
            receiver(server, parties[2]).deliver(FRAMES)

        assert server.messages == []


def test_a_server_under_another_name_gets_nothing(parties) -> None:
    with SyslogServer(parties[0]) as server:
        with pytest.raises(OSError, match="certificate refused"):
            receiver(server, parties[1], name="audit.example.org").deliver(FRAMES)

        assert server.messages == []
