"""Unicode where a text needs it: names of ROIs may be in another script than the patient's.

Derived objects keep the character set of their source, so that the patient's name keeps its
bytes. A text that this character set cannot hold moves the whole object to ISO_IR 192 (UTF-8,
PS3.3 C.12.1.1.2); the patient's name is then decoded and written anew, the same characters.
"""

from collections.abc import Iterable
from typing import Final

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

UNICODE: Final = "ISO_IR 192"


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
