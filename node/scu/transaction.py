"""The data sets of the Storage Commitment Push Model: what is asked, and what is reported.

Action information names a transaction and instances; event information names the transaction, the
instances that are held, and those that are not with the reason (PS3.4 J.3). Both are small, so
pydicom encodes and decodes them; what a peer sends is read tag by tag and anything odd is refused.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pydicom
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from node.domain import Uid
from node.errors import CannotUnderstand
from node.store.commitments import InstanceName
from node.store.part10 import IMPLICIT_VR_LITTLE_ENDIAN

PUSH_MODEL: Final = Uid("1.2.840.10008.1.20.1")
"""Storage Commitment Push Model SOP Class."""
WELL_KNOWN_INSTANCE: Final = Uid("1.2.840.10008.1.20.1.1")
"""Its one SOP instance."""
REQUEST_COMMITMENT: Final = 1
"""Action Type ID (PS3.4 J.3.2)."""
ALL_HELD: Final = 1
SOME_FAILED: Final = 2
"""Event Type ID (PS3.4 J.3.3)."""

_MOST: Final = 20_000
"""Instances of one transaction; more than any study."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What an N-ACTION asks."""

    transaction_uid: Uid
    named: tuple[InstanceName, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an N-EVENT-REPORT tells."""

    transaction_uid: Uid
    held: tuple[Uid, ...]
    failed: Mapping[Uid, int]
    """SOP Instance UID -> Failure Reason."""


def encode_question(
    transaction_uid: Uid, named: Iterable[InstanceName], transfer_syntax_uid: Uid
) -> bytes:
    """Return the data set of an N-ACTION."""
    ds = Dataset()
    ds.TransactionUID = transaction_uid
    ds.ReferencedSOPSequence = [_item(name) for name in named]
    return _encoded(ds, transfer_syntax_uid)


def encode_report(
    transaction_uid: Uid,
    held: Sequence[InstanceName],
    failed: Sequence[tuple[InstanceName, int]],
    transfer_syntax_uid: Uid,
) -> bytes:
    """Return the data set of an N-EVENT-REPORT."""
    ds = Dataset()
    ds.TransactionUID = transaction_uid
    if held:
        ds.ReferencedSOPSequence = [_item(name) for name in held]
    if failed:
        ds.FailedSOPSequence = [_item(name) for name, _ in failed]
        for item, (_, reason) in zip(ds.FailedSOPSequence, failed, strict=True):
            item.FailureReason = reason
    return _encoded(ds, transfer_syntax_uid)


def read_question(data: bytes, transfer_syntax_uid: Uid) -> Question:
    """Decode the data set of an N-ACTION.

    Raises
    ------
    CannotUnderstand
        If it names no transaction or no instance, or too many, or cannot be read.
    """
    try:
        ds = _decoded(data, transfer_syntax_uid)
        named = tuple(
            dict.fromkeys(
                InstanceName(
                    sop_class_uid=_uid(item.ReferencedSOPClassUID),
                    sop_instance_uid=_uid(item.ReferencedSOPInstanceUID),
                )
                for item in ds.ReferencedSOPSequence
            )
        )
        question = Question(transaction_uid=_uid(ds.TransactionUID), named=named)
    except CannotUnderstand:
        raise
    except Exception as error:
        raise CannotUnderstand("a commitment request that cannot be read") from error
    names = {name.sop_instance_uid for name in named}
    if not 0 < len(named) <= _MOST or len(names) != len(named):
        raise CannotUnderstand(f"a commitment request for {len(named)} instances")
    return question


def read_report(data: bytes, transfer_syntax_uid: Uid) -> Report:
    """Decode the data set of an N-EVENT-REPORT.

    Raises
    ------
    CannotUnderstand
        If it names no transaction, or cannot be read.
    """
    try:
        ds = _decoded(data, transfer_syntax_uid)
        return Report(
            transaction_uid=_uid(ds.TransactionUID),
            held=tuple(
                _uid(item.ReferencedSOPInstanceUID)
                for item in ds.get("ReferencedSOPSequence") or ()
            ),
            failed={
                _uid(item.ReferencedSOPInstanceUID): int(item.FailureReason)
                for item in ds.get("FailedSOPSequence") or ()
            },
        )
    except CannotUnderstand:
        raise
    except Exception as error:
        raise CannotUnderstand("a commitment report that cannot be read") from error


def _item(name: InstanceName) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = name.sop_class_uid
    item.ReferencedSOPInstanceUID = name.sop_instance_uid
    return item


def _encoded(ds: Dataset, transfer_syntax_uid: Uid) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian = True
    buffer.is_implicit_VR = transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
    write_dataset(buffer, ds)
    return bytes(buffer.getvalue())


def _decoded(data: bytes, transfer_syntax_uid: Uid) -> Dataset:
    return pydicom.filereader.read_dataset(
        DicomBytesIO(data),
        is_implicit_VR=transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN,
        is_little_endian=True,
    )


def _uid(value: object) -> Uid:
    text = str(value or "")
    if not text or len(text) > 64 or not set(text) <= set("0123456789."):  # noqa: PLR2004 - PS3.5 9.1
        raise CannotUnderstand("a commitment message with a UID that is none")
    return Uid(text)
