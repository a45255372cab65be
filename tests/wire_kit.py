"""A requestor on a raw socket that says exactly what a test wants, PDU by PDU."""

import socket
import struct
from collections.abc import Sequence
from typing import Self

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
VERIFICATION = "1.2.840.10008.1.1"

Proposal = tuple[int, str, Sequence[str]]
"""Context id, abstract syntax, transfer syntaxes."""
STORAGE_AND_ECHO: Sequence[Proposal] = ((1, CT, [EXPLICIT]), (3, VERIFICATION, [EXPLICIT]))


def us(value: int) -> bytes:
    return struct.pack("<H", value)


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBL", kind, 0, len(body)) + body


def item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body


def associate_request(
    proposals: Sequence[Proposal] = STORAGE_AND_ECHO,
    *,
    called: str = "RTNODE",
    calling: str = "TESTER",
    maximum: int = 16384,
    version: int = 1,
    application: str = "1.2.840.10008.3.1.1.1",
    more: bytes = b"",
) -> bytes:
    """Return an A-ASSOCIATE-RQ; `more` are further items of user information."""
    body = struct.pack(">HH", version, 0)
    body += called.encode().ljust(16) + calling.encode().ljust(16) + bytes(32)
    body += item(0x10, application.encode())
    for number, abstract, transfers in proposals:
        syntaxes = b"".join(item(0x40, syntax.encode()) for syntax in transfers)
        body += item(0x20, bytes([number, 0, 0, 0]) + item(0x30, abstract.encode()) + syntaxes)
    body += item(0x50, item(0x51, struct.pack(">L", maximum)) + item(0x52, b"1.2.3") + more)
    return pdu(1, body)


def command(elements: dict[int, bytes]) -> bytes:
    return b"".join(struct.pack("<HHL", 0, n, len(v)) + v for n, v in sorted(elements.items()))


def uid(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def c_store(instance: str = "2.25.7", message: int = 1, sop_class: str = CT) -> bytes:
    """Return the command set of a C-STORE request."""
    return command(
        {
            0x0002: uid(sop_class), 0x0100: us(1), 0x0110: us(message), 0x0700: us(0),
            0x0800: us(1), 0x1000: uid(instance),
        }
    )  # fmt: skip


def c_echo(message: int = 1) -> bytes:
    return command(
        {0x0002: uid(VERIFICATION), 0x0100: us(0x30), 0x0110: us(message), 0x0800: us(0x0101)}
    )


def pdv(control: int, fragment: bytes, context: int = 1) -> bytes:
    """Return a presentation data value; control 1: command, 2: last."""
    return struct.pack(">LBB", len(fragment) + 2, context, control) + fragment


def p_data(*values: bytes) -> bytes:
    return pdu(4, b"".join(values))


RELEASE = pdu(5, bytes(4))
ABORT = pdu(7, bytes(4))


class RawPeer:
    """A TCP connection to a receiver; a context manager."""

    def __init__(self, port: int, *, timeout: float = 10.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    @classmethod
    def associated(cls, port: int, **request: object) -> "RawPeer":
        """Connect and associate."""
        peer = cls(port)
        peer.send(associate_request(**request))
        assert peer.read()[0] == 2
        return peer

    def send(self, *pdus: bytes) -> None:
        self.socket.sendall(b"".join(pdus))

    def read(self) -> tuple[int, bytes]:
        """Return type and body of the next PDU; type 0 when the connection was closed."""
        head = self._exactly(6)
        if len(head) < 6:
            return 0, b""
        kind, length = struct.unpack(">BxL", head)
        return kind, self._exactly(length)

    def answer(self) -> dict[int, bytes]:
        """Return the elements of the next response."""
        kind, body = self.read()
        assert kind == 4, f"PDU {kind} instead of a response"
        (length,) = struct.unpack_from(">L", body)
        data, at, elements = body[6 : 4 + length], 0, {}
        while at < len(data):
            _, number, size = struct.unpack_from("<HHL", data, at)
            elements[number] = data[at + 8 : at + 8 + size]
            at += 8 + size
        return elements

    def status(self) -> int:
        """Return the status of the next response."""
        return int.from_bytes(self.answer()[0x0900], "little")

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                got = self.socket.recv(count - len(data))
            except ConnectionError:
                break
            if not got:
                break
            data += got
        return data
