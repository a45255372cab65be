"""The elements before the pixels, read by hand where that is safe.

Nearly every object that arrives is an image in a little endian syntax whose pixels begin within
its first pages. Its elements are a row of tags, lengths and values, and pydicom's reader costs ten
times what walking along that row does, for each slice of each scan. So this walks, and gives up
at anything that is not plain: what it gives up, pydicom reads. Where it answers, its answer is
pydicom's (`tests/unit/node/store/test_beginning.py` holds them together).
"""

import struct
from collections.abc import Collection
from functools import cache
from typing import Final, NamedTuple

from pydicom.datadict import dictionary_VR

from node.store.part10 import Buffer

LONGEST: Final = 16384
"""Bytes of the longest value that is read for routing; a longer one counts as empty."""

_SHORT: Final = struct.Struct("<HH2sH")
_IMPLICIT: Final = struct.Struct("<HHL")
_LENGTH: Final = struct.Struct("<L")
"""Heads of elements (PS3.5 7.1.2, 7.1.3)."""
_LONG_VRS: Final = frozenset(
    b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()  # whose length takes 32 bits
)
_SHORT_VRS: Final = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
)
_FIRST_LETTER, _LAST_LETTER = 0x41, 0x5A
_UNDEFINED: Final = 0xFFFFFFFF
_PIXEL_GROUP: Final = 0x7FE0
_FIRST_PIXELS: Final = 0x7FE00008
"""Float Pixel Data, the first of the pixel elements."""
_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD
_DEEPEST: Final = 16
"""Sequences and items of undefined length within each other; real objects have a few."""


class Beginning(NamedTuple):
    """What stands before the pixels."""

    values: dict[int, bytes]
    """Tag -> raw value, of the wanted ones; empty where it is longer than `LONGEST`."""
    position: int
    """Bytes before the pixel element."""
    pixels: tuple[str | None, int]
    """VR (None where it is implicit) and length of the pixel element."""


class _NotPlain(Exception):
    """Somebody who knows more has to read this."""


def read_beginning(
    head: Buffer, *, implicit: bool, wanted: Collection[int], most: int
) -> Beginning | None:
    """Return the elements before the pixels; None where they are not plain.

    Parameters
    ----------
    head : bytes-like
        The data set from its first byte on, little endian.
    implicit : bool
        Whether its VRs are left out.
    wanted : collection of int
        Tags whose values are returned.
    most : int
        Elements that are looked at.
    """
    if implicit and all(_FIRST_LETTER <= letter <= _LAST_LETTER for letter in head[4:6]):
        return None  # says implicit and looks explicit
    values: dict[int, bytes] = {}
    at = 0
    try:
        for _ in range(most):
            tag, vr, length, start = _element(head, at, implicit)
            if tag >= _FIRST_PIXELS:
                if tag >> 16 != _PIXEL_GROUP or vr in _SHORT_VRS:
                    return None
                return Beginning(values, at, (vr.decode() or None, length))
            if length == _UNDEFINED:
                if tag in wanted or not _is_sequence(tag, vr):
                    return None
                at = _behind_sequence(head, start, implicit)
                continue
            at = start + length
            if tag in wanted:
                values[tag] = bytes(head[start:at]) if length <= LONGEST else b""
    except (struct.error, _NotPlain):  # it is cut off, or odd
        pass
    return None


def _element(head: Buffer, at: int, implicit: bool) -> tuple[int, bytes, int, int]:  # noqa: FBT001 - for each element
    """Return tag, VR (empty where it is implicit), length and begin of the value of an element."""
    if implicit:
        group, number, length = _IMPLICIT.unpack_from(head, at)
        return group << 16 | number, b"", length, at + 8
    group, number, vr, length = _SHORT.unpack_from(head, at)
    if vr in _SHORT_VRS:
        return group << 16 | number, vr, length, at + 8
    if vr not in _LONG_VRS:
        raise _NotPlain
    (length,) = _LENGTH.unpack_from(head, at + 8)
    return group << 16 | number, vr, length, at + 12


def _behind_sequence(head: Buffer, at: int, implicit: bool) -> int:  # noqa: FBT001 - as above
    """Return the position behind a sequence of undefined length whose items begin `at`."""
    in_item = [False]  # of each thing of undefined length that is open: item, or sequence
    while in_item:
        group, number, length = _IMPLICIT.unpack_from(head, at)
        tag = group << 16 | number
        if in_item[-1] and tag != _ITEM_END:
            tag, vr, length, at = _element(head, at, implicit)
            if length != _UNDEFINED:
                at += length
            elif _is_sequence(tag, vr) and len(in_item) < _DEEPEST:
                in_item.append(False)
            else:
                raise _NotPlain
            continue
        at += 8
        if tag == (_ITEM_END if in_item[-1] else _SEQUENCE_END):
            in_item.pop()
        elif tag != _ITEM:
            raise _NotPlain
        elif length == _UNDEFINED:
            in_item.append(True)
        else:
            at += length
    return at


@cache
def _is_sequence(tag: int, vr: bytes) -> bool:
    """Whether what has no length is surely a sequence."""
    if vr:
        return vr == b"SQ"
    try:
        return str(dictionary_VR(tag)) == "SQ"
    except KeyError:
        return False
