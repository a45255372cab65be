"""A receipt is whole or none, and as long before the bytes came as after."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from node.store.part10 import EXPLICIT_VR_LITTLE_ENDIAN, prefix, received
from node.store.receipt import Receipt, read_receipt, receipt_size
from tests.store_kit import CT, source

RECEIPT = Receipt(
    source=replace(source(), address="2001:db8::1", calling_ae_title="CT \u3042"),
    received_at=datetime(2026, 11, 20, 12, 30, 1, 250, tzinfo=UTC),
    sha256="ab" * 32,
    size=527_812,
)


def head(receipt: bytes) -> bytes:
    return prefix(
        sop_class_uid=CT,
        sop_instance_uid="1.2.3",
        transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
        receipt=receipt,
    )


def test_a_receipt_comes_back_from_the_beginning_of_its_file():
    data = head(RECEIPT.encode())

    assert received(data + b"data set") == (RECEIPT, EXPLICIT_VR_LITTLE_ENDIAN, len(data))


def test_every_one_of_a_source_takes_the_same_place():
    assert receipt_size(RECEIPT.source) == len(RECEIPT.encode())
    assert receipt_size(RECEIPT.source) == len(replace(RECEIPT, size=2**60).encode())
    assert len(head(RECEIPT.encode())) % 2 == 0


@pytest.mark.parametrize("data", [b"", bytes(4096), head(b""), head(bytes(300)), b"\x02\0" * 99])
def test_a_file_without_one_says_nothing(data):
    assert received(data) is None


def test_each_damaged_byte_makes_it_none():
    raw = RECEIPT.encode()
    for place in range(len(raw)):
        broken = bytearray(raw)
        broken[place] ^= 1
        assert read_receipt(bytes(broken)) is None


def test_one_that_was_cut_off_is_none():
    data = head(RECEIPT.encode())

    assert all(received(data[:size]) is None for size in range(0, len(data), 7))
