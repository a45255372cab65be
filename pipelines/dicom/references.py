"""Source instances as DICOM names them: one item an instance, by series and study."""

from collections.abc import Sequence

from pydicom.dataset import Dataset

from pipelines.dicom.read import text


def instance_item(source: Dataset) -> Dataset:
    """Return the SOP Instance Reference (PS3.3 table 10-11) of `source`."""
    item = Dataset()
    item.ReferencedSOPClassUID = text(source, "SOPClassUID")
    item.ReferencedSOPInstanceUID = text(source, "SOPInstanceUID")
    return item


def refer(target: Dataset, sources: Sequence[Dataset]) -> None:
    """Write the Common Instance Reference module (PS3.3 C.12.2): own study, then the others."""
    studies: dict[str, dict[str, list[Dataset]]] = {}
    for source in sources:
        series = studies.setdefault(text(source, "StudyInstanceUID"), {})
        series.setdefault(text(source, "SeriesInstanceUID"), []).append(source)
    own = studies.pop(text(target, "StudyInstanceUID"), {})
    if own:
        target.ReferencedSeriesSequence = _series(own)
    others = []
    for study, series in studies.items():
        item = Dataset()
        item.StudyInstanceUID = study
        item.ReferencedSeriesSequence = _series(series)
        others.append(item)
    if others:
        target.StudiesContainingOtherReferencedInstancesSequence = others


def _series(series: dict[str, list[Dataset]]) -> list[Dataset]:
    items = []
    for uid, members in series.items():
        item = Dataset()
        item.SeriesInstanceUID = uid
        item.ReferencedInstanceSequence = [instance_item(source) for source in members]
        items.append(item)
    return items
