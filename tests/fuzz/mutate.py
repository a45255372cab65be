"""Damage that repeats: what a plain generator with a seed does to sound bytes."""

import random
from typing import Final

INTERESTING: Final = (
    b"\0", b"\xff\xff\xff\xff", b"\xff\xff", b"\x7f", b"SQ\0\0\xff\xff\xff\xff", b"UN\0\0",
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\xfe\xff\x0d\xe0\0\0\0\0", b"\x1b$B", b"\\" * 9, b"NaN ",
    b"1e999 ", b"inf ", b"-1", b"((((", b"[[[[", b"\xed\xa0\x80",
)  # fmt: skip
"""Lengths, delimiters, escapes, brackets and numbers that parsers trip over."""


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
