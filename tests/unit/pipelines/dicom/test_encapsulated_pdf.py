"""Encapsulated PDF: the document byte by byte, the patient of the source, marked as a draft."""

import pytest
from pydicom import dcmread

from pipelines.api import OutputInvalid
from pipelines.dicom.encapsulated_pdf import write_encapsulated_pdf
from tests.unit.pipelines.dicom.test_seg import PROVENANCE, source


@pytest.mark.parametrize("document", [b"%PDF-1.4 even.", b"%PDF-1.4 odd"])
def test_the_document_comes_back_byte_by_byte(tmp_path, document):
    (tmp_path / "page.pdf").write_bytes(document)

    written = write_encapsulated_pdf(
        tmp_path / "page.pdf", [source(), source(SOPInstanceUID="2.25.9")], PROVENANCE,
        tmp_path / "page.dcm", title="Dose radiomics",
    )  # fmt: skip

    ds = dcmread(written.path)
    assert ds.EncapsulatedDocument[: ds.EncapsulatedDocumentLength] == document
    assert len(ds.EncapsulatedDocument) % 2 == 0
    assert ds.MIMETypeOfEncapsulatedDocument == "application/pdf"
    assert (ds.PatientID, ds.BurnedInAnnotation, written.modality) == ("P", "NO", "DOC")
    assert "unapproved draft" in ds.DocumentTitle
    assert ds.VerificationFlag == "UNVERIFIED"
    assert [s.ReferencedSOPInstanceUID for s in ds.SourceInstanceSequence] == ["2.25.1", "2.25.9"]


def test_what_is_no_pdf_is_not_sent(tmp_path):
    (tmp_path / "page.pdf").write_bytes(b"<html>")

    with pytest.raises(OutputInvalid, match="no PDF"):
        write_encapsulated_pdf(
            tmp_path / "page.pdf", [source()], PROVENANCE, tmp_path / "page.dcm", title="x"
        )
