"""A measurement report as a file: identity, equipment, content, and a look at what was written."""

from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from pipelines.api import DerivedObject, OutputInvalid, Provenance
from pipelines.dicom.header import derived_object, new_draft, save
from pipelines.dicom.sr import Report, fill, read_back, sop_class_uid


def write_sr(
    path: Path,
    content: Report,
    provenance: Provenance,
    sources: Sequence[Dataset],
    *,
    series_number: int,
    description: str,
) -> DerivedObject:
    """Write a report, compare the file with it value by value, and return its record.

    Parameters
    ----------
    sources
        Headers of what was measured; patient and study are copied from the first, the newest date
        of all becomes that of the content ("same inputs, same bytes").

    Raises
    ------
    OutputInvalid
        The file does not hold the values that were computed.
    """
    target = new_draft(
        sop_class_uid(content),
        "SR",
        "SR",
        sources,
        provenance,
        series_number=series_number,
        description=description,
    )
    fill(target, content, (target.ContentDate, target.ContentTime))
    save(target, path)
    wanted = [
        (g.tracking_uid, str(g.roi_number), tuple(m.value for m in g.measurements))
        for g in content.groups
    ]
    if list(read_back(dcmread(path))) != wanted:
        raise OutputInvalid("the SR on disk does not hold the values that were computed")
    return derived_object(target, path)
