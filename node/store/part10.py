"""DICOM files (PS3.10): splitting them into meta information and data set, and writing ours.

The node keeps a data set exactly as received, behind a preamble and file meta information of its
own. **Content identity** is the SHA-256 of the transfer syntax UID and the data set bytes, not of
the file: another calling AE or a newer library writes another header around the same content.
The meta information is read by hand: it is always Explicit VR Little Endian (PS3.10 7.1), and a
wrong group length, which real files have, must not move the start of the data set.
"""

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from node.errors import CannotUnderstand
from node.store.receipt import CREATOR_UID, Receipt, read_receipt

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes in memory; a data set is never copied to be stored."""

IMPLEMENTATION_CLASS_UID: Final = "2.25.155651908446300351331346615927534854495"
"""The same as in the objects that the pipelines write."""
IMPLEMENTATION_VERSION_NAME: Final = "RTNODE"

IMPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"

_TRANSFER_SYNTAX_UID: Final = 0x0010
_CREATOR_UID: Final = 0x0100
_PRIVATE_INFORMATION: Final = 0x0102
"""Elements of group 0002 (PS3.10 table 7.1-1)."""
_READ: Final = frozenset((_TRANSFER_SYNTAX_UID, _CREATOR_UID, _PRIVATE_INFORMATION))

_LONG_VRS: Final = frozenset((b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UN", b"UC", b"UR",
                              b"UT", b"SV", b"UV"))  # fmt: skip
"""Value representations whose length takes 32 bits (PS3.5 7.1.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A data set as bytes in its transfer syntax."""

    transfer_syntax_uid: str
    data: Buffer

    def sha256(self) -> str:
        """Return the content identity."""
        digest = hashlib.sha256(self.transfer_syntax_uid.encode("ascii", "replace"))
        digest.update(self.data)
        return digest.hexdigest()


def prefix(
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    receipt: bytes = b"",
) -> bytes:
    """Return preamble, ``DICM`` and file meta information for a data set.

    Parameters
    ----------
    sop_class_uid, sop_instance_uid, transfer_syntax_uid : str
    receipt : bytes
        Of the arrival (`node.store.receipt`), for a file that was received.
    """
    elements = [
        _element(0x0001, b"OB", b"\x00\x01"),
        _element(0x0002, b"UI", _uid(sop_class_uid)),
        _element(0x0003, b"UI", _uid(sop_instance_uid)),
        _element(_TRANSFER_SYNTAX_UID, b"UI", _uid(transfer_syntax_uid)),
        _element(0x0012, b"UI", _uid(IMPLEMENTATION_CLASS_UID)),
        _element(0x0013, b"SH", _text(IMPLEMENTATION_VERSION_NAME)),
    ]
    if receipt:
        elements += [
            _element(_CREATOR_UID, b"UI", _uid(CREATOR_UID)),
            _element(_PRIVATE_INFORMATION, b"OB", receipt),
        ]
    group = b"".join(elements)
    length = _element(0x0000, b"UL", struct.pack("<L", len(group)))
    return bytes(128) + b"DICM" + length + group


def split(data: Buffer) -> Encoded:
    """Split a DICOM file, with or without preamble or meta information, into its data set.

    Raises
    ------
    CannotUnderstand
        If this is no DICOM file.
    """
    view = memoryview(data)
    elements, position = _read_meta(view)
    transfer_syntax_uid = _text_of(elements, _TRANSFER_SYNTAX_UID)
    body = view[position:]
    if not transfer_syntax_uid:
        transfer_syntax_uid = _guess(body)
    return Encoded(transfer_syntax_uid=transfer_syntax_uid, data=body)


def received(head: Buffer) -> tuple[Receipt, str, int] | None:
    """Return what a file that was received says of itself.

    Parameters
    ----------
    head : bytes-like
        Beginning of the file, with all of its meta information.

    Returns
    -------
    (receipt, transfer syntax UID, position of the data set) or None
        None for a file without a whole receipt.
    """
    try:
        elements, position = _read_meta(memoryview(head))
    except CannotUnderstand:
        return None
    if _text_of(elements, _CREATOR_UID) != CREATOR_UID:
        return None
    receipt = read_receipt(elements.get(_PRIVATE_INFORMATION, b""))
    return (
        None if receipt is None else (receipt, _text_of(elements, _TRANSFER_SYNTAX_UID), position)
    )


def sha256_of_file(path: Path) -> str:
    """Return the content identity of a DICOM file.

    Raises
    ------
    CannotUnderstand
        It is no DICOM file.
    OSError
        It cannot be read.
    """
    return split(path.read_bytes()).sha256()


def _read_meta(view: memoryview) -> tuple[dict[int, bytes], int]:
    """Return what we read of group 0002, by element, and the position behind the group."""
    position = 132 if bytes(view[128:132]) == b"DICM" else 0
    elements: dict[int, bytes] = {}
    while position + 8 <= len(view):
        group, element, vr, length = struct.unpack_from("<HH2sH", view, position)
        if group != 2:  # noqa: PLR2004 - the file meta information group
            break
        position += 8
        if vr in _LONG_VRS:
            if position + 4 > len(view):
                raise CannotUnderstand("the file ends inside its meta information")
            (length,) = struct.unpack_from("<L", view, position)
            position += 4
        if position + length > len(view):
            raise CannotUnderstand("the file ends inside its meta information")
        if element in _READ:
            elements[element] = bytes(view[position : position + length])
        position += length
    return elements, position


def _text_of(elements: Mapping[int, bytes], number: int) -> str:
    return elements.get(number, b"").rstrip(b"\0 ").decode("ascii", "replace")


def _guess(body: memoryview) -> str:
    """Return the little endian syntax that the first element of a bare data set shows.

    Only the groups that a data set may begin with are believed: any file could be handed to us.
    """
    if len(body) < 8:  # noqa: PLR2004 - tag, VR and length
        raise CannotUnderstand("not a DICOM file: too short")
    group, element, vr = struct.unpack_from("<HH2s", body)
    if (group, element) not in ((0x0008, e) for e in range(0x0070)):
        raise CannotUnderstand("not a DICOM file: no preamble and no data set at its start")
    explicit = vr.isalpha() and vr.isupper()
    return EXPLICIT_VR_LITTLE_ENDIAN if explicit else IMPLICIT_VR_LITTLE_ENDIAN


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    if vr in _LONG_VRS:
        return struct.pack("<HH2sHL", 2, number, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", 2, number, vr, len(value)) + value


def _uid(uid: str) -> bytes:
    raw = uid.encode("ascii", "replace")
    return raw + b"\0" * (len(raw) % 2)


def _text(text: str) -> bytes:
    raw = text.encode("ascii", "replace")
    return raw + b" " * (len(raw) % 2)
