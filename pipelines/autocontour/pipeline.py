"""CT in, RT Structure Set out: find, check, write, read back, report.

Classical methods without weights, and the organs of a model pack where the route names one. Each
structure stands for itself, so one that is not found or not plausible is left out with its reason
and the others are delivered.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.organs import Network
from models.pack import Manifest
from pipelines.api import Finding, InputRejected, Json, Outcome, Request, Role, Severity
from pipelines.autocontour.air import find_air
from pipelines.autocontour.anatomy import shape_of, unusual, usual
from pipelines.autocontour.assemble import assemble
from pipelines.autocontour.body import body_surface, find_body
from pipelines.autocontour.bones import find_bones, find_hard
from pipelines.autocontour.canal import canal_surface, find_canal
from pipelines.autocontour.checks import Verdict, check, check_pair, with_evidence
from pipelines.autocontour.compare import compare
from pipelines.autocontour.evidence import Scene
from pipelines.autocontour.gate import check_contrast, check_headers, check_values
from pipelines.autocontour.learned import find_organs, implausible, installed, tolerated
from pipelines.autocontour.limits import beyond
from pipelines.autocontour.lungs import find_lungs
from pipelines.autocontour.morphology import bounding_box
from pipelines.autocontour.names import LEARNED, TABLE, Organ
from pipelines.autocontour.outline import doubts
from pipelines.autocontour.outputs import further
from pipelines.autocontour.pages import write_pages
from pipelines.autocontour.settings import AutocontourSettings
from pipelines.autocontour.template import structures_of
from pipelines.dicom.rtstruct_check import RoundTrip, check_structure_set
from pipelines.dicom.rtstruct_writer import WriterProfile, Written, write_structure_set
from pipelines.dicom.volume import CtVolume, read_volume
from pipelines.geometry.contours import LEVEL
from pipelines.imaging.grid import Mask, Values, WorkImage, work_image
from pipelines.imaging.region import NAMES, check_region, regions

LEAST_AGREEMENT: Final = 0.7
"""Dice of two trainings with each other below which a person is told; it predicts no accuracy."""
BODY_MARGIN: Final = 2
"""Work voxels around the body that are kept, so that only a cut body touches the border."""
FILE_NAME: Final = "rtstruct.dcm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Surfaces on the work grid, and what is to be said about those that are missing."""

    image: WorkImage
    """The work image around the body."""
    body: Mask
    """Shape of `image`."""
    surfaces: dict[Organ, Values]
    """Shape of `image`; the surface is at 0.5."""
    findings: tuple[Finding, ...]
    volumes_ml: dict[Organ, tuple[float, float]] = field(default_factory=dict)
    """Plausible volumes of the learned organs, from their pack."""
    agreement: dict[str, float] = field(default_factory=dict)
    """Learned organ -> lowest Dice of two trainings with each other."""
    region: str = ""
    """Of the body that the pack is for; empty without one."""


def run(request: Request) -> Outcome:
    """Contour the CT of `request` and write one RT Structure Set and a report.

    Raises
    ------
    InputRejected
        Where the input is no CT volume that can be contoured, or shows no body.
    ModelUnavailable
        Where the model pack is missing, changed, or does not run here.
    OutputInvalid
        Where the file that was written does not mean what was found.
    """
    settings = AutocontourSettings.model_validate(request.settings.model_dump())
    volume = read_volume(request.inputs.paths(Role.CT))
    check_headers(volume)
    image = work_image(volume.hu, volume.geometry, settings.work_grid_mm)
    check_contrast(image)
    body = find_body(image)
    check_values(image, body, volume)
    provenance = request.provenance
    pack, networks = (None, ()) if settings.model_pack == "none" else installed(settings.model_pack)
    learned = () if pack is None else [o.name for o in pack.manifest.outputs]
    entries = settings.entries(learned)
    wanted = {Organ(name) for name in structures_of(entries)}
    found = find_all(image, sorted(wanted - LEARNED, key=list(Organ).index), body)
    if pack is not None:
        found = with_learned(found, pack.manifest, networks, wanted, volume.hu)
        provenance = dataclasses.replace(
            provenance, model=f"classical + {pack.label}", model_sha256=pack.sha256
        )
    verdicts = judged(found, _seen(volume, found.image), doubts(image, body))
    pixel_mm = min(volume.geometry.pixel_spacing)
    made = assemble(entries, found.surfaces, verdicts, found.image, pixel_mm)
    asked = {entry.structure for entry in entries}
    told = [v for organ, v in verdicts.items() if organ in asked or not v.write]
    findings = [*found.findings, *(f for v in told for f in v.findings), *made.findings]
    if not made.structures:
        raise InputRejected("no structure was found in the image: " + _reasons(findings))
    path = request.output / FILE_NAME
    written = write_structure_set(
        made.structures,
        volume.headers,
        volume.geometry,
        provenance,
        path,
        WriterProfile(
            holes=settings.holes,
            max_points=settings.max_points,
            label=settings.label,
            series_description=f"AUTO {provenance.model} UNAPPROVED",
        ),
    )
    kept = [s for s in made.structures if s.name in written.contours]
    trips = check_structure_set(path, kept, volume.headers, volume.geometry)
    findings = [*volume.findings, *findings, *_dropped(written)]
    figures = _figures(written, trips)
    if found.agreement:
        figures["agreement_dice"] = {n: round(d, 4) for n, d in found.agreement.items()}
    folder = request.output / "report"
    compared = compare(request.inputs.paths(Role.RTSTRUCT), kept, volume, folder)
    findings += compared.findings
    if compared.figures is not None:
        figures["comparison"] = dict(compared.figures)
    sections = [compared.section] if compared.section is not None else []
    sheet = write_pages(folder, volume, found.image, made, figures, findings, sections)
    more = further(request, settings, provenance, volume, kept, sheet.pdf)
    return Outcome(objects=(written.object, *more), findings=tuple(findings), figures=figures)


def find_all(image: WorkImage, wanted: Sequence[Organ], body: Mask | None = None) -> Found:
    """Find the structures `wanted` on the work grid; `body` where it was found before.

    Raises
    ------
    InputRejected
        Where there is no body.
    """
    body = find_body(image) if body is None else body
    if not body.any():
        raise InputRejected("there is no body in the image: nothing large is denser than air")
    box = bounding_box(body, BODY_MARGIN)
    image, body = image.cropped(box), body[box]
    surfaces: dict[Organ, Values] = {}
    findings: list[Finding] = []
    if Organ.EXTERNAL in wanted:
        surfaces[Organ.EXTERNAL] = body_surface(image, body)
    if {Organ.LUNG_L, Organ.LUNG_R, Organ.LUNGS, Organ.AIR} & set(wanted):
        _find_lungs(image, body, surfaces, findings)
    if Organ.AIR in wanted:
        air = find_air(image, body, surfaces.get(Organ.LUNGS))
        if air is None:
            findings.append(_missing(Organ.AIR, "there is no air in the body beside the lungs"))
        else:
            surfaces[Organ.AIR] = air
    if {Organ.BONES, Organ.SPINAL_CANAL} & set(wanted):
        _find_skeleton(image, body, surfaces, findings)
    return Found(
        image=image,
        body=body,
        surfaces={organ: surfaces[organ] for organ in TABLE if organ in wanted & surfaces.keys()},
        findings=tuple(f for f in findings if f.roi in wanted),
    )


def with_learned(
    found: Found,
    manifest: Manifest,
    networks: Sequence[Network],
    wanted: Collection[Organ],
    values: NDArray[Any] | None = None,
) -> Found:
    """Add the organs that a network finds, unless they say that the image is of another region.

    All of them are computed and judged together; those that are `wanted` are kept. `values` are
    those of the whole CT, for networks whose window each image sets.
    """
    image = found.image
    doubt = None
    if manifest.body_region in NAMES:
        doubt = check_region(manifest, regions(image, found.body))
    if doubt is not None:
        found = dataclasses.replace(found, findings=(*found.findings, doubt))
        if doubt.severity is Severity.BLOCK:
            return found
    organs = find_organs(
        image.hu, found.body, image.spacing, image.directions, networks, manifest, values
    )
    fields = organs.fields
    odd = implausible(fields, image.voxel_ml, manifest) if manifest.body_region in NAMES else ()
    told = {o.name for o in manifest.outputs}
    if odd and 2 * len(odd) >= len(told):
        finding = Finding(
            code="model-not-for-this-image",
            severity=Severity.WARN,
            message=f"the organs of {manifest.id} were left out: {len(odd)} of "
            f"{len(manifest.outputs)} are missing or of no plausible size, so this is hardly a "
            f"{manifest.body_region} scan",
            value=float(len(odd)),
        )
        return dataclasses.replace(found, findings=(*found.findings, finding))
    missing = [
        _missing(
            organ, "the network did not find it" if organ in told else "no model here finds it"
        )
        for organ in sorted(LEARNED.intersection(wanted), key=list(Organ).index)
        if organ not in fields
    ]
    learned = {Organ(name): field for name, field in fields.items() if name in wanted}
    return dataclasses.replace(
        found,
        surfaces=found.surfaces | learned,
        findings=(*found.findings, *missing, *_disagreement(organs.agreement, wanted)),
        agreement=organs.agreement,
        region=manifest.body_region,
        volumes_ml={Organ(o.name): tolerated(o) for o in manifest.outputs},
    )


def _disagreement(agreement: Mapping[str, float], wanted: Collection[str]) -> list[Finding]:
    """Return a finding for each organ about which the trainings of a network differ."""
    return [
        Finding(
            code="models-disagree",
            severity=Severity.WARN,
            message=f"{name}: two trainings of the network agree by a Dice of {dice:.2f} only",
            roi=name,
            value=round(dice, 3),
            limit=LEAST_AGREEMENT,
        )
        for name, dice in agreement.items()
        if name in wanted and dice < LEAST_AGREEMENT
    ]


def _find_lungs(
    image: WorkImage, body: Mask, surfaces: dict[Organ, Values], findings: list[Finding]
) -> None:
    lungs = find_lungs(image, body)
    if lungs is None:
        findings += [
            _missing(o, "there is no lung") for o in (Organ.LUNG_L, Organ.LUNG_R, Organ.LUNGS)
        ]
        return
    surfaces[Organ.LUNGS] = lungs.both
    if lungs.left is None or lungs.right is None:
        findings += [_missing(organ, lungs.reason) for organ in (Organ.LUNG_L, Organ.LUNG_R)]
        return
    surfaces[Organ.LUNG_L], surfaces[Organ.LUNG_R] = lungs.left, lungs.right
    findings += check_pair(lungs.left, lungs.right, image)


def _find_skeleton(
    image: WorkImage, body: Mask, surfaces: dict[Organ, Values], findings: list[Finding]
) -> None:
    hard = find_hard(image, body)
    canal = find_canal(image, body, hard)
    if canal.mask is None:
        findings.append(_missing(Organ.SPINAL_CANAL, canal.reason))
    else:
        surfaces[Organ.SPINAL_CANAL] = canal_surface(image, canal.mask)
    if hard.any():
        surfaces[Organ.BONES] = find_bones(image, body, canal.mask)
    else:
        findings.append(_missing(Organ.BONES, "there is no bone in the image"))


def _missing(organ: Organ, reason: str) -> Finding:
    return Finding(
        code="roi-not-found",
        severity=Severity.WARN,
        message=f"{organ} was left out: {reason}",
        roi=organ.value,
    )


def _seen(volume: CtVolume, image: WorkImage) -> Mask:
    """Return the work voxels inside the field of view that the scanner states."""
    if volume.padded is None:
        return np.ones(image.hu.shape, np.bool_)
    at = np.ix_(*(np.rint(c).astype(np.intp) for c in image.centers))
    return np.asarray(~volume.padded[at])


def judged(found: Found, seen: Mask, of_outline: tuple[Finding, ...] = ()) -> dict[Organ, Verdict]:
    """Return the verdict on everything that was found; `of_outline` goes with the outline."""
    scene = Scene(image=found.image, body=found.body)
    masks = {organ: surface >= LEVEL for organ, surface in found.surfaces.items()}
    verdicts = {
        organ: with_evidence(
            check(organ, surface, found.image, seen, found.volumes_ml.get(organ)),
            beyond(organ, masks[organ], scene),
        )
        for organ, surface in found.surfaces.items()
    }
    known = usual().get(found.region)
    if known is not None:
        shapes = {
            organ.value: shape_of(organ, mask, found.image)
            for organ, mask in masks.items()
            if organ in known.ranges and mask.any()
        }
        verdicts |= {
            Organ(name): with_evidence(
                verdicts[Organ(name)],
                unusual(name, shapes, known, cut=verdicts[Organ(name)].cut),
            )
            for name in shapes
        }
    if Organ.EXTERNAL in verdicts:
        verdicts[Organ.EXTERNAL] = with_evidence(verdicts[Organ.EXTERNAL], of_outline)
    return verdicts


def _reasons(findings: Sequence[Finding]) -> str:
    return "; ".join(dict.fromkeys(finding.message for finding in findings))


def _dropped(written: Written) -> list[Finding]:
    """Return a finding for each structure of which nothing, or not everything, was written."""
    empty = [
        Finding(code="roi-empty", severity=Severity.WARN,
                message=f"{name} was left out: it has no contour", roi=name)
        for name in written.empty
    ]  # fmt: skip
    return empty + [
        Finding(code="contours-too-small", severity=Severity.INFO,
                message=f"{count} contours of {name} vanish at 0.01 mm", roi=name, value=count)
        for name, count in written.dropped.items()
    ]  # fmt: skip


def _figures(written: Written, trips: Sequence[RoundTrip]) -> dict[str, Json]:
    rois: dict[str, Json] = {
        trip.name: {
            "volume_cc": round(trip.volume_ml, 2),
            "contours": written.contours[trip.name],
            "round_trip_dice": round(trip.dice, 5),
        }
        for trip in trips
    }
    return {
        "rois": rois,
        "points": written.points,
        "file_bytes": written.object.path.stat().st_size,
    }
