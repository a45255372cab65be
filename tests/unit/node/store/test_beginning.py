"""What is read by hand is what the library reads, or is left to it."""

import random
import struct
import warnings
from io import BytesIO

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from node.store import header
from node.store.beginning import LONGEST, read_beginning
from node.store.part10 import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from tests.store_kit import ct, encode

SYNTAXES = {False: EXPLICIT_VR_LITTLE_ENDIAN, True: IMPLICIT_VR_LITTLE_ENDIAN}
QUESTION = header._asked_for(())


def by_hand(data: bytes, *, implicit: bool):
    return read_beginning(data, implicit=implicit, wanted=QUESTION.tags, most=65_536)


def by_library(data: bytes, *, implicit: bool):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about hostile bytes
        read, position, pixels = header._elements(BytesIO(data), SYNTAXES[implicit], QUESTION)
    return read.values, position, pixels


def rich() -> Dataset:
    """Return a slice with what real ones have: sequences of both kinds, private and long values."""
    ds = ct(3)
    inner = Dataset()
    inner.ReferencedSOPInstanceUID = "1.2.3"
    outer = Dataset()
    outer.PurposeOfReferenceCodeSequence = Sequence([inner])
    ds.ReferencedImageSequence = Sequence([outer, Dataset()])
    ds["ReferencedImageSequence"].is_undefined_length = True
    outer["PurposeOfReferenceCodeSequence"].is_undefined_length = True
    outer.is_undefined_length_sequence_item = True
    ds.RequestAttributesSequence = Sequence([inner])
    ds.add_new(0x00091001, "UN", b"private\0")
    ds.StudyDescription = "x" * 64
    ds.ImageComments = "y" * 8_000
    return ds


@pytest.mark.parametrize("implicit", [False, True], ids=["explicit", "implicit"])
def test_a_slice_is_read_as_the_library_reads_it(implicit):
    for ds in (ct(1), rich()):
        data = encode(ds, implicit=implicit)
        found = by_hand(data, implicit=implicit)

        assert found is not None, "it is plain"
        assert (found.values, found.position, found.pixels) == by_library(data, implicit=implicit)


@pytest.mark.parametrize("implicit", [False, True], ids=["explicit", "implicit"])
def test_damaged_bytes_are_read_as_the_library_reads_them_or_left_to_it(implicit):
    """1,000 slices with a few bytes changed, removed or doubled before the pixels."""
    rng = random.Random(6)
    whole = encode(rich(), implicit=implicit)
    read = 0
    for _ in range(1000):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(2000)
            match rng.randrange(3):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    del data[at : at + rng.randint(1, 8)]
                case _:
                    data[at:at] = data[at : at + rng.randint(1, 8)]
        found = by_hand(bytes(data), implicit=implicit)
        if found is None:
            continue
        read += 1
        try:
            expected = by_library(bytes(data), implicit=implicit)
        except Exception:  # inside a sequence that nobody asked for
            continue
        assert (found.values, found.position, found.pixels) == expected
    assert read > 100


@pytest.mark.parametrize("end", [8, 100, 400])
def test_what_is_cut_off_before_its_pixels_is_left_to_the_library(end):
    assert by_hand(encode(ct())[:end], implicit=False) is None


def test_a_long_value_counts_as_empty():
    ds = ct()
    ds.add_new("StudyDescription", "UT", "x" * (LONGEST + 2))

    assert by_hand(encode(ds), implicit=False).values[0x00081030] == b""


def test_sequences_within_each_other_without_end_are_left_to_the_library():
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    sequence = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)

    assert by_hand((sequence + item) * 1000, implicit=False) is None
