"""Damaged and hostile bytes at every parser of ours: B8, B11.

The table of parsers is `tests/fuzz/targets.py`, which coverage-guided hunts use too (`make fuzz`).
Here the corpus is replayed and sound inputs are damaged by a generator with a fixed seed, so a run
repeats exactly; the message of a failure names target and execution.
``RTNODE_FUZZ_EXECUTIONS=1000000`` makes a night of it.
"""

import os
import random
import time

import pytest

from node.errors import CannotUnderstand
from node.store.header import parse_header
from node.store.part10 import EXPLICIT_VR_LITTLE_ENDIAN
from tests.fuzz.mutate import mutate
from tests.fuzz.targets import CORPUS, TARGETS
from tests.store_kit import ct, encode

EXECUTIONS = int(os.environ.get("RTNODE_FUZZ_EXECUTIONS", "600"))
SEED = int(os.environ.get("RTNODE_FUZZ_SEED", "20261120"))
LONGEST_S = 5.0


@pytest.mark.filterwarnings("ignore")  # pydicom's remarks about what is damaged
@pytest.mark.parametrize("name", TARGETS)
def test_b11_damaged_bytes_meet_only_the_mapped_errors(name, tmp_path):
    target = TARGETS[name]
    sound = target.sound(tmp_path)
    target.run(sound, tmp_path)
    known = target.corpus(name)
    chance = random.Random(f"{SEED} {name}")
    seeds = [sound, *(path.read_bytes() for path in known)]
    for number in range(-len(known), EXECUTIONS // target.cost):
        if number < 0:
            told, data = known[number].name, seeds[number]
        else:
            told, data = f"execution {number}", mutate(chance.choice(seeds), chance)
        began = time.monotonic()
        try:
            target.run(data, tmp_path)
        except target.errors:
            pass
        except Exception as error:
            raise AssertionError(f"{name}, {told}: {data[:400]!r}") from error
        assert time.monotonic() - began < LONGEST_S, f"{name}, {told} hangs"


def test_the_corpus_is_small_and_belongs_to_targets():
    known = {name.replace(" ", "-") for name in TARGETS}

    assert {folder.name for folder in CORPUS.iterdir()} <= known
    sizes = [path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()]
    assert max(sizes) <= 8192
    assert sum(sizes) < 400_000


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
