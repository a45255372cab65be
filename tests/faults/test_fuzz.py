"""Damaged and hostile bytes at every parser of ours: B7, B8, B11.

Seeds are mutated by a generator with a fixed seed, so a run repeats exactly; the message of a
failure names target and execution, and ``tests/faults/corpus`` keeps what ever was a finding.
``RTNODE_FUZZ_EXECUTIONS=1000000`` makes a night of it.
"""

import os
import random
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from node.config.load import load
from node.errors import CannotUnderstand, ConfigError
from node.scp.commands import read_command as read_request_command
from node.scp.errors import ProtocolError
from node.scp.negotiation import read_request
from node.scu import dimse
from node.store.header import parse_header
from node.store.part10 import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    split,
)
from pipelines.api import PipelineError
from pipelines.dicom.rtdose import read_dose
from pipelines.dicom.rtstruct import read_structure_set
from tests.factories import rtdose, rtstruct
from tests.node_kit import ROOT
from tests.store_kit import CT, ct, encode, part10, structure_set
from tests.wire_kit import associate_request

EXECUTIONS = int(os.environ.get("RTNODE_FUZZ_EXECUTIONS", "300"))
SEED = int(os.environ.get("RTNODE_FUZZ_SEED", "20261120"))
CORPUS = Path(__file__).parent / "corpus"
INTERESTING = (
    b"\0", b"\xff\xff\xff\xff", b"\xff\xff", b"\x7f", b"SQ\0\0\xff\xff\xff\xff", b"UN\0\0",
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\xfe\xff\x0d\xe0\0\0\0\0", b"\x1b$B", b"\\" * 9, b"NaN ",
)  # fmt: skip
"""Lengths, delimiters, escapes and texts that parsers trip over."""


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Return `data` with one to four wounds: flipped, cut, repeated, overwritten, inserted."""
    body = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(body) + 1)
        kind = chance.randrange(5)
        if kind == 0 and at < len(body):
            body[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del body[at : at + chance.randint(1, 40)]
        elif kind == 2:
            body[at:at] = body[at : at + chance.randint(1, 40)]
        elif kind == 3:
            word = chance.choice(INTERESTING)
            body[at : at + len(word)] = word
        else:
            body[at:at] = chance.choice(INTERESTING)
    return bytes(body)


def response() -> bytes:
    """Return the command set of an honest answer to a C-STORE."""
    return b"".join(
        struct.pack("<HHL", 0, element, len(value)) + value
        for element, value in (
            (0x0100, struct.pack("<H", 0x8001)),
            (0x0120, struct.pack("<H", 1)),
            (0x0800, struct.pack("<H", 0x0101)),
            (0x0900, struct.pack("<H", 0)),
        )
    )


def deflated() -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(encode(ct())) + packer.flush()


def saved(build: Callable[[], object]) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        path = folder / "seed.dcm"
        build().save_as(path, enforce_file_format=True)
        return path.read_bytes()

    return make


def reading(read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    def run(data: bytes, folder: Path) -> object:
        path = folder / "fuzzed"
        path.write_bytes(data)
        return read(path)

    return run


def header(syntax: str) -> Callable[[bytes, Path], object]:
    return lambda data, _: parse_header(data, syntax)


TARGETS = {
    "header explicit": (lambda _: encode(ct()), header(EXPLICIT_VR_LITTLE_ENDIAN)),
    "header implicit": (lambda _: encode(ct(), implicit=True), header(IMPLICIT_VR_LITTLE_ENDIAN)),
    "header big": (lambda _: encode(ct(), little=False), header(EXPLICIT_VR_BIG_ENDIAN)),
    "header deflated": (lambda _: deflated(), header(DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)),
    "references": (
        lambda _: encode(structure_set(["1.2.3", "1.2.4"])), header(EXPLICIT_VR_LITTLE_ENDIAN),
    ),
    "part 10": (lambda _: part10(ct()), lambda data, _: split(data)),
    "command of a peer": (
        lambda _: dimse.c_store_rq(message_id=1, sop_class_uid=CT, sop_instance_uid="1.2.3"),
        lambda data, _: read_request_command(data),
    ),
    "response of a peer": (
        lambda _: response(),
        lambda data, _: dimse.read_response(
            dimse.read_command(data), request=dimse.C_STORE_RQ, message_id=1
        ),
    ),
    "association request": (
        lambda _: associate_request()[6:],
        lambda data, _: read_request(data),
    ),
    "fragments": (
        lambda _: b"\0\0\0\x06\x01\x03abcd" * 4, lambda data, _: dimse.fragments(data),
    ),
    "configuration": (lambda _: (ROOT / "config.yaml").read_bytes(), reading(load)),
    "structure set": (
        saved(rtstruct), reading(read_structure_set),
    ),
    "dose": (saved(rtdose), reading(read_dose)),
}  # fmt: skip
"""Target -> (a sound input, the parser)."""
SLOW = {"configuration": 10, "structure set": 6, "dose": 6, "association request": 2}
"""Target -> how many times fewer executions: they take milliseconds each."""
MAPPED = (CannotUnderstand, ProtocolError, dimse.MalformedMessage, ConfigError, PipelineError)
LONGEST_S = 5.0


@pytest.mark.parametrize("target", TARGETS)
def test_b11_damaged_bytes_meet_only_the_mapped_errors(target, tmp_path):
    make, run = TARGETS[target]
    sound = make(tmp_path)
    run(sound, tmp_path)
    known = sorted((CORPUS / target.replace(" ", "-")).glob("*"))
    chance = random.Random(f"{SEED} {target}")
    for number in range(-len(known), EXECUTIONS // SLOW.get(target, 1)):
        data = known[number].read_bytes() if number < 0 else mutate(sound, chance)
        began = time.monotonic()
        try:
            run(data, tmp_path)
        except MAPPED:
            pass
        except Exception as error:
            raise AssertionError(f"{target}, execution {number}: {data[:400]!r}") from error
        assert time.monotonic() - began < LONGEST_S, f"{target}, execution {number} hangs"


def test_b7_a_deflated_bomb_is_refused_before_it_takes_memory():
    """A thousand to one: 300 kB that grow to 300 MB."""
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    bomb = packer.compress(encode(ct())) + packer.compress(bytes(300 << 20)) + packer.flush()
    assert len(bomb) < 1 << 20
    tracemalloc.start()

    with pytest.raises(CannotUnderstand, match="grows beyond"):
        parse_header(bomb, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150 << 20


@pytest.mark.parametrize("depth", [50, 5_000, 200_000])
def test_b8_nested_sequences_of_any_depth_are_refused_or_passed_over(depth):
    """The same chain as items of a sequence that the node reads."""
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    nested = b"\x06\x30\x10\x00SQ\0\0\xff\xff\xff\xff" + item
    data = encode(ct())[:-44] + nested * depth

    began = time.monotonic()
    with pytest.raises(CannotUnderstand):
        parse_header(data, EXPLICIT_VR_LITTLE_ENDIAN)
    assert time.monotonic() - began < LONGEST_S
