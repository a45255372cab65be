"""What may go out beside the structure set: masks, and the page as PDF or image."""

from collections.abc import Sequence
from pathlib import Path

from pipelines.api import DerivedObject, Provenance, Request
from pipelines.autocontour.settings import AutocontourSettings
from pipelines.dicom.rtstruct_writer import Structure
from pipelines.dicom.seg import Segment, write_segmentation
from pipelines.dicom.volume import CtVolume
from pipelines.geometry.contours import LEVEL
from pipelines.report.objects import page_objects


def further(
    request: Request,
    settings: AutocontourSettings,
    provenance: Provenance,
    volume: CtVolume,
    structures: Sequence[Structure],
    page: Path | None,
) -> list[DerivedObject]:
    """Write the objects that the settings ask for.

    Parameters
    ----------
    request, settings, provenance, volume
        The run; `provenance` names the model that was used.
    structures
        Those in the structure set, on the grid of `volume`.
    page
        The report as PDF; None where none was drawn.
    """
    objects = []
    if settings.segmentation:
        objects.append(
            write_segmentation(
                [_segment(number, s, provenance) for number, s in enumerate(structures, 1)],
                volume.geometry,
                volume.headers[:1],
                provenance,
                request.output / "masks.dcm",
                series_description=f"AUTO masks {provenance.model} UNAPPROVED",
                images=volume.headers,
            )
        )
    pages = page_objects(
        settings, page, volume.headers[:1], provenance, request.output, title="Auto-contours"
    )
    return [*objects, *pages]


def _segment(number: int, structure: Structure, provenance: Provenance) -> Segment:
    return Segment(
        number=number,
        label=structure.name,
        mask=structure.field > LEVEL,
        corner=structure.corner,
        color=structure.color,
        code=structure.code,
        description=structure.description,
        tracking_uid=provenance.uid("SEG tracking", structure.name),
    )
