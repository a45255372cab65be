"""The report page as DICOM objects: what a route asked for, PDF or image."""

from collections.abc import Sequence
from pathlib import Path

from pydicom.dataset import Dataset

from pipelines.api import DerivedObject, Provenance
from pipelines.dicom.encapsulated_pdf import write_encapsulated_pdf
from pipelines.dicom.secondary_capture import write_secondary_capture
from pipelines.report.pixels import rgb_pixels
from pipelines.report.settings import PageSettings


def page_objects(
    settings: PageSettings,
    page: Path | None,
    sources: Sequence[Dataset],
    provenance: Provenance,
    folder: Path,
    *,
    title: str,
) -> list[DerivedObject]:
    """Write the page as the objects that the settings ask for.

    Parameters
    ----------
    page
        The report as PDF, its first sheet as PNG beside it; None where none was drawn.
    sources
        Headers of the objects that the report speaks of.
    folder
        Where the objects go.
    title
        Words of the pipeline.

    Raises
    ------
    OutputInvalid
        If an object does not give the page back.
    """
    if page is None:
        return []
    objects = []
    if settings.report_pdf:
        objects.append(
            write_encapsulated_pdf(page, sources, provenance, folder / "report.dcm", title=title)
        )
    if settings.report_image:
        pixels = rgb_pixels(page.with_suffix(".png"))
        path = folder / "report-image.dcm"
        objects.append(write_secondary_capture(pixels, sources, provenance, path, title=title))
    return objects
