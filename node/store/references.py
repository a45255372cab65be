"""The UIDs that an object points to: which structure set a plan means, which slices a contour.

One table says where each SOP class keeps them (PS3.3); a missing, empty or broken sequence gives
fewer references, never an error. The innermost Series Instance UID above an image is kept with it.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from node.domain import Reference, Uid

MOST: Final = 50_000
"""References kept of one object; a hostile one must not fill the database."""

_Path: TypeAlias = tuple[str, ...]

_RT_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.481.1"
_RT_DOSE: Final = "1.2.840.10008.5.1.4.1.1.481.2"
_RT_STRUCTURE_SET: Final = "1.2.840.10008.5.1.4.1.1.481.3"
_RT_PLAN: Final = "1.2.840.10008.5.1.4.1.1.481.5"
_RT_ION_PLAN: Final = "1.2.840.10008.5.1.4.1.1.481.8"
_SPATIAL_REGISTRATION: Final = "1.2.840.10008.5.1.4.1.1.66.1"
_DEFORMABLE_REGISTRATION: Final = "1.2.840.10008.5.1.4.1.1.66.3"
_SEGMENTATION: Final = "1.2.840.10008.5.1.4.1.1.66.4"

_SOP: Final = "ReferencedSOPInstanceUID"
_FRAME: Final = "ReferencedFrameOfReferenceSequence"
_SERIES_OF_FRAME: Final = (_FRAME, "RTReferencedStudySequence", "RTReferencedSeriesSequence")
_CONTOURS: Final = ("ROIContourSequence", "ContourSequence")
_OTHER_STUDIES: Final = "StudiesContainingOtherReferencedInstancesSequence"

_SERIES_AND_INSTANCES: Final[tuple[tuple[str, _Path], ...]] = (
    ("SERIES", ("ReferencedSeriesSequence", "SeriesInstanceUID")),
    ("IMAGE", ("ReferencedSeriesSequence", "ReferencedInstanceSequence", _SOP)),
    ("SERIES", (_OTHER_STUDIES, "ReferencedSeriesSequence", "SeriesInstanceUID")),
    ("IMAGE", (_OTHER_STUDIES, "ReferencedSeriesSequence", "ReferencedInstanceSequence", _SOP)),
)
_PLAN: Final[tuple[tuple[str, _Path], ...]] = (
    ("STRUCTURE_SET", ("ReferencedStructureSetSequence", _SOP)),
    ("DOSE", ("ReferencedDoseSequence", _SOP)),
)

PATHS: Final[Mapping[str, tuple[tuple[str, _Path], ...]]] = {
    _RT_STRUCTURE_SET: (
        ("FRAME", (_FRAME, "FrameOfReferenceUID")),
        ("FRAME", ("StructureSetROISequence", "ReferencedFrameOfReferenceUID")),
        ("SERIES", (*_SERIES_OF_FRAME, "SeriesInstanceUID")),
        ("IMAGE", (*_SERIES_OF_FRAME, "ContourImageSequence", _SOP)),
    ),
    _RT_PLAN: _PLAN,
    _RT_ION_PLAN: _PLAN,
    _RT_DOSE: (
        ("PLAN", ("ReferencedRTPlanSequence", _SOP)),
        ("STRUCTURE_SET", ("ReferencedStructureSetSequence", _SOP)),
        ("IMAGE", ("ReferencedImageSequence", _SOP)),
    ),
    _RT_IMAGE: (("PLAN", ("ReferencedRTPlanSequence", _SOP)),),
    _SPATIAL_REGISTRATION: (
        ("FRAME", ("RegistrationSequence", "FrameOfReferenceUID")),
        ("IMAGE", ("RegistrationSequence", "ReferencedImageSequence", _SOP)),
        *_SERIES_AND_INSTANCES,
    ),
    _DEFORMABLE_REGISTRATION: (
        ("FRAME", ("DeformableRegistrationSequence", "SourceFrameOfReferenceUID")),
        ("IMAGE", ("DeformableRegistrationSequence", "ReferencedImageSequence", _SOP)),
        *_SERIES_AND_INSTANCES,
    ),
    _SEGMENTATION: _SERIES_AND_INSTANCES,
}
"""SOP class -> (kind, path of keywords); the last keyword of a path holds the UID."""

_EACH_CONTOUR: Final[_Path] = (*_CONTOURS, "ContourImageSequence", _SOP)
_EACH_TYPE: Final[_Path] = (*_CONTOURS, "ContourGeometricType")


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"{keyword} is not a DICOM keyword")
    return int(tag)


TOP_LEVEL_TAGS: Final = frozenset(
    _tag(path[0]) for paths in PATHS.values() for _, path in paths
) | {_tag(_CONTOURS[0])}
"""What must be read of a data set before `collect`."""


def collect(ds: Dataset, sop_class_uid: str) -> tuple[list[Reference], list[str]]:
    """Return the references of an object, each once, and the contour types of a structure set.

    Where a structure set does not name its images at the top (real files), the references of its
    single contours stand in for it.
    """
    found: dict[tuple[str, str], Reference] = {}
    for kind, path in PATHS.get(sop_class_uid, ()):
        _add(found, kind, _walk(ds, path))
    types: list[str] = []
    if sop_class_uid == _RT_STRUCTURE_SET:
        if not any(kind == "IMAGE" for kind, _ in found):
            _add(found, "IMAGE", _walk(ds, _EACH_CONTOUR))
        types = sorted({value for value, _ in _walk(ds, _EACH_TYPE)})
    return list(found.values()), types


def _add(
    found: dict[tuple[str, str], Reference], kind: str, values: Iterator[tuple[str, str | None]]
) -> None:
    for uid, within in values:
        if len(found) >= MOST:
            return
        series = Uid(within) if within and kind == "IMAGE" else None
        found.setdefault((kind, uid), Reference(kind=kind, uid=Uid(uid), within=series))


def _walk(ds: Dataset, path: _Path, within: str | None = None) -> Iterator[tuple[str, str | None]]:
    """Yield (text, innermost series) of every element that `path` reaches."""
    if len(path) == 1:
        if text := _text(ds, path[0]):
            yield text, within
        return
    for item in _items(ds, path[0]):
        yield from _walk(item, path[1:], _text(item, "SeriesInstanceUID") or within)


def _items(ds: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence; none when it is absent, broken or no sequence."""
    tag = _tag(keyword)
    if tag not in ds:
        return []
    try:
        value: Any = ds[tag].value
        return [item for item in value or () if isinstance(item, Dataset)]
    except Exception:  # noqa: BLE001 - hostile bytes; the object itself is kept and shown
        return []


def _text(ds: Dataset, keyword: str) -> str:
    """Return the first value of an element from its raw bytes, empty when there is none."""
    tag = _tag(keyword)
    if tag not in ds:
        return ""
    raw = ds.get_item(tag).value
    if not isinstance(raw, bytes):
        return ""
    return raw.split(b"\\")[0].strip(b"\0 ").decode("ascii", "replace")
