"""For tests of the audit trail: the schema of PS3.15 A.5.1.1 as code, and a TLS syslog server."""

import re
import socket
import ssl
import threading
from base64 import b64decode
from collections.abc import Mapping
from datetime import datetime
from typing import Self
from xml.etree import ElementTree as ET

from node.tls import Credentials

CODED = {"csd-code", "codeSystemName", "originalText"}
ELEMENTS: Mapping[str, tuple[set[str], set[str], str]] = {
    "AuditMessage": (
        set(), set(),
        "EventIdentification ActiveParticipant+ AuditSourceIdentification"
        " ParticipantObjectIdentification*",
    ),
    "EventIdentification": (
        {"EventDateTime", "EventOutcomeIndicator"}, {"EventActionCode"},
        "EventID EventTypeCode* EventOutcomeDescription?",
    ),
    "ActiveParticipant": (
        {"UserID", "UserIsRequestor"},
        {"AlternativeUserID", "UserName", "NetworkAccessPointID", "NetworkAccessPointTypeCode"},
        "RoleIDCode* MediaIdentifier?",
    ),
    "MediaIdentifier": (set(), set(), "MediaType"),
    "AuditSourceIdentification": (
        {"AuditSourceID"}, {"AuditEnterpriseSiteID"}, "AuditSourceTypeCode*",
    ),
    "ParticipantObjectIdentification": (
        {"ParticipantObjectID"},
        {"ParticipantObjectTypeCode", "ParticipantObjectTypeCodeRole",
         "ParticipantObjectDataLifeCycle", "ParticipantObjectSensitivity"},
        "ParticipantObjectIDTypeCode (ParticipantObjectName |ParticipantObjectQuery )"
        "ParticipantObjectDetail* ParticipantObjectDescription*",
    ),
    "ParticipantObjectDescription": (
        set(), set(),
        "MPPS* Accession* SOPClass* ParticipantObjectContainsStudy? Encrypted? Anonymized?",
    ),
    "SOPClass": ({"NumberOfInstances"}, {"UID"}, "Instance*"),
    "ParticipantObjectDetail": ({"type", "value"}, set(), ""),
    "AuditSourceTypeCode": ({"csd-code"}, {"codeSystemName", "displayName", "originalText"}, ""),
    **{
        name: (CODED, {"displayName"}, "")
        for name in ("EventID", "EventTypeCode", "RoleIDCode", "MediaType",
                     "ParticipantObjectIDTypeCode")
    },
    **{name: (set(), set(), "") for name in ("EventOutcomeDescription", "ParticipantObjectName")},
}  # fmt: skip
"""Element -> (attributes it must have, attributes it may have, its children in order)."""
VALUES = {
    "EventActionCode": "[CRUDE]",
    "EventOutcomeIndicator": "0|4|8|12",
    "UserIsRequestor": "true|false",
    "NetworkAccessPointTypeCode": "[1-5]",
    "ParticipantObjectTypeCode": "[1-4]",
    "ParticipantObjectTypeCodeRole": "[1-9]|1[0-9]|2[0-6]",
    "NumberOfInstances": r"\d+",
    "UID": r"[0-9.]+",
}


def violations(element: ET.Element) -> list[str]:
    """Return what in an audit message is against the schema."""
    if element.tag not in ELEMENTS:
        return [f"no element {element.tag}"]
    needed, allowed, children = ELEMENTS[element.tag]
    found = [f"{element.tag} without {name}" for name in needed - set(element.attrib)]
    found += [f"{element.tag} with {name}" for name in set(element.attrib) - needed - allowed]
    found += [
        f"{name}={value}"
        for name, value in element.attrib.items()
        if name in VALUES and not re.fullmatch(VALUES[name], value)
    ]
    order = "".join(f"{child.tag} " for child in element)
    pattern = re.sub(r"([A-Za-z]+)( ?)([*+?]?) ?", lambda m: f"(?:{m[1]} ){m[3]}", children)
    if not re.fullmatch(pattern, order):
        found.append(f"{element.tag} holds {order or 'nothing'}")
    if "EventDateTime" in element.attrib:
        datetime.fromisoformat(element.attrib["EventDateTime"])
    if element.tag == "ParticipantObjectDetail":
        b64decode(element.attrib["value"], validate=True)
    return found + [problem for child in element for problem in violations(child)]


class SyslogServer:
    """Receives syslog over mutual TLS (RFC 5425); what it read is in `messages`."""

    def __init__(self, credentials: Credentials, *, die_after: int | None = None) -> None:
        self.messages: list[bytes] = []
        self.connections = 0
        self.die_after = die_after
        """Read so many messages of a connection, then reset it."""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.load_cert_chain(credentials.certificate, credentials.key)
        self._context.load_verify_locations(credentials.authorities)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(timeout=10)
        self._listener.close()

    def documents(self) -> list[ET.Element]:
        """Return the audit messages, without what they came more than once."""
        return [ET.fromstring(text) for text in dict.fromkeys(map(body, self.messages))]

    def _serve(self) -> None:
        while not self._stopping.is_set():
            try:
                plain, _ = self._listener.accept()
            except TimeoutError:
                continue
            plain.settimeout(5)
            self.connections += 1
            try:
                with self._context.wrap_socket(plain, server_side=True) as secure:
                    self._read(secure)
            except OSError:
                continue

    def _read(self, secure: ssl.SSLSocket) -> None:
        received, taken = bytearray(), 0
        while part := secure.recv(65536):
            received += part
            while (framed := re.match(rb"(\d+) ", received)) is not None:
                end = framed.end() + int(framed[1])
                if len(received) < end:
                    break
                if self.die_after is not None and taken >= self.die_after:
                    secure.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    return
                self.messages.append(bytes(received[framed.end() : end]))
                taken += 1
                del received[:end]
        secure.unwrap()


def body(message: bytes) -> str:
    """Return the XML of a syslog message, after its header and byte order mark."""
    header, bom, xml = message.partition(b"\xef\xbb\xbf")
    assert bom
    assert re.fullmatch(
        rb"<8[45]>1 \d{4}-\d\d-\d\dT[\d:.]+Z [!-~]{1,255} rtnode \d+ DICOM\+RFC3881 - ", header
    ), header
    return xml.decode()
