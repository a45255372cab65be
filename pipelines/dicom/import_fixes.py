"""Repairs of derived objects that touch no geometry and no identity, and the UIDs that follow.

A repaired object is another object: it gets a UID of its own, made from the UID it would have had
and from what was changed, so that the same input and the same changes give the same bytes and no
UID ever names two contents. Objects that refer to a repaired one are written anew as well, for
the same reason. Nothing here may add, move or drop a coordinate that encloses anything.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from pipelines.api import content_uid
from pipelines.dicom.import_check import points_of, short_names, shorter, stored_values
from pipelines.dicom.import_profiles import Rule
from pipelines.dicom.read import text

Fix = Callable[[Dataset, Rule], list[str]]
"""Mends a data set in place; returns what it changed, in words without patients."""


def shorten_names(ds: Dataset, rule: Rule) -> list[str]:
    """Cut ROI names to the limit; nothing where two would become one."""
    items = list(ds.get("StructureSetROISequence") or [])
    short = short_names([text(item, "ROIName") for item in items], int(rule.limit or 0)) or {}
    changes = []
    for item in items:
        name = text(item, "ROIName")
        if name in short:
            item.ROIName = short[name]
            changes.append(f"name {name} -> {short[name]}")
    return changes


def shorten_labels(ds: Dataset, rule: Rule) -> list[str]:
    """Cut structure set label and observation labels to the limit."""
    longest = int(rule.limit or 0)
    changes = []
    places = [(ds, "StructureSetLabel")]
    places += [(item, "ROIObservationLabel") for item in ds.get("RTROIObservationsSequence") or []]
    for place, keyword in places:
        label = text(place, keyword)
        if len(label) > longest:
            setattr(place, keyword, label[:longest].rstrip())
            changes.append(f"{keyword} {label} -> {label[:longest].rstrip()}")
    return changes


def drop_empty_rois(ds: Dataset, _rule: Rule) -> list[str]:
    """Take ROIs without a contour out of the three sequences; never the last one."""
    drawn = {
        text(outline, "ReferencedROINumber")
        for outline in ds.get("ROIContourSequence") or []
        if outline.get("ContourSequence")
    }
    rois = list(ds.get("StructureSetROISequence") or [])
    empty = [item for item in rois if text(item, "ROINumber") not in drawn]
    if not empty or len(empty) == len(rois):
        return []
    for sequence, number in (
        ("StructureSetROISequence", "ROINumber"),
        ("ROIContourSequence", "ReferencedROINumber"),
        ("RTROIObservationsSequence", "ReferencedROINumber"),
    ):
        kept = [item for item in ds.get(sequence) or [] if text(item, number) in drawn]
        setattr(ds, sequence, kept)
    return [f"left out empty {text(item, 'ROIName')}" for item in empty]


def shorten_decimals(ds: Dataset, rule: Rule) -> list[str]:
    """Write decimal strings without digits that say nothing; the number stays, digit for digit."""
    longest = int(rule.limit or 0)
    changed = 0
    for place, tag, vr, value in list(stored_values(ds)):
        parts = value.rstrip(b" \0").split(b"\\") if vr == "DS" else []
        if all(len(part) <= longest for part in parts):
            continue
        short = [shorter(part, longest) if len(part) > longest else part for part in parts]
        if None in short:
            continue
        written = b"\\".join(part for part in short if part is not None).decode("ascii")
        place[tag] = DataElement(tag, "DS", written, already_converted=True)
        changed += sum(len(part) > longest for part in parts)
    return [f"{changed} decimal strings without empty digits"] if changed else []


FIXES: Final[Mapping[str, Fix]] = {
    "decimal-length": shorten_decimals,
    "label-length": shorten_labels,
    "name-length": shorten_names,
    "empty-roi": drop_empty_rois,
}
"""Rule -> its repair, in the order in which they are made: bytes first."""


def own_uid(sop_instance_uid: str, changes: Sequence[str]) -> str:
    """Return the UID of an object after `changes`: the same for the same object and changes."""
    return content_uid(["rtnode-import-fix-v1", sop_instance_uid, list(changes)])


def references(ds: Dataset, uids: Collection[str]) -> list[str]:
    """Return those of `uids` that a data set refers to; its own SOP Instance UID is none."""
    own = text(ds, "SOPInstanceUID")
    return sorted({uid for _, _, uid in _uids(ds) if uid in uids and uid != own})


def rename(ds: Dataset, uids: Mapping[str, str]) -> None:
    """Put the new UID for each old one everywhere in a data set."""
    for place, tag, uid in list(_uids(ds)):
        if uid in uids:
            place[tag] = DataElement(tag, "UI", uids[uid])


def shapes(ds: Dataset) -> dict[str, list[bytes]]:
    """Return ROI number -> coordinates of its contours [mm] as float64, in their order."""
    found = {}
    for outline in ds.get("ROIContourSequence") or []:
        points = [points_of(contour) for contour in outline.get("ContourSequence") or []]
        if points:
            number = text(outline, "ReferencedROINumber")
            found[number] = [b"" if p is None else p.tobytes() for p in points]
    return found


def _uids(ds: Dataset) -> Iterator[tuple[Dataset, BaseTag, str]]:
    """Yield (data set or item, tag, UID) of every UI value that stands alone."""
    for tag in list(ds.keys()):
        vr = ds.get_item(tag).VR or ds[tag].VR  # Implicit VR: known once it is converted
        if vr == "SQ":
            for item in ds[tag].value or []:
                yield from _uids(item)
        elif vr == "UI":
            yield ds, tag, str(ds[tag].value)
