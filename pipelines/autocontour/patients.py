"""Patients to train contouring on, from folders of CT and RT Structure Set.

A patient is brought to the network exactly as a case to be contoured is (`learned`): averaged to
work voxels, everything outside the body set to air, axes turned to head, back and left by the
DICOM orientation alone. Names of patients are never kept: a case is called by the hash of its
study.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from models.training.cases import Case
from pipelines.api import InputRejected
from pipelines.autocontour.body import find_body
from pipelines.autocontour.learned import turn_of
from pipelines.autocontour.names import Organ
from pipelines.autocontour.pairs import mask_of
from pipelines.dicom.read import read_header, text, tolerant
from pipelines.dicom.rtstruct import Roi, read_structure_set
from pipelines.dicom.volume import read_volume
from pipelines.imaging.grid import FLOOR_HU, WorkImage, work_image

WORK_MM: Final = 2.5
"""Voxels that training patients are kept at."""
SIDES: Final = (
    (re.compile(r"^left|(?<=[\s_-])(left|lt|l)$|^(lt|l)(?=[\s_-])|(?<=[a-z])left$"), "_l"),
    (re.compile(r"^right|(?<=[\s_-])(right|rt|r)$|^(rt|r)(?=[\s_-])|(?<=[a-z])right$"), "_r"),
)
"""How clinicians write a side, before or after the organ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patients:
    """What a folder holds."""

    cases: tuple[Case, ...]
    organs: tuple[str, ...]
    """TG-263 names of labels 1, 2, ... of the cases."""
    left_out: tuple[str, ...]
    """Why a series or structure set was not used, one sentence each."""


@dataclass(slots=True, kw_only=True)
class _Files:
    """Series and structure sets by what they refer to."""

    series: dict[str, list[Path]] = field(default_factory=dict)
    """CT Series Instance UID -> files."""
    study: dict[str, str] = field(default_factory=dict)
    """CT Series Instance UID -> what the patient is known by, hashed."""
    structures: list[Path] = field(default_factory=list)


def read_patients(folder: Path, aliases: Mapping[str, Sequence[str]]) -> Patients:
    """Read every CT of `folder`, at any depth, that has a structure set with a wanted organ.

    Parameters
    ----------
    folder : Path
    aliases : mapping
        TG-263 name -> other names that the structure sets use; empty: every structure of the
        node's own list, under names that differ from it in case, blanks and side words only.

    Raises
    ------
    InputRejected
        If a name is not one of the node's structures, or no patient is left.
    """
    wanted = _wanted(aliases)
    files = _find(folder)
    cases, left_out, drawn = [], [], set()
    for path in files.structures:
        structures = read_structure_set(path)
        series = next((s for s in structures.referenced_series_uids if s in files.series), None)
        if series is None:
            left_out.append("a structure set without its CT")
            continue
        rois = {wanted[key]: roi for roi in structures.rois if (key := _key(roi.name)) in wanted}
        rois = {organ: roi for organ, roi in rois.items() if roi.closed}
        if not rois:
            left_out.append("a structure set without a wanted structure")
            continue
        try:
            cases.append(_case(files.study[series], files.series[series], rois))
        except InputRejected as refusal:
            left_out.append(f"a CT that cannot be contoured: {refusal}")
            continue
        drawn |= set(rois)
    if not cases:
        raise InputRejected(
            "no CT with a wanted structure: "
            + ("; ".join(left_out) or "the folder has no RTSTRUCT"),
            hint="say how the clinic calls them: --organ 'Parotid_L=Glandula parotis li'",
        )
    organs = tuple(o.value for o in Organ if o.value in drawn)
    return Patients(
        cases=tuple(_numbered(case, organs) for case in cases),
        organs=organs,
        left_out=tuple(left_out),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """A patient whose structures still go by name."""

    name: str
    hu: NDArray[np.int16]
    masks: dict[str, NDArray[np.bool_]]
    spacing: tuple[float, float, float]


def _wanted(aliases: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return simplified name -> TG-263 name."""
    unknown = sorted(set(aliases) - {o.value for o in Organ})
    if unknown:
        raise InputRejected(
            f"{', '.join(unknown)}: not a structure of this node",
            hint="known are " + ", ".join(o.value for o in Organ),
        )
    names: Mapping[str, Sequence[str]] = aliases or {o.value: () for o in Organ}
    return {_key(word): name for name, words in names.items() for word in (name, *words)}


def _key(name: str) -> str:
    """Return a name without case, blanks and marks, its side in TG-263's form at the end."""
    word = name.casefold().replace("~", "").strip()
    for pattern, end in SIDES:
        organ, found = pattern.subn("", word, count=1)
        if found:
            return re.sub(r"[\W_]", "", organ) + end
    return re.sub(r"[\W_]", "", word)


def _find(folder: Path) -> _Files:
    found = _Files()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            with tolerant():
                header = read_header(path)
                modality, series = text(header, "Modality"), text(header, "SeriesInstanceUID")
        except InputRejected:
            continue  # no DICOM file
        if modality == "CT":
            found.series.setdefault(series, []).append(path)
            found.study.setdefault(series, _known_by(header))
        elif modality == "RTSTRUCT":
            found.structures.append(path)
    return found


def _known_by(header: Dataset) -> str:
    identity = text(header, "PatientID") or text(header, "StudyInstanceUID")
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _case(name: str, paths: Sequence[Path], rois: Mapping[str, Roi]) -> _Drawn:
    volume = read_volume(paths)
    image = work_image(volume.hu, volume.geometry, WORK_MM)
    turn = turn_of(image.directions)
    hu = np.where(find_body(image), image.hu, np.float32(FLOOR_HU))
    steps = [image.spacing[axis] for axis in turn.order]
    return _Drawn(
        name=name,
        hu=np.ascontiguousarray(turn.there(hu)).round().astype(np.int16),
        masks={
            organ: turn.there(_on_work_grid(mask_of(roi, volume), image)) > 0.5  # noqa: PLR2004 (half)
            for organ, roi in rois.items()
        },
        spacing=(steps[0], steps[1], steps[2]),
    )


def _on_work_grid(mask: NDArray[np.bool_], image: WorkImage) -> NDArray[np.float32]:
    nearest = np.ix_(*(np.rint(c).astype(np.intp) for c in image.centers))
    return mask[nearest].astype(np.float32)


def _numbered(case: _Drawn, organs: Sequence[str]) -> Case:
    labels = np.zeros(case.hu.shape, np.uint8)
    for label, organ in enumerate(organs, start=1):
        if organ in case.masks:
            labels[case.masks[organ]] = label
    return Case(
        name=case.name,
        hu=case.hu,
        labels=labels,
        drawn=tuple(n for n, organ in enumerate(organs, start=1) if organ in case.masks),
        spacing=case.spacing,
    )
