"""A measurement report as a file: identity, equipment, content, and a look at what was written."""

from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from pipelines.api import DerivedObject, OutputInvalid, Provenance
from pipelines.dicom.header import (
    content_datetime,
    copy_identity,
    derived_object,
    new_file,
    save,
    stamp,
)
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
    target = new_file(sop_class_uid(content), provenance.uid("SR"), "SR")
    copy_identity(sources[0], target)
    target.SeriesInstanceUID = provenance.uid("SR series")
    target.SeriesNumber = series_number
    target.SeriesDescription = description
    stamp(target, provenance)
    moment = content_datetime(sources)
    target.SeriesDate, target.SeriesTime = moment
    target.InstanceCreationDate, target.InstanceCreationTime = moment
    fill(target, content, moment)
    save(target, path)
    wanted = [
        (g.tracking_uid, str(g.roi_number), tuple(m.value for m in g.measurements))
        for g in content.groups
    ]
    if list(read_back(dcmread(path))) != wanted:
        raise OutputInvalid("the SR on disk does not hold the values that were computed")
    return derived_object(target, path)
