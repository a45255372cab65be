"""Deflated data sets are inflated by the piece, within limits, to the byte."""

import io
import random
import tracemalloc
import zlib

import pytest

from node.errors import CannotUnderstand
from node.store import deflate, header
from node.store.deflate import Inflated, most_of
from node.store.header import parse_header, parse_stream
from node.store.part10 import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN as DEFLATED
from tests.store_kit import ct, encode, structure_set


def packed(plain: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(plain) + packer.flush()


def inflated(data: bytes) -> Inflated:
    return Inflated(io.BytesIO(data), len(data))


def noise(size: int) -> bytes:
    return random.Random(7).randbytes(size)


def test_it_reads_as_a_file_does_forward_and_a_little_back():
    plain = noise(100_000) + bytes(900_000) + noise(100_000)
    stream, whole = inflated(packed(plain)), io.BytesIO(plain)
    chance = random.Random(1)
    for _ in range(300):
        step = chance.choice((0, 3, 8, 700, 30_000, -8, -12, -2000))
        at = max(0, whole.tell() + step)
        assert stream.seek(at) == whole.seek(at)
        count = chance.choice((0, 1, 4, 8, 600, 9000))
        assert stream.read(count) == whole.read(count)
        assert stream.tell() == whole.tell()
    assert stream.seek(-5, io.SEEK_CUR) == whole.seek(-5, io.SEEK_CUR)
    assert stream.end() == len(plain)


def test_beyond_the_end_there_is_nothing_as_in_a_file():
    stream = inflated(packed(b"abc"))

    assert stream.read(10) == b"abc"
    assert stream.seek(5000) == 5000
    assert stream.read(8) == b""
    assert stream.end() == 3


def test_going_back_far_is_refused_and_the_end_cannot_be_asked_for():
    stream = inflated(packed(bytes(4 << 20)))
    stream.seek(3 << 20)
    stream.read(10)
    stream.seek(0)

    with pytest.raises(CannotUnderstand, match="in one pass"):
        stream.read(1)
    with pytest.raises(io.UnsupportedOperation):
        stream.seek(0, io.SEEK_END)


@pytest.mark.parametrize("cut", [1, 2, 100])
def test_a_stream_that_ends_early_is_told(cut):
    data = packed(noise(10_000))

    with pytest.raises(CannotUnderstand, match="ends early"):
        inflated(data[:-cut]).end()


def test_bytes_that_are_no_deflate_stream_are_told():
    with pytest.raises(CannotUnderstand, match="damaged"):
        inflated(b"\xff" * 100).end()


def test_a_byte_of_padding_after_the_stream_is_fine():
    """PS3.5 A.5: a stream of odd length is padded with a zero."""
    assert inflated(packed(b"abc") + b"\0").end() == 3


@pytest.mark.parametrize(
    ("size", "most"),
    [
        (0, 64 << 20),
        (300 << 10, 64 << 20),
        (1 << 20, 200 << 20),
        (4 << 20, 512 << 20),
        (1 << 30, 512 << 20),
    ],
)
def test_how_far_a_data_set_may_grow(size, most):
    assert most_of(size) == most


def bomb_behind(head: bytes) -> bytes:
    """Return 250 MB of zeros behind the beginning of a data set, a thousand times smaller."""
    return packed(head + bytes(250 << 20))


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (encode(ct()), "grows beyond 64 MiB"),
        (encode(ct())[:-44], "more than 1000 elements"),
        (encode(structure_set([])) + b"\x06\x30\x39\x00SQ\0\0\0\0\x80\x0f", "longer than 32 MiB"),
        (encode(ct())[:-44] + b"\x06\x30\x39\x00SQ\0\0" + b"\xff" * 4
         + b"\xfe\xff\x00\xe0" + b"\xff" * 4, "too many pieces"),
    ],
    ids=["behind the pixels", "as elements", "as one element", "as elements of an item"],
)  # fmt: skip
def test_a_bomb_is_stopped_at_its_limit_without_taking_memory(head, why, monkeypatch):
    monkeypatch.setattr(deflate, "READS", 5_000)  # the whole million takes two seconds
    monkeypatch.setattr(header, "_ELEMENTS", 1_000)
    bomb = bomb_behind(head)
    assert len(bomb) < 1 << 20
    tracemalloc.start()

    with pytest.raises(CannotUnderstand, match=why):
        parse_header(bomb, DEFLATED)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


def test_what_a_reader_takes_out_is_limited_too(monkeypatch):
    monkeypatch.setattr(deflate, "HEADER", 1000)
    stream = inflated(packed(noise(5000)))
    stream.read(600)

    with pytest.raises(CannotUnderstand, match="header of the deflated data set"):
        stream.read(401)


@pytest.mark.parametrize("streamed", [False, True], ids=["in memory", "from a file"])
def test_header_references_and_length_are_those_of_the_plain_object(streamed):
    objects = [ct(), structure_set([f"1.2.3.{n}" for n in range(4000)])]
    for ds in objects:
        plain = encode(ds)
        data = packed(plain)
        if streamed:
            found = parse_stream(io.BytesIO(data), len(data), DEFLATED)
        else:
            found = parse_header(data, DEFLATED)
        wanted = parse_header(plain, "1.2.840.10008.1.2.1")
        assert found.keywords == wanted.keywords
        assert found.references == wanted.references


def test_pixels_that_are_not_there_are_missed_behind_the_deflation_too():
    with pytest.raises(CannotUnderstand, match="ends 30 bytes early"):
        parse_header(packed(encode(ct())[:-30]), DEFLATED)
