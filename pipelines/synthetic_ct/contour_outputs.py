"""The planning contours as objects on the synthetic CT: RTSTRUCT, deformation, and what is told.

What came about is an unapproved draft that names its source. A structure set that cannot be used
is a WARN with the reason and never keeps the image back.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pydicom.dataset import Dataset

from pipelines.api import (
    DerivedObject,
    Finding,
    InputRejected,
    Inputs,
    Json,
    Provenance,
    Role,
    Severity,
)
from pipelines.dicom.deformable_registration import write_deformable_registration
from pipelines.dicom.nomenclature import MAX_LENGTH, partial_name, suggest
from pipelines.dicom.read import text
from pipelines.dicom.rtstruct import Roi, StructureSet, read_structure_set
from pipelines.dicom.rtstruct_check import check_structure_set
from pipelines.dicom.rtstruct_writer import (
    ConceptCode,
    Structure,
    WriterProfile,
    write_structure_set,
)
from pipelines.dicom.volume import CtVolume, from_sitk, read_volume
from pipelines.geometry.contours import LEVEL
from pipelines.report.figures import Overlay, Scan, three_planes
from pipelines.report.page import Picture, Section, Table
from pipelines.synthetic_ct.contours import LeftOut, Moved, Passage, move
from pipelines.synthetic_ct.deform import find_deformation
from pipelines.synthetic_ct.inputs import Read
from pipelines.synthetic_ct.methods import Hu, Scene
from pipelines.synthetic_ct.settings import SyntheticCTSettings

MARKS: Final = {"rigid": "^Rig", "deformable": "^Def"}
"""Ends of the names: TG-263 has ``^`` before what a user adds."""
LARGE_CHANGE: Final = 0.2
"""Relative change of volume beyond which a person must look."""
LARGE_SHIFT_MM: Final = 10.0
"""Shift of the center against the rigidly placed plan beyond which a person must look."""
DRAWN: Final = 8
"""Structures in the picture, the largest first."""
FILE_NAME: Final = "contours.dcm"
FIELD_NAME: Final = "deformation.dcm"
_TYPES: Final = frozenset(
    {"EXTERNAL", "PTV", "CTV", "GTV", "BOLUS", "AVOIDANCE", "ORGAN", "CONTROL", "SUPPORT",
     "CAVITY", "IRRAD_VOLUME", "TREATED_VOLUME", "DOSE_REGION"}
)  # fmt: skip
"""RT ROI Interpreted Types of regions (PS3.3 C.8.8.8.1)."""
_FAMILY: Final = ConceptCode(value="123111", scheme="DCM", meaning="Deformable Models")
"""The nearest of CID 7162; for a rigid shift, too."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contours:
    """The contours on today's grid, not yet written."""

    refusal: str = ""
    """Why there are none."""
    source: StructureSet | None = None
    passage: Passage | None = None
    planning: CtVolume | None = None
    mode: str = ""
    placed_by: str = ""
    structures: tuple[Structure, ...] = ()
    moved: tuple[Moved, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is to be told: refusals, large changes, what is cut, repaired or left out."""
        return tuple(_findings(self))

    @property
    def figures(self) -> Mapping[str, Json]:
        """Volume and shift of each structure."""
        if self.source is None:
            return {}
        return {
            "mode": self.mode,
            "source_structure_set": self.source.sop_instance_uid,
            "structures": {
                s.name: _figures(m) for s, m in zip(self.structures, self.moved, strict=True)
            },
            "left_out": {one.name: one.why for one in self.left_out},
        }


def planning_contours(
    settings: SyntheticCTSettings, inputs: Inputs, read: Read, scene: Scene, hu: Hu
) -> Contours | None:
    """Return the planning contours on today's image `hu`; None where nobody asked for them."""
    if settings.contours == "none":
        return None
    if read.prior is None or read.planning is None:
        return Contours(refusal="the planning CT that they were drawn on is not in place")
    try:
        source = _source(inputs, read, read.planning)
    except InputRejected as refused:
        return Contours(refusal=str(refused))
    deformation = None
    if settings.contours == "deformable":
        deformation = find_deformation(hu, read.prior.hu, scene.known, scene.geometry)
    seen = np.ones(scene.geometry.shape, np.bool_)
    passage = Passage(
        planning=read.planning.geometry,
        today=scene.geometry,
        matrix=read.prior.matrix,
        deformation=deformation,
        seen=scene.regions.fov if settings.outside_fov == "air" else seen,
    )
    tried = [move(roi, passage) for roi in source.rois]
    moved = tuple(one for one in tried if isinstance(one, Moved))
    left_out = tuple(one for one in tried if isinstance(one, LeftOut))
    names = names_of([m.roi for m in moved], [m.cut for m in moved], MARKS[settings.contours])
    return Contours(
        source=source,
        passage=passage,
        planning=read.planning,
        mode=settings.contours,
        placed_by=str(read.prior.source),
        moved=moved,
        left_out=left_out,
        structures=tuple(
            _structure(m, name, number, source, settings.contours)
            for number, (m, name) in enumerate(zip(moved, names, strict=True), 1)
        ),
    )


def names_of(rois: Sequence[Roi], cut: Sequence[bool], mark: str) -> tuple[str, ...]:
    """Return the names to be written: at most 16 characters, unique whatever their case.

    The planner's name stays where TG-263 allows its characters; what is too long loses the end of
    its first part, never its side or its mark.
    """
    found: list[str] = []
    for roi, part in zip(rois, cut, strict=True):
        plain = _plain(roi)
        whole = partial_name(plain) if part and "~" not in plain else plain
        stem, _, side = whole.rpartition("_")
        end = f"_{side}{mark}" if stem and side in {"L", "R"} else mark
        stem = stem if end != mark else whole
        if stem.endswith("~"):
            stem, end = stem[:-1], f"~{end}"
        taken = {name.casefold() for name in found}
        tries = ["", *(str(n) for n in range(2, len(rois) + 2))]
        found.append(
            next(
                name
                for more in tries
                if (name := stem[: MAX_LENGTH - len(end) - len(more)] + more + end).casefold()
                not in taken
            )
        )
    return tuple(found)


def _plain(roi: Roi) -> str:
    """Return the name in the characters of TG-263."""
    name = unicodedata.normalize("NFKC", roi.name).strip()
    if not name.isascii():
        return suggest(name) or f"ROI_{roi.number}"
    return re.sub(r"[^A-Za-z0-9_^~.+!-]+", "_", name).strip("_") or f"ROI_{roi.number}"


def section(contours: Contours, scan: Scan, folder: Path) -> Section | None:
    """Return the table and the picture for the report; None where nothing was moved."""
    if contours.source is None:
        return None
    rows = [
        (s.name, m.roi.name, m.planned_cc, m.volume_cc,
         None if m.change is None else 100 * m.change, m.shift, *map(float, m.shift_mm), s.remark)
        for s, m in zip(contours.structures, contours.moved, strict=True)
    ]  # fmt: skip
    tables = [
        Table(
            head=("structure", "in the plan", "plan [cc]", "today [cc]", "change [%]",
                  "shift [mm]", "left [mm]", "back [mm]", "head [mm]", "remark"),
            rows=rows,
            caption="Shift of the center against the rigidly placed plan",
        )
    ]  # fmt: skip
    if contours.left_out:
        reasons = [(one.name, one.why) for one in contours.left_out]
        tables.append(Table(head=("left out", "why"), rows=reasons))
    pictures = []
    if contours.structures:
        largest = sorted(
            zip(contours.structures, contours.moved, strict=True), key=lambda p: -p[1].volume_cc
        )
        overlays = [_overlay(s, scan.hu.shape) for s, _ in largest[:DRAWN]]
        title = f"planning contours, {contours.mode}: unapproved"
        path = three_planes(
            scan, folder / "contours.png", overlays=overlays, title=title, at=_center(overlays)
        )
        words = "Propagated contours on the synthetic CT, the largest"
        pictures.append(Picture(path=path, caption=words))
    return Section(
        title="Planning contours on the synthetic CT",
        text=f"Moved by the {contours.mode} registration; the planning CT was placed by "
        f"{contours.placed_by}. Unapproved: look at every slice before use.",
        tables=tables,
        pictures=pictures,
    )


def write_contours(
    contours: Contours,
    settings: SyntheticCTSettings,
    images: Sequence[DerivedObject],
    provenance: Provenance,
    folder: Path,
) -> list[DerivedObject]:
    """Write what the settings ask for, on the images of the synthetic CT.

    Raises
    ------
    OutputInvalid
        If an object does not give back what was to be written.
    """
    if contours.source is None or contours.passage is None or contours.planning is None:
        return []
    sct = read_volume([image.path for image in images], check_scale=False)
    objects = []
    if contours.structures:
        warned = any(f.severity is Severity.WARN for f in contours.findings)
        profile = WriterProfile(
            label=f"sCT {contours.mode}"[:16],
            series_description=f"{settings.description_prefix} contours {contours.mode} "
            f"{'WARN' if warned else 'PASS'} UNAPPROVED",
            description=f"contours of structure set {contours.source.sop_instance_uid} propagated "
            f"to the synthetic CT: {contours.mode}, planning CT placed by {contours.placed_by}; "
            "unapproved draft for research use",
            algorithm_family=_FAMILY,
        )
        path = folder / FILE_NAME
        written = write_structure_set(
            contours.structures, sct.headers, sct.geometry, provenance, path, profile
        )
        kept = [s for s in contours.structures if s.name in written.contours]
        check_structure_set(path, kept, sct.headers, sct.geometry)
        objects.append(written.object)
    deformation = contours.passage.deformation
    if settings.deformation_object and deformation is not None:
        field, grid = from_sitk(deformation.field)
        objects.append(
            write_deformable_registration(
                np.asarray(field, dtype=np.float32),
                grid,
                contours.passage.matrix,
                contours.planning.headers,
                sct.headers,
                provenance,
                folder / FIELD_NAME,
            )
        )
    return objects


def _source(inputs: Inputs, read: Read, planning: CtVolume) -> StructureSet:
    """Return the planning structure set, judged.

    Raises
    ------
    InputRejected
        With the reason why its contours are not brought here.
    """
    paths = inputs.paths(Role.RTSTRUCT)
    if len(paths) != 1:
        words = "several were given" if paths else "none was given"
        raise InputRejected(f"there is no planning structure set: {words}")
    source = read_structure_set(paths[0])
    patients = [text(ds, "PatientID").strip() for ds in (read.cbct.headers[0], source.dataset)]
    if patients[0] != patients[1]:
        raise InputRejected("the structure set's patient ID is not that of the CBCT")
    images = {text(h, "SOPInstanceUID") for h in planning.headers}
    named = set(source.referenced_image_uids)
    frame = source.frame_of_reference_uid
    other_frame = frame is not None and frame != planning.frame_of_reference_uid
    if other_frame or (named and not named & images):
        raise InputRejected("the structure set was not drawn on the planning CT")
    if not any(roi.closed for roi in source.rois):
        raise InputRejected("the structure set holds no closed contour, only points or lines")
    return source


def _structure(moved: Moved, name: str, number: int, source: StructureSet, mode: str) -> Structure:
    roi = moved.roi
    code = next(iter(roi.codes), None)
    usable = code is not None and code.value and code.scheme and code.meaning
    remark = "cut off by the CBCT's field of view; " if moved.cut else ""
    return Structure(
        number=number,
        name=name,
        field=moved.field,
        corner=moved.corner,
        interpreted_type=roi.interpreted_type if roi.interpreted_type in _TYPES else "",
        color=_color(source.dataset, roi.number),
        code=ConceptCode(value=code.value, scheme=code.scheme, meaning=code.meaning)
        if code is not None and usable
        else None,
        description=f"{mode} propagation of ROI {roi.number} of structure set "
        f"{source.sop_instance_uid}",
        remark=f"{remark}not reviewed",
        label=roi.name if len(roi.name) <= MAX_LENGTH else "",
    )


def _color(ds: Dataset, number: int) -> tuple[int, int, int]:
    """Return the display color of an ROI; gray where there is no good one."""
    for item in ds.get("ROIContourSequence") or []:
        if text(item, "ReferencedROINumber") == str(number):
            try:
                red, green, blue = (int(v) for v in item.ROIDisplayColor)
            except (AttributeError, TypeError, ValueError):
                break
            if all(0 <= v <= 255 for v in (red, green, blue)):  # noqa: PLR2004 (eight bits)
                return red, green, blue
            break
    return 192, 192, 192


def _findings(made: Contours) -> Iterator[Finding]:
    if made.source is None or not made.moved:
        why = made.refusal or "none of its structures lies on the synthetic CT"
        yield Finding(
            code="contours-not-propagated",
            severity=Severity.WARN,
            message=f"the planning contours were not brought to the synthetic CT: {why}",
        )
    else:
        yield Finding(
            code="contours-propagated",
            severity=Severity.INFO,
            message=f"{len(made.moved)} structures of the plan are on the synthetic CT "
            f"({made.mode}); {len(made.left_out)} were left out",
        )
    for structure, moved in zip(made.structures, made.moved, strict=True):
        yield from _of_one(structure.name, moved)
    for one in made.left_out:
        yield Finding(
            code="contour-left-out",
            severity=Severity.INFO if one.expected else Severity.WARN,
            message=one.why,
            roi=one.name,
        )


def _of_one(name: str, moved: Moved) -> Iterator[Finding]:
    if moved.change is not None and abs(moved.change) > LARGE_CHANGE:
        yield Finding(
            code="contour-volume",
            severity=Severity.WARN,
            message="its volume differs much from the plan's",
            roi=name,
            value=round(100 * moved.change, 1),
            unit="%",
            limit=100 * LARGE_CHANGE,
        )
    if moved.shift > LARGE_SHIFT_MM:
        yield Finding(
            code="contour-shift",
            severity=Severity.WARN,
            message="its center lies far from that of the rigidly placed plan",
            roi=name,
            value=round(moved.shift, 1),
            unit="mm",
            limit=LARGE_SHIFT_MM,
        )
    if moved.cut:
        yield Finding(
            code="contour-cut", severity=Severity.INFO, message="the CBCT cuts it off", roi=name
        )
    for note in moved.notes:
        yield Finding(code="contour-repaired", severity=Severity.INFO, message=note, roi=name)


def _figures(moved: Moved) -> dict[str, Json]:
    return {
        "planned_cc": round(moved.planned_cc, 2),
        "today_cc": round(moved.volume_cc, 2),
        "change_percent": None if moved.change is None else round(100 * moved.change, 1),
        "shift_mm": [round(float(v), 2) for v in moved.shift_mm],
        "cut": moved.cut,
    }


def _overlay(structure: Structure, shape: tuple[int, ...]) -> Overlay:
    mask = np.zeros(shape, np.bool_)
    corner, size = structure.corner, structure.field.shape
    mask[tuple(slice(a, a + n) for a, n in zip(corner, size, strict=True))] = (
        structure.field > LEVEL
    )
    red, green, blue = structure.color
    return Overlay(name=structure.name, mask=mask, color=f"#{red:02x}{green:02x}{blue:02x}")


def _center(overlays: Sequence[Overlay]) -> tuple[int, int, int]:
    """Return the planes with the most structure voxels, the largest structure left out."""
    inner = overlays[1:] or overlays
    together = np.logical_or.reduce([o.mask for o in inner])
    s, r, c = (
        int(together.sum(axis=tuple(a for a in range(3) if a != axis)).argmax())
        for axis in range(3)
    )
    return s, r, c
