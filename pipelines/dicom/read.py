"""Reading DICOM files for a pipeline: what cannot be read is refused in one plain sentence.

Standard or not, a file that pydicom can open is taken: preamble missing, odd private elements,
values against their VR. Nothing here iterates a whole data set, because private elements with a
wrong VR raise only then. Messages hold no path: in a user's folder it may hold a name.
"""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from pipelines.api import InputRejected

_DAMAGE: Final = (NotImplementedError, struct.error, OSError, EOFError, OverflowError,
                  RecursionError, BytesLengthException)  # fmt: skip
"""What pydicom raises on first access to an element whose bytes cannot be converted, or to a
sequence that holds no items or items without end."""
_ODD: Final = (ValueError, TypeError, LookupError, AttributeError)
"""And while it reads, on values against their VR."""


@contextmanager
def tolerant() -> Iterator[None]:
    """Silence pydicom's remarks about values that it converts on first access."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a reader tolerates is no finding of ours
        yield


@contextmanager
def refusing_damage() -> Iterator[None]:
    """Refuse an object whose elements cannot be converted: pydicom does that on first access.

    Raises
    ------
    InputRejected
        An element has no known value representation, its bytes do not fit it, a sequence holds
        no items, or items without end.
    """
    try:
        yield
    except _DAMAGE as error:
        raise InputRejected(f"an input file is damaged ({type(error).__name__})") from error


def text(ds: Dataset, keyword: str) -> str:
    """Return the value of `keyword` as text; odd bytes and wrong VRs give an empty one."""
    with tolerant():
        try:
            value = ds.get(keyword)
        except (*_DAMAGE, *_ODD):
            return ""
    return "" if value is None else str(value)


def read_dataset(path: Path, *, pixels: bool = True) -> Dataset:
    """Return the data set in `path`, complete, or without pixel data.

    Raises
    ------
    InputRejected
        When the bytes are no DICOM data set, or the SOP Class or Instance UID is missing.
    """
    with tolerant():
        try:
            ds = pydicom.dcmread(path, stop_before_pixels=not pixels, force=True)
            named = ds.get("SOPClassUID") and ds.get("SOPInstanceUID")
        except (InvalidDicomError, *_DAMAGE, *_ODD) as error:
            reason = type(error).__name__
            raise InputRejected(f"an input file cannot be read as DICOM ({reason})") from error
    if not named:
        raise InputRejected("an input file is no DICOM object: it has no SOP Class or Instance UID")
    return ds


def read_header(path: Path) -> Dataset:
    """Return the data set in `path` without pixel data; see `read_dataset`."""
    return read_dataset(path, pixels=False)
