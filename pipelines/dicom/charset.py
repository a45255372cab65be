"""Unicode where a text needs it: names of ROIs may be in another script than the patient's.

Derived objects keep the character set of their source, so that the patient's name keeps its
bytes. A text that this character set cannot hold moves the whole object to ISO_IR 192 (UTF-8,
PS3.3 C.12.1.1.2); the patient's name is then decoded and written anew, the same characters.
"""

import warnings
from collections.abc import Iterable, Sequence
from typing import Final

from pydicom.charset import convert_encodings, decode_bytes, encode_string
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

UNICODE: Final = "ISO_IR 192"


_DELIMITERS: Final = {0x0D, 0x0A, 0x09, 0x0C}
"""Bytes that end the reach of an escape sequence in a text (PS3.5 6.1.2.5.3)."""


def representable(text: str, terms: Sequence[str]) -> bool:
    """Return whether a text survives being written in the character sets `terms`.

    The library replaces by ``?`` what it cannot write, and it cannot write all that it can read:
    Latin letters beside katakana under ISO_IR 13, for one.
    """
    encodings = convert_encodings(list(terms))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the answer is the comparison
        try:
            again = decode_bytes(encode_string(text, encodings), encodings, _DELIMITERS)
        except (UnicodeError, LookupError):
            return False
    return bool(again == text)


def hold(target: Dataset, texts: Iterable[str]) -> None:
    """State a character set in `target` that holds `texts`, unless ASCII suffices.

    Parameters
    ----------
    target
        Has its identity from `header.copy_identity`, whose texts are decoded but for the names;
        nothing but ASCII was added since.
    texts
        What is to be written besides.
    """
    if all(text.isascii() for text in texts):
        return
    for element in [e for e in target if e.VR == "PN"]:
        target[element.tag] = DataElement(element.tag, "PN", str(element.value))
    target.SpecificCharacterSet = UNICODE
