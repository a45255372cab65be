"""CT in, the same CT with less noise or thinner slices out: read, improve, gate, write, read back.

The frame of reference is kept. A network whose gates fail falls back to the classical method; when
that fails as well, no image leaves, only the report and a BLOCK.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipelines.api import Finding, InputRejected, Json, Outcome, Request, Role, Severity
from pipelines.dicom.ct_series import HIGHEST_HU, LOWEST_HU, SeriesText, write_ct_series
from pipelines.dicom.read import text
from pipelines.dicom.volume import CtVolume, read_volume
from pipelines.image_quality.classical import bounded_change, consistent, diffused, parted
from pipelines.image_quality.gates import Case, gates
from pipelines.image_quality.learned import Learned, open_pack
from pipelines.image_quality.measures import changes
from pipelines.image_quality.report import write_report
from pipelines.image_quality.settings import MOST_PARTS, ImageQualitySettings
from pipelines.imaging.body import Mask, find_regions
from pipelines.imaging.verdict import Gate, Limits, Verdict, overall
from pipelines.report.objects import page_objects

Hu = NDArray[np.float32]

LEAST_SLICES: Final = 3
"""Fewer slices are no volume."""
LEAST_SIDE_PX: Final = 32
"""Fewer rows or columns are no image of a patient."""
LEAST_BODY_CM3: Final = 50.0
FINE_ENOUGH: Final = 1.05
"""Slices up to this multiple of the wanted distance are left alone."""
THICKNESS_OFF: Final = 0.2
"""Relative difference of slice thickness and distance; above, slices are no averages side by
side."""
NUMBER_OFFSET: Final = 8000
COMMENT: Final = "Processed CT, not for diagnosis; validate locally"
SHORT: Final = {"noise_reduction": "NR", "super_resolution": "SR"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The image, and what is wanted of it."""

    ct: CtVolume
    body: Mask
    """Inside the field of view."""
    factor: int
    settings: ImageQualitySettings

    @property
    def hu(self) -> Hu:
        """The image, float32 HU."""
        return np.asarray(self.ct.hu, dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What one method made, judged."""

    method: str
    case: Case
    gates: tuple[Gate, ...]

    @property
    def verdict(self) -> Verdict:
        """Return the worst verdict."""
        return overall(self.gates)


def run(request: Request) -> Outcome:
    """Return a CT series with findings and a report.

    Raises
    ------
    InputRejected
        When the CT cannot give a right result.
    ModelUnavailable
        Where a network is asked for and its pack is missing or changed.
    OutputInvalid
        When the written series does not read back equal.
    """
    settings = request.settings
    if not isinstance(settings, ImageQualitySettings):
        raise TypeError("the image quality pipeline takes ImageQualitySettings")
    ct = read_volume(request.inputs.paths(Role.CT))
    factor = parts_of(ct, settings)
    if factor == 1 and settings.task == "super_resolution":
        return Outcome(objects=(), findings=(*ct.findings, _fine_enough(ct, settings)))
    scene, findings = look(ct, factor, settings)
    learned, opinions = choose_network(scene)
    tried = run_chain(scene, learned)
    final = tried[-1]
    findings = [*findings, *opinions, *_fallbacks(tried), *_results(final)]
    figures = _figures(scene, final)
    sheet = write_report(
        request.output / "report", final.case, final.gates, ct.geometry, figures, findings
    )
    if final.verdict is Verdict.FAIL:
        return Outcome(objects=(), findings=tuple(findings), figures=figures)
    provenance = request.provenance
    if final.method == "network" and learned is not None:
        provenance = replace(provenance, model=learned.pack.label, model_sha256=learned.pack.sha256)
    objects = write_ct_series(
        final.case.after,
        ct,
        _words(scene, final, learned, findings),
        provenance,
        request.output,
        parts=factor,
    )
    pages = page_objects(
        settings, sheet.pdf, ct.headers[:1], provenance, request.output, title="Image quality"
    )
    return Outcome(objects=(*objects, *pages), findings=tuple(findings), figures=figures)


def parts_of(ct: CtVolume, settings: ImageQualitySettings) -> int:
    """Return how many thin slices each slice is parted into; 1 for noise reduction.

    Raises
    ------
    InputRejected
        For too few slices or pixels, uneven spacing, or no frame of reference.
    """
    count, rows, columns = ct.geometry.shape
    if count < LEAST_SLICES or min(rows, columns) < LEAST_SIDE_PX:
        raise InputRejected(
            f"{count} slices of {rows} x {columns} pixels are no image of a patient; "
            f"{LEAST_SLICES} of {LEAST_SIDE_PX} x {LEAST_SIDE_PX} are the least"
        )
    if not ct.geometry.uniform:
        raise InputRejected("the slices are unevenly spaced; no planning system takes them")
    if not ct.frame_of_reference_uid:
        raise InputRejected("the CT states no frame of reference")
    step = ct.geometry.spacing[0]
    if settings.task == "noise_reduction" or step <= FINE_ENOUGH * settings.slice_mm:
        return 1
    return min(MOST_PARTS, ceil(step / (FINE_ENOUGH * settings.slice_mm)))


def look(ct: CtVolume, factor: int, settings: ImageQualitySettings) -> tuple[Scene, list[Finding]]:
    """Return the scene and what there is to say of the input.

    Raises
    ------
    InputRejected
        Where there is no body in it.
    """
    findings = list(ct.findings)
    hu = np.asarray(ct.hu, dtype=np.float32)
    body = find_regions(hu, ct.geometry.spacing, padded=ct.padded).body
    volume = float(body.sum()) * ct.geometry.voxel_ml
    if volume < LEAST_BODY_CM3:
        raise InputRejected(f"there is no body in the CT: {volume:.0f} cm3 of tissue in one piece")
    step = ct.geometry.spacing[0]
    thickness = _thickness(ct)
    if factor > 1 and thickness is not None and abs(thickness / step - 1) > THICKNESS_OFF:
        findings.append(
            Finding(
                code="slices-not-side-by-side",
                severity=Severity.WARN,
                message=f"the slices are {thickness:g} mm thick and {step:g} mm apart; thin slices "
                "suppose that a slice is the average between its neighbors",
                value=round(thickness, 3),
                unit="mm",
                limit=round(step, 3),
            )
        )
    return Scene(ct=ct, body=body, factor=factor, settings=settings), findings


def choose_network(scene: Scene) -> tuple[Learned | None, list[Finding]]:
    """Return the network if it is asked for and may run, and what there is to say.

    Raises
    ------
    ModelUnavailable
        Where its pack is missing or changed.
    """
    settings = scene.settings
    if settings.method != "network":
        return None, []
    learned = open_pack(settings.model_pack, settings.task)
    broken = learned.broken(scene.ct.geometry.spacing, scene.factor)
    if broken:
        return None, [
            Finding(
                code="outside-contract",
                severity=Severity.WARN,
                message=f"the network was not run: {broken}",
            )
        ]
    return learned, [
        Finding(
            code="network-not-validated",
            severity=Severity.WARN,
            message=f"{learned.pack.label} ran; it was not validated at this site",
        )
    ]


def run_chain(scene: Scene, learned: Learned | None) -> tuple[Candidate, ...]:
    """Return the candidates in the order they were tried; the last one counts."""
    tried: list[Candidate] = []
    if learned is not None:
        tried.append(judged(scene, learned.apply(scene.hu), "network", limits_of(learned)))
    if not tried or tried[-1].verdict is Verdict.FAIL:
        made = (
            diffused(scene.hu, scene.ct.geometry)
            if scene.factor == 1
            else parted(scene.hu, scene.factor)
        )
        tried.append(judged(scene, made, "classical", {}))
    return tuple(tried)


def judged(scene: Scene, made: Hu, method: str, limits: Mapping[str, Limits]) -> Candidate:
    """Return what a method made, bounded and gated."""
    after = finish(scene, made)
    return judge_image(scene, after, method, limits)


def finish(scene: Scene, made: Hu) -> Hu:
    """Return `made` within the bounds of the settings; what the scanner did not see is kept."""
    settings, hu = scene.settings, scene.hu
    if scene.factor > 1:
        return consistent(made, hu, scene.factor, most_hu=settings.max_change_hu)
    after = bounded_change(hu, made, most_hu=settings.max_change_hu, strength=settings.strength)
    if scene.ct.padded is not None:
        after = np.where(scene.ct.padded, hu, after)
    return np.clip(after, LOWEST_HU, HIGHEST_HU)


def judge_image(scene: Scene, after: Hu, method: str, limits: Mapping[str, Limits]) -> Candidate:
    """Return the candidate that shows `after`, whatever it is."""
    hu = scene.hu
    before = hu if scene.factor == 1 else parted(hu, scene.factor, cubic=False)
    body = np.repeat(scene.body, scene.factor, axis=0)
    most = scene.settings.max_change_hu
    step, *pixel = scene.ct.geometry.spacing
    case = Case(
        source=hu,
        before=before,
        after=np.rint(after).astype(np.float32),
        body=body,
        factor=scene.factor,
        most_hu=most,
        change=changes(before, after, body, (step / scene.factor, pixel[0], pixel[1])),
        limits={"largest-change": Limits(passes=most + 0.6, fails=most + 1.0), **limits},
    )
    return Candidate(method=method, case=case, gates=gates(case))


def limits_of(learned: Learned) -> Mapping[str, Limits]:
    """Return the limits that the pack states."""
    stated = learned.pack.manifest.gates
    return {name: Limits(passes=p, fails=f) for name, (p, f) in stated.items()}


def _thickness(ct: CtVolume) -> float | None:
    try:
        return float(text(ct.headers[0], "SliceThickness"))
    except ValueError:
        return None


def _fine_enough(ct: CtVolume, settings: ImageQualitySettings) -> Finding:
    return Finding(
        code="slices-fine-enough",
        severity=Severity.INFO,
        message="the slices are as close as is wanted; nothing was made",
        value=round(ct.geometry.spacing[0], 3),
        unit="mm",
        limit=settings.slice_mm,
    )


def _fallbacks(tried: Sequence[Candidate]) -> list[Finding]:
    return [
        Finding(
            code="method-fell-back",
            severity=Severity.WARN,
            message=f"{failed.method} failed its gates ({_failed(failed)}); classical was tried",
        )
        for failed in tried[:-1]
    ]


def _failed(candidate: Candidate) -> str:
    return ", ".join(
        f"{g.name} {g.value:.2f}" for g in candidate.gates if g.verdict is Verdict.FAIL
    )


def _results(final: Candidate) -> list[Finding]:
    findings = [
        Finding(
            code=g.name,
            severity=Severity.INFO if g.verdict is Verdict.PASS else Severity.WARN,
            message="gate passed" if g.verdict is Verdict.PASS else f"{g.verdict}: {g.meaning}",
            value=round(g.value, 4) if np.isfinite(g.value) else None,
            unit=g.unit or None,
            limit=g.limits.passes,
        )
        for g in final.gates
    ]
    if final.verdict is Verdict.FAIL:
        findings.append(
            Finding(
                code="no-plausible-image",
                severity=Severity.BLOCK,
                message=f"no method gave a plausible image ({_failed(final)}); "
                "only the report was written",
            )
        )
    return findings


def _figures(scene: Scene, final: Candidate) -> Mapping[str, Json]:
    case = final.case
    figures: dict[str, Json] = {
        "task": scene.settings.task,
        "method": final.method,
        "verdict": str(final.verdict),
        "slices": case.after.shape[0],
        "slice_mm": round(scene.ct.geometry.spacing[0] / scene.factor, 4),
        "mean_change_hu": round(float(np.abs(case.after - case.before)[case.body].mean()), 2),
        "tissue_change_hu": {name: round(v, 2) for name, v in case.change.tissues.items()},
        "gates": {
            g.name: {"value": round(g.value, 4), "verdict": str(g.verdict)} for g in final.gates
        },
    }
    if case.change.texture is not None:
        figures["noise_power"] = {
            name: {
                "sd_hu": round(found.variance**0.5, 2),
                "mean_frequency_per_mm": round(found.mean_frequency, 4),
            }
            for name, found in (
                ("before", case.change.texture.before),
                ("after", case.change.texture.after),
            )
        }
    if case.change.profile is not None:
        widths = case.change.profile.widths
        figures["edge_width_px"] = {
            "before": round(widths[0], 2),
            "after": round(widths[1], 2),
        }
    return figures


def _words(
    scene: Scene, final: Candidate, learned: Learned | None, findings: Sequence[Finding]
) -> SeriesText:
    settings, factor = scene.settings, scene.factor
    flagged = any(f.severity is Severity.WARN for f in findings)
    by = learned.pack.label if final.method == "network" and learned is not None else "classical"
    what = SHORT[settings.task] + (f" x{factor}" if factor > 1 else "")
    told = (
        "Noise reduction of CT, strength " + f"{settings.strength:g}"
        if factor == 1
        else f"CT slices parted into {factor} thin slices each, which average to the source slice"
    )
    if final.method == "network" and learned is not None:
        told += f", model {by} sha256 {learned.pack.sha256}"
    else:
        told += ", anisotropic diffusion" if factor == 1 else ", cubic spline"
    return SeriesText(
        description=f"{what} {by} {Verdict.WARN if flagged else Verdict.PASS} UNAPPROVED",
        derivation=f"{told}; no voxel changed by more than {settings.max_change_hu:g} HU"
        + ("" if factor == 1 else " from a straight line between slices"),
        hu_curve_source=scene.ct.headers[0],
        comment=COMMENT,
        synthetic=factor > 1 or final.method == "network",
        number_offset=NUMBER_OFFSET,
        stem=SHORT[settings.task],
    )
