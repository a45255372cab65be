"""Looks at derived objects as a planning system would: every broken rule is one problem.

The rules and their limits come from `import_profiles`; each function here answers some of them
and decides nothing. Values are judged as they are stored, in bytes, before any library turns
them into numbers: a decimal string of 19 bytes is the fault, not the number in it. Messages name
ROIs and positions, never a patient.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import numpy as np
import pydicom.charset
from numpy.typing import NDArray
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import CTImageStorage, RTStructureSetStorage

from pipelines.api import InputRejected
from pipelines.dicom.import_profiles import Rule
from pipelines.dicom.read import text, tolerant
from pipelines.dicom.volume import pose_of
from pipelines.geometry.stack import examine

Points = NDArray[np.float64]

_LITTLE_ENDIAN: Final = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"})
_LONGEST: Final[Mapping[str, int]] = {
    "AE": 16, "CS": 16, "DA": 8, "IS": 12, "LO": 64, "PN": 194, "ST": 1024, "LT": 10240,
    "TM": 16, "UI": 64,
}  # fmt: skip
"""VR -> characters of one value (PS3.5 6.2); PN: three groups of 64 and two signs between."""
_ONE_VALUE: Final = frozenset({"ST", "LT", "UT"})
"""VRs in which a backslash is a letter."""
_MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    "": ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality"),
    RTStructureSetStorage: (
        "StructureSetLabel",
        "StructureSetROISequence",
        "ROIContourSequence",
        "RTROIObservationsSequence",
        "ReferencedFrameOfReferenceSequence",
    ),
    CTImageStorage: (
        "FrameOfReferenceUID",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "RescaleIntercept",
        "RescaleSlope",
    ),
}
"""SOP class -> attributes that must have a value; those of the empty one in every object."""
_PATIENT: Final = ("PatientID", "PatientName")
"""Type 2: may be empty, must be there."""
_TYPES: Final = frozenset({"POINT", "CLOSED_PLANAR", "CLOSEDPLANAR_XOR"})
_AREA: Final = frozenset({"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"})
_REPLACED: Final = "\N{REPLACEMENT CHARACTER}"
"""What a decoder writes for bytes that its character set does not have."""
_SAME_PLANE_MM: Final = 0.1
"""Contours of one ROI that are closer along their normal lie in one plane."""
_OUR_LABELS: Final = frozenset({"StructureSetLabel", "ROIObservationLabel"})
"""Texts of ours: a shorter one means the same. Others name a study or an order."""
_TOLD: Final = 3
"""Places that a message names before it only counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A rule that an object or a series breaks."""

    rule: str
    message: str
    repairable: bool = False
    """`import_fixes` can mend all of it."""


def problems(
    objects: Sequence[Dataset], rules: Mapping[str, Rule], *, syntaxes: Sequence[str]
) -> list[Problem]:
    """Return what the objects of one job break, each rule once an object or series.

    Parameters
    ----------
    objects : sequence of Dataset
        As read, without pixels; values not yet converted where possible.
    rules : mapping
        Name -> rule, with its limit; all rules are judged, whatever their action.
    syntaxes : sequence of str
        Transfer Syntax UID of each file.
    """
    found: list[Problem] = []
    with tolerant():
        for ds, syntax in zip(objects, syntaxes, strict=True):
            if syntax not in _LITTLE_ENDIAN:
                found.append(Problem(rule="transfer-syntax", message=f"stored as {syntax}"))
            found += _texts(ds, rules)  # first: it judges bytes, and every other look converts
            found += _required(ds)
            if text(ds, "SOPClassUID") == RTStructureSetStorage:
                found += structure_set_problems(ds, rules)
        found += _series(objects)
    return found


# -- every object ------------------------------------------------------------------------------


def _required(ds: Dataset) -> Iterator[Problem]:
    wanted = (*_MODULES[""], *_MODULES.get(text(ds, "SOPClassUID"), ()))
    missing = [keyword for keyword in wanted if not _filled(ds, keyword)]
    missing += [keyword for keyword in _PATIENT if keyword not in ds]
    if missing:
        yield Problem(rule="required", message=f"without {', '.join(missing)}")


def _filled(ds: Dataset, keyword: str) -> bool:
    if keyword not in ds:
        return False
    value = ds[keyword].value
    return len(value) > 0 if hasattr(value, "__len__") else value is not None


def _texts(ds: Dataset, rules: Mapping[str, Rule]) -> Iterator[Problem]:
    """Judge the stored length of every value, and whether texts fit their character set."""
    terms = _terms(ds)
    unknown = [term for term in terms if term not in pydicom.charset.python_encoding]
    if unknown:
        yield Problem(rule="character-set", message=f"'{unknown[0]}' is no defined term")
    encodings = pydicom.charset.convert_encodings(terms) if any(terms) and not unknown else []
    broken: dict[str, list[tuple[str, bool]]] = {}
    for _, tag, vr, value in stored_values(ds):
        for rule, repairable in _faults(tag, vr, value, encodings, rules):
            name = keyword_for_tag(tag) or str(tag)
            broken.setdefault(rule, []).append((name, repairable))
    for rule, places in broken.items():
        names = list(dict.fromkeys(name for name, _ in places))
        more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
        yield Problem(
            rule=rule,
            message=f"{len(places)} values in {', '.join(names[:_TOLD])}{more}",
            repairable=all(repairable for _, repairable in places),
        )


def stored_values(ds: Dataset) -> Iterator[tuple[Dataset, BaseTag, str, bytes]]:
    """Yield (data set or item, tag, VR, stored bytes) of every value that has not been converted.

    Bulk data and what has no known VR is passed over.
    """
    for tag in list(ds.keys()):
        raw = ds.get_item(tag)
        vr = raw.VR or _known_vr(tag)
        if vr == "SQ":
            for item in ds[tag].value:
                yield from stored_values(item)
        elif isinstance(raw.value, bytes) and (vr in _LONGEST or vr in ("DS", "SH")):
            yield ds, tag, vr, raw.value


def _known_vr(tag: BaseTag) -> str:
    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return ""


def _faults(
    tag: BaseTag,
    vr: str,
    value: bytes,
    encodings: Sequence[str],
    rules: Mapping[str, Rule],
) -> Iterator[tuple[str, bool]]:
    """Yield (rule, whether it can be repaired) of what one stored value breaks."""
    if vr == "DS":
        longest = int(rules["decimal-length"].limit or 0)
        if len(value) > longest:
            long = [part for part in value.rstrip(b" \0").split(b"\\") if len(part) > longest]
            if long:
                yield "decimal-length", all(shorter(part, longest) is not None for part in long)
        return
    if vr == "SH":
        longest, rule = int(rules["label-length"].limit or 0), "label-length"
    else:
        longest, rule = _LONGEST[vr], "text-length"
    value_text = _REPLACED
    if not value.isascii() and vr not in ("UI", "CS", "AE", "DA", "TM", "IS"):
        with suppress(LookupError, UnicodeError):
            value_text = pydicom.charset.decode_bytes(value, list(encodings), set("\\^="))
        if not encodings or _REPLACED in value_text:
            yield "character-set", False
            return
    else:
        value_text = value.decode("latin_1")
    if len(value) <= longest:
        return
    parts = [value_text] if vr in _ONE_VALUE else value_text.split("\\")
    if any(len(part.rstrip(" \0")) > longest for part in parts):
        yield rule, rule == "label-length" and keyword_for_tag(tag) in _OUR_LABELS


def shorter(value: bytes, longest: int) -> bytes | None:
    """Return the same number, digit for digit, in at most `longest` bytes; None: there is none.

    Zeros that say nothing are dropped; no digit of the value ever is.
    """
    number = value.strip()
    match = re.fullmatch(rb"([+-]?)0*(\d*)(?:\.(\d*))?", number)
    if match is None:
        return number if len(number) <= longest else None
    sign, whole, fraction = match[1].replace(b"+", b""), match[2] or b"0", (match[3] or b"")
    fraction = fraction.rstrip(b"0")
    short = sign + whole + (b"." + fraction if fraction else b"")
    return short if len(short) <= longest else None


def _terms(ds: Dataset) -> list[str]:
    value = ds.get("SpecificCharacterSet")
    values = [value] if isinstance(value, str) else list(value or [])
    return [str(term).strip() for term in values]


# -- structure sets ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Roi:
    """One ROI in its three places."""

    name: str
    frame: str
    contours: Sequence[Dataset]
    label: str
    kind: str


def structure_set_problems(ds: Dataset, rules: Mapping[str, Rule]) -> Iterator[Problem]:
    """Yield what a structure set breaks beyond the rules of every object."""
    rois = _rois(ds)
    yield from _names(rois, rules)
    yield from _frames(ds, rois)
    if text(ds, "ApprovalStatus") != "UNAPPROVED":
        yield Problem(rule="unapproved", message="Approval Status is not UNAPPROVED")
    empty = [roi.name for roi in rois if not roi.contours]
    if empty:
        yield Problem(
            rule="empty-roi",
            message=f"no contour in {_told(empty)}",
            repairable=len(empty) < len(rois),
        )
    bodies = [roi.name for roi in rois if roi.kind == "EXTERNAL"]
    if len(bodies) > 1:
        yield Problem(rule="one-external", message=f"{_told(bodies)} are all EXTERNAL")
    images = _images(ds)
    for judge in (_contour_data, _contour_shapes):
        broken: dict[str, list[str]] = {}
        for roi in rois:
            for rule in judge(roi, images, rules):
                broken.setdefault(rule, []).append(roi.name)
        for rule, names in broken.items():
            yield Problem(rule=rule, message=f"{len(names)} contours of {_told(names)}")


def _rois(ds: Dataset) -> list[_Roi]:
    outlines = {str(o.get("ReferencedROINumber")): o for o in ds.get("ROIContourSequence") or []}
    observations = {
        str(o.get("ReferencedROINumber")): o for o in ds.get("RTROIObservationsSequence") or []
    }
    rois = []
    for item in ds.get("StructureSetROISequence") or []:
        number = text(item, "ROINumber")
        outline, seen = outlines.get(number), observations.get(number)
        rois.append(
            _Roi(
                name=text(item, "ROIName"),
                frame=text(item, "ReferencedFrameOfReferenceUID"),
                contours=list((outline.get("ContourSequence") if outline else None) or []),
                label=text(seen, "ROIObservationLabel") if seen else "",
                kind=text(seen, "RTROIInterpretedType").strip().upper() if seen else "",
            )
        )
    return rois


def _names(rois: Sequence[_Roi], rules: Mapping[str, Rule]) -> Iterator[Problem]:
    longest = int(rules["name-length"].limit or 0)
    names = [roi.name for roi in rois]
    long = [name for name in names if len(name) > longest]
    if long:
        yield Problem(
            rule="name-length",
            message=f"{_told(long)}: longer than {longest}",
            repairable=short_names(names, longest) is not None,
        )
    folded = [name.casefold() for name in names]
    twins = [name for name in names if folded.count(name.casefold()) > 1 or not name]
    if twins:
        yield Problem(rule="name-unique", message=f"{_told(twins)}: empty, or there twice")
    foreign = [r.name for r in rois if not (_plain(r.name) and _plain(r.label))]
    if foreign:
        yield Problem(rule="name-ascii", message=f"{len(foreign)} ROI names or labels")


def short_names(names: Sequence[str], longest: int) -> dict[str, str] | None:
    """Return long name -> name of at most `longest` characters, or None where two would be one.

    The end that tells sides and margins apart (``_L``, ``_PRV05``) is kept; the middle goes.
    """
    short = {}
    for name in names:
        if len(name) > longest:
            stem, mark, end = name.rpartition("_")
            keeps = bool(mark) and len(end) + 1 < longest // 2
            tail = f"_{end}" if keeps else ""
            short[name] = (stem if keeps else name)[: longest - len(tail)].rstrip("_ ") + tail
    renamed = [short.get(name, name).casefold() for name in names]
    return short if len(set(renamed)) == len(renamed) else None


def _plain(name: str) -> bool:
    return all(" " <= character <= "~" and character != "\\" for character in name)


def _frames(ds: Dataset, rois: Sequence[_Roi]) -> Iterator[Problem]:
    frames = {
        text(item, "FrameOfReferenceUID")
        for item in ds.get("ReferencedFrameOfReferenceSequence") or []
    } - {""}
    stray = [roi.name for roi in rois if roi.frame not in frames]
    if stray:
        yield Problem(
            rule="frame-of-reference",
            message=f"{_told(stray)}: in a frame that the object does not name",
        )
    own = text(ds, "FrameOfReferenceUID")
    if len(frames) != 1 or (own and own not in frames):
        yield Problem(rule="frame-of-reference", message=f"{len(frames)} frames of reference")


def _images(ds: Dataset) -> frozenset[str]:
    return frozenset(
        text(image, "ReferencedSOPInstanceUID")
        for frame in ds.get("ReferencedFrameOfReferenceSequence") or []
        for study in frame.get("RTReferencedStudySequence") or []
        for series in study.get("RTReferencedSeriesSequence") or []
        for image in series.get("ContourImageSequence") or []
    )


def _contour_data(roi: _Roi, images: frozenset[str], rules: Mapping[str, Rule]) -> Iterator[str]:
    """Yield a rule for each contour of a ROI that breaks it by what it says."""
    longest = rules["contour-points"].limit or 0
    for contour in roi.contours:
        points = points_of(contour)
        if points is None or str(len(points)) != text(contour, "NumberOfContourPoints"):
            yield "contour-data"
        if text(contour, "ContourGeometricType") not in _TYPES:
            yield "contour-type"
        named = [
            text(image, "ReferencedSOPInstanceUID")
            for image in contour.get("ContourImageSequence") or []
        ]
        if not images.issuperset(named):
            yield "image-references"
        if points is not None and len(points) > longest:
            yield "contour-points"


def _contour_shapes(roi: _Roi, _images: frozenset[str], rules: Mapping[str, Rule]) -> Iterator[str]:
    """Yield a rule for each closed contour of a ROI that breaks it by its shape."""
    least, off = rules["contour-tiny"].limit or 0.0, rules["contour-planar"].limit or 0.0
    flat: dict[int, list[tuple[float, Points]]] = {}
    for contour in roi.contours:
        kind, points = text(contour, "ContourGeometricType"), points_of(contour)
        if kind not in _AREA or points is None:
            continue
        if kind == "CLOSEDPLANAR_XOR":
            yield "holes"
        normal, area = _plane(points)
        if len(np.unique(points, axis=0)) < 3 or area <= 0.0:  # noqa: PLR2004 - an area needs three
            yield "contour-degenerate"
            continue
        if area < least:
            yield "contour-tiny"
        heights = points @ normal
        if float(np.ptp(heights)) > 2 * off:
            yield "contour-planar"
            continue
        axis = int(np.argmax(np.abs(normal)))
        height = float(np.mean(heights)) * (1.0 if normal[axis] > 0 else -1.0)
        flat.setdefault(axis, []).append((height, np.delete(points, axis, axis=1)))
    for loops in flat.values():
        for plane in _planes(loops):
            yield from ["holes"] * _nested(plane)


def _planes(loops: list[tuple[float, Points]]) -> Iterator[list[Points]]:
    """Split loops, each with its height [mm], into those that share a plane."""
    loops.sort(key=lambda entry: entry[0])
    plane: list[Points] = []
    for i, (height, loop) in enumerate(loops):
        if plane and height - loops[i - 1][0] > _SAME_PLANE_MM:
            yield plane
            plane = []
        plane.append(loop)
    yield plane


def points_of(contour: Dataset) -> Points | None:
    """Return the coordinates of a contour, shape (n, 3), LPS [mm]; None where they make no sense.

    Read from the stored bytes, so that they stay as they are in the data set.
    """
    if "ContourData" not in contour:
        return None
    stored = contour.get_item("ContourData").value
    try:
        if isinstance(stored, str | bytes):
            stored = stored.encode("ascii") if isinstance(stored, str) else stored
            stored = stored.rstrip(b" \0").split(b"\\")
        values = np.array(stored, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        return None
    if values.size == 0 or values.size % 3 or not np.isfinite(values).all():
        return None
    return values.reshape(-1, 3)


def _plane(points: Points) -> tuple[Points, float]:
    """Return unit normal and area [mm²] of a closed contour (Newell's sum of cross products)."""
    centered = points - points[0]
    total = np.sum(np.cross(centered, np.roll(centered, -1, axis=0)), axis=0)
    length = float(np.linalg.norm(total))
    return (total / length if length else total), length / 2


def _nested(loops: Sequence[Points]) -> int:
    """Return how many of the loops of one plane, shape (n, 2), lie inside another one."""
    if len(loops) < 2:  # noqa: PLR2004 - a pair
        return 0
    boxes = [(np.min(loop, axis=0), np.max(loop, axis=0)) for loop in loops]
    inside = 0
    for i, loop in enumerate(loops):
        low, high = boxes[i]
        inside += any(
            bool(np.all(boxes[j][0] <= low) and np.all(boxes[j][1] >= high))
            and _contains(other, loop[0])
            for j, other in enumerate(loops)
            if j != i
        )
    return inside


def _contains(loop: Points, point: Points) -> bool:
    """Tell whether a point lies inside a loop by the even-odd rule."""
    after = np.roll(loop, -1, axis=0)
    crosses = (loop[:, 1] > point[1]) != (after[:, 1] > point[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        at = (after[:, 0] - loop[:, 0]) * (point[1] - loop[:, 1]) / (after[:, 1] - loop[:, 1])
    return bool(np.count_nonzero(crosses & (point[0] < at + loop[:, 0])) % 2)


# -- series of images --------------------------------------------------------------------------


def _series(objects: Sequence[Dataset]) -> Iterator[Problem]:
    """Judge the geometry of each series of CT images, and that it lies in one frame."""
    series: dict[str, list[Dataset]] = {}
    for ds in objects:
        if text(ds, "SOPClassUID") == CTImageStorage:
            series.setdefault(text(ds, "SeriesInstanceUID"), []).append(ds)
    for images in series.values():
        if len({text(image, "FrameOfReferenceUID") for image in images}) > 1:
            yield Problem(
                rule="frame-of-reference", message="images of one series in several frames"
            )
        try:
            report = examine([pose_of(image) for image in images])
        except InputRejected:
            continue  # `required` says which attribute is missing
        if report.problems:
            yield Problem(rule="slice-spacing", message="; ".join(report.problems[:_TOLD]))
        elif not report.uniform:
            yield Problem(rule="slice-spacing", message="the steps between the images differ")


def _told(names: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(names))
    more = f" and {len(distinct) - _TOLD} more" if len(distinct) > _TOLD else ""
    return ", ".join(distinct[:_TOLD]) + more
