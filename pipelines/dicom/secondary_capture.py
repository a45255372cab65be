"""A report page as Secondary Capture (PS3.3 A.8.1), for viewers that show images and nothing else.

The page itself holds no patient's name; identity is that of the source object. Like everything
that is derived here it is an unverified draft, and the same inputs give the same bytes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from pipelines.api import DerivedObject, OutputInvalid, Provenance
from pipelines.dicom.header import clean_text, derived_object, new_draft, save
from pipelines.dicom.read import read_dataset, tolerant
from pipelines.dicom.references import instance_item

SERIES_NUMBER: Final = 9902
"""Ours; clear of what scanners use."""
_LARGEST: Final = 65_535
"""Rows and Columns are 16 bits."""


def write_secondary_capture(
    page: NDArray[np.uint8],
    sources: Sequence[Dataset],
    provenance: Provenance,
    path: Path,
    *,
    title: str,
) -> DerivedObject:
    """Write the picture of a page as a Secondary Capture at `path` and read it back.

    Parameters
    ----------
    page
        Shape (rows, columns, 3), RGB; it must not identify the patient (Burned In Annotation says
        so).
    sources
        Headers of the objects that the report speaks of; the first gives patient and study.
        One header a series suffices for images.
    provenance
        Gives the UIDs.
    path
        The DICOM file.
    title
        What the page is; words of the pipeline.

    Raises
    ------
    OutputInvalid
        If `page` is no RGB picture, or the file does not give it back pixel by pixel.
    """
    if page.dtype != np.uint8 or page.ndim != 3 or page.shape[2] != 3 or max(page.shape) > _LARGEST:  # noqa: PLR2004 - rows, columns, three colors
        raise OutputInvalid("the page to be sent is no RGB picture")
    pixels = np.ascontiguousarray(page).tobytes()
    with tolerant():
        ds = new_draft(
            SecondaryCaptureImageStorage,
            "SC",
            "OT",
            sources,
            provenance,
            series_number=SERIES_NUMBER,
            description=f"rtnode {provenance.pipeline} report DRAFT",
        )
        ds.ConversionType = "WSD"
        ds.ImageType = ["DERIVED", "SECONDARY"]
        ds.ImageComments = clean_text("LT", f"{title} (unapproved draft, research use)")
        ds.DerivationDescription = clean_text("ST", f"page of a report, {title}")
        ds.PatientOrientation = ""
        ds.Laterality = ""
        ds.BurnedInAnnotation = "NO"
        ds.SourceInstanceSequence = [instance_item(source) for source in sources]
        ds.SamplesPerPixel = 3
        ds.PhotometricInterpretation = "RGB"
        ds.PlanarConfiguration = 0
        ds.Rows, ds.Columns = page.shape[:2]
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
        ds.PixelRepresentation = 0
        ds.add_new("PixelData", "OB", pixels + b"\0" * (len(pixels) % 2))
        save(ds, path)
        written = read_dataset(path)
    if bytes(written.PixelData)[: len(pixels)] != pixels:
        raise OutputInvalid("the Secondary Capture on disk does not hold the page")
    return derived_object(ds, path)
