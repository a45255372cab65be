"""Which ROIs a setting means: a name in any spelling, a glob pattern, or a regular expression."""

import fnmatch
import re
from typing import Final

from pipelines.dose_radiomics.rois import key

_REGEX: Final = re.compile(r"/(?P<body>.+)/i?")
_GLOB: Final = frozenset("*?[")


def matches(name: str, pattern: str) -> bool:
    """Return whether an ROI name or an expression fits `pattern`, whatever their case.

    ``/regex/`` is searched anywhere in the name; a pattern with ``*``, ``?`` or ``[`` is a glob
    over the whole name; anything else is the name itself or another spelling of it (TG-263:
    Lung_L, Lung-Left and LT LUNG are one).
    """
    if regex := _REGEX.fullmatch(pattern):
        return re.search(regex["body"], name, re.IGNORECASE) is not None
    if _GLOB & set(pattern):
        return fnmatch.fnmatchcase(name.casefold(), pattern.casefold())
    return name.casefold() == pattern.casefold() or (bool(key(name)) and key(name) == key(pattern))
