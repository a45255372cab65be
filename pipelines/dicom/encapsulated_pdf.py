"""A report page as Encapsulated PDF (PS3.3 A.45.1), for systems that show neither SR nor RT.

The page itself holds no patient's name; identity is that of the source object. Like everything
that is derived here it is an unverified draft, and the same inputs give the same bytes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import EncapsulatedPDFStorage

from pipelines.api import DerivedObject, OutputInvalid, Provenance
from pipelines.dicom.header import clean_text, derived_object, new_draft, save
from pipelines.dicom.read import read_dataset, tolerant
from pipelines.dicom.references import instance_item

SERIES_NUMBER: Final = 9901
"""Ours; clear of what scanners use."""
MIME_TYPE: Final = "application/pdf"
_MAGIC: Final = b"%PDF-"


def write_encapsulated_pdf(
    pdf: Path,
    sources: Sequence[Dataset],
    provenance: Provenance,
    path: Path,
    *,
    title: str,
    series_number: int = SERIES_NUMBER,
) -> DerivedObject:
    """Wrap the file `pdf` into an Encapsulated PDF at `path` and read it back.

    Parameters
    ----------
    pdf
        The document; it must not identify the patient (Burned In Annotation says so).
    sources
        Headers of the objects that the report speaks of; the first gives patient and study.
        One header a series suffices for images.
    provenance
        Gives the UIDs.
    path
        The DICOM file.
    title
        Document Title; words of the pipeline.
    series_number
        Series Number.

    Raises
    ------
    OutputInvalid
        If `pdf` is no PDF, or the file does not give it back byte by byte.
    """
    document = pdf.read_bytes()
    if not document.startswith(_MAGIC):
        raise OutputInvalid("the report to be sent is no PDF")
    with tolerant():
        ds = new_draft(
            EncapsulatedPDFStorage,
            "PDF",
            "DOC",
            sources,
            provenance,
            series_number=series_number,
            description=f"rtnode {provenance.pipeline} report DRAFT",
        )
        ds.ConversionType = "WSD"
        ds.AcquisitionDateTime = ""
        ds.BurnedInAnnotation = "NO"
        ds.DocumentTitle = clean_text("ST", f"{title} (unapproved draft, research use)")
        ds.ConceptNameCodeSequence = []
        ds.VerificationFlag = "UNVERIFIED"
        ds.SourceInstanceSequence = [instance_item(source) for source in sources]
        ds.MIMETypeOfEncapsulatedDocument = MIME_TYPE
        ds.EncapsulatedDocumentLength = len(document)
        padded = document + b"\0" * (len(document) % 2)
        ds.add(DataElement(Tag("EncapsulatedDocument"), "OB", padded))
        save(ds, path)
        written = read_dataset(path)
    if bytes(written.EncapsulatedDocument)[: len(document)] != document:
        raise OutputInvalid("the Encapsulated PDF on disk does not hold the report")
    return derived_object(ds, path)
