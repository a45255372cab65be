"""Recognize the breathing phases of a 4DCT among the CT series of a study.

A phase is a CT series that says at which part of the breathing cycle it was taken: by the attribute
for it (Nominal Percentage of Respiratory Phase), else by words of its description, which is where
scanners of all makers put it: ``0.0%``, ``T=50%``, ``Resp 30 %``, ``CT_70``, ``Gated, 20.0%``.
A projection over all phases (MIP) is none; an average over them is told apart.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset

from pipelines.api import InputRejected
from pipelines.dicom.read import read_header, text, tolerant

LEAST_PHASES: Final = 3
"""Fewer series with a percentage are no 4DCT: inhale and exhale scans are often labeled so."""
RESPIRATORY_PHASE: Final = (0x0020, 0x9245)
"""Nominal Percentage of Respiratory Phase [%]."""
KEYWORDS: Final = ("SeriesDescription", "ImageComments")
_PERCENT: Final = re.compile(
    r"(?<![\d.])(\d{1,2}(?:\.\d+)?|100(?:\.0+)?)\s*%"  # 50%, 50.0 %
    r"|\b(?:CT|T|PHASE|PH|RESP|GATED?)[\s_=:,-]*(\d{1,2})\b(?!\.\d|\s*mm)",
    re.IGNORECASE,
)
_AVERAGE: Final = re.compile(
    r"\b(?:AVE?|AVG|AVERAGE|MEAN|AIP)\b|AVERAGE|4D[\s_-]?AVG", re.IGNORECASE
)
_PROJECTION: Final = re.compile(r"\bM(?:IN)?IP\b|PROJECTION", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One series of a 4DCT."""

    series_instance_uid: str
    percent: float | None
    """Of the breathing cycle; None: the average over all phases."""
    paths: tuple[Path, ...]

    @property
    def name(self) -> str:
        """Return what it is called: ``50`` or ``average``."""
        return "average" if self.percent is None else f"{self.percent:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FourD:
    """A 4DCT: its phases in the order of the cycle, and the average where there is one."""

    phases: tuple[Phase, ...]
    average: Phase | None


def percent_of(header: Dataset) -> float | None:
    """Return at which percentage of the breathing cycle an image was taken; None: not stated."""
    told = header.get(RESPIRATORY_PHASE)
    if told is not None and told.value not in (None, ""):
        return float(told.value) % 100
    words = " ".join(text(header, keyword) for keyword in KEYWORDS)
    found = None if _PROJECTION.search(words) else _PERCENT.search(words)
    return None if found is None else float(found[1] or found[2]) % 100


def is_average(header: Dataset) -> bool:
    """Return whether an image says that it is an average over phases."""
    words = " ".join(text(header, keyword) for keyword in KEYWORDS)
    kinds = {str(value).upper() for value in header.get("ImageType") or []}
    return bool(_AVERAGE.search(words) or {"AVERAGE", "AVG", "MEAN"} & kinds)


def find_phases(paths: Sequence[Path]) -> FourD:
    """Return the 4DCT among files; what is no CT image is passed over.

    Raises
    ------
    InputRejected
        Where there are fewer than three phases, two of one percentage, or they are of several
        studies or frames of reference.
    """
    first: dict[str, Dataset] = {}
    files: dict[str, list[Path]] = {}
    for path in paths:
        try:
            with tolerant():
                header = read_header(path)
        except InputRejected:
            continue
        if text(header, "Modality") == "CT":
            uid = text(header, "SeriesInstanceUID")
            first.setdefault(uid, header)
            files.setdefault(uid, []).append(path)
    found: list[Phase] = []
    averages: list[Phase] = []
    for uid, header in first.items():
        percent = percent_of(header)
        if percent is None and not is_average(header):
            continue
        phase = Phase(series_instance_uid=uid, percent=percent, paths=tuple(files[uid]))
        (averages if percent is None else found).append(phase)
    _check([first[p.series_instance_uid] for p in (*found, *averages)], found, averages)
    return FourD(
        phases=tuple(sorted(found, key=lambda p: p.percent or 0.0)),
        average=averages[0] if averages else None,
    )


def _check(headers: Sequence[Dataset], found: Sequence[Phase], averages: Sequence[Phase]) -> None:
    if len(found) < LEAST_PHASES:
        raise InputRejected(
            f"{len(found)} CT series state a breathing phase; a 4DCT has at least {LEAST_PHASES}",
            hint="phases are read from Nominal Percentage of Respiratory Phase or from the "
            "description, such as 'Resp 50%'",
        )
    if len({p.percent for p in found}) < len(found) or len(averages) > 1:
        raise InputRejected("two series state the same phase: give the files of one 4DCT only")
    for keyword, words in (("FrameOfReferenceUID", "frames of reference"),
                           ("StudyInstanceUID", "studies")):  # fmt: skip
        count = len({text(header, keyword) for header in headers})
        if count > 1:
            raise InputRejected(f"the phases belong to {count} {words}; one is needed")
