"""CBCT in, synthetic CT series out: read, place the planning CT, correct, gate, write, read back.

The grid and the frame of reference of the CBCT are kept; only values change. A failed gate falls
back to a simpler method; when that fails as well, no image leaves, only the report and a BLOCK.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import cast

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy import ndimage

from pipelines.api import Finding, Json, Outcome, Request, Severity
from pipelines.dicom.ct_series import SeriesText, write_ct_series
from pipelines.dicom.read import text
from pipelines.synthetic_ct.inputs import Read, read_inputs
from pipelines.synthetic_ct.methods import Candidate, Scene, order, run_chain
from pipelines.synthetic_ct.qa import LOWEST_HU, Gate, Verdict
from pipelines.synthetic_ct.report import write_report
from pipelines.synthetic_ct.settings import SyntheticCTSettings

COUCH_MARGIN_MM = 4.0
"""Skin that stays when what surrounds the body is removed."""


def run(request: Request) -> Outcome:
    """Return a CT series on the CBCT's grid, with findings and a report.

    Raises
    ------
    InputRejected
        When the CBCT cannot give a right result.
    OutputInvalid
        When the written series does not read back equal.
    """
    settings = request.settings
    if not isinstance(settings, SyntheticCTSettings):
        raise TypeError("the synthetic CT pipeline takes SyntheticCTSettings")
    read = read_inputs(request.inputs)
    scene = Scene(cbct=read.hu, regions=read.regions, geometry=read.cbct.geometry, prior=read.prior)
    tried = run_chain(scene, order(settings.method, has_prior=read.prior is not None))
    final = tried[-1]
    findings = [*read.findings, *_fallbacks(settings, read, tried), *_results(final)]
    hu = finish(final.hu, scene, settings)
    figures = _figures(scene, final, hu)
    write_report(request.output / "report", scene, final, hu, figures, findings)
    if final.verdict is Verdict.FAIL:
        return Outcome(objects=(), findings=tuple(findings), figures=figures)
    flagged = any(f.severity is Severity.WARN for f in findings)
    words = SeriesText(
        description=f"{settings.description_prefix} {final.method} "
        f"{Verdict.WARN if flagged else Verdict.PASS} UNAPPROVED",
        derivation=_derivation(final, read, settings),
        hu_curve_source=_curve_source(settings, read),
    )
    objects = write_ct_series(hu, read.cbct, words, request.provenance, request.output)
    return Outcome(objects=objects, findings=tuple(findings), figures=figures)


def finish(
    hu: NDArray[np.float32], scene: Scene, settings: SyntheticCTSettings
) -> NDArray[np.float32]:
    """Return `hu` with the policies for couch and field of view applied.

    The rim of the field of view (3 mm) is artefact: it is filled like what lies beyond it.
    """
    fill = np.full(hu.shape, LOWEST_HU, dtype=np.float32)
    if settings.couch == "remove":
        reach = [0, *(max(1, round(COUCH_MARGIN_MM / s)) for s in scene.geometry.spacing[1:])]
        box = np.ones([2 * n + 1 for n in reach], dtype=np.bool_)
        hu = np.where(ndimage.binary_dilation(scene.body, box), hu, fill)
    if settings.outside_fov == "prior" and scene.prior is not None:
        fill = np.where(scene.prior.covered, scene.prior.hu, fill)
    return np.asarray(np.where(scene.regions.fov, hu, fill), dtype=np.float32)


def _fallbacks(
    settings: SyntheticCTSettings, read: Read, tried: tuple[Candidate, ...]
) -> list[Finding]:
    """Return a WARN for each method that was asked for or tried, and not taken."""
    findings = [
        Finding(
            code="method-fell-back",
            severity=Severity.WARN,
            message=f"{failed.method} failed its gates ({_failed(failed)}); "
            f"{following.method} was tried",
        )
        for failed, following in pairwise(tried)
    ]
    if read.prior is None and settings.method in ("hybrid", "histmatch"):
        findings.insert(
            0,
            Finding(
                code="method-fell-back",
                severity=Severity.WARN,
                message=f"{settings.method} needs the planning CT in place; lut was used",
            ),
        )
    return findings


def _failed(candidate: Candidate) -> str:
    return ", ".join(
        f"{g.name} {g.value:.2f}" for g in candidate.gates if g.verdict is Verdict.FAIL
    )


def _results(final: Candidate) -> list[Finding]:
    """Return what the taken method has to say, its gates included."""
    findings = [*final.notes, *(_gate_finding(g) for g in final.gates)]
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


def _gate_finding(gate: Gate) -> Finding:
    return Finding(
        code=gate.name,
        severity=Severity.INFO if gate.verdict is Verdict.PASS else Severity.WARN,
        message=f"{gate.verdict}: {gate.meaning}"
        if gate.verdict is not Verdict.PASS
        else "gate passed",
        value=gate.value if np.isfinite(gate.value) else None,
        unit=gate.unit or None,
        limit=gate.limits.passes,
    )


def _figures(scene: Scene, final: Candidate, hu: NDArray[np.float32]) -> Mapping[str, Json]:
    change = np.abs(hu - scene.cbct)[scene.body]
    figures: dict[str, Json] = {
        "method": str(final.method),
        "verdict": str(final.verdict),
        "slices": scene.geometry.shape[0],
        "body_cm3": round(float(scene.body.sum()) * scene.geometry.voxel_ml, 1),
        "fov_truncation_cm3": round(scene.regions.truncated_cm3, 1),
        "mean_change_hu": round(float(change.mean()), 1),
        "gates": {
            g.name: {
                "value": round(g.value, 4) if np.isfinite(g.value) else None,
                "verdict": str(g.verdict),
            }
            for g in final.gates
        },
    }
    if scene.prior is not None:
        figures["planning_ct"] = {
            "placed_by": str(scene.prior.source),
            "body_dice": round(scene.prior.body_dice, 3),
            "gradient_correlation": round(scene.prior.gradient_correlation, 3),
            "coverage": round(scene.prior.coverage, 3),
        }
    return figures


def _derivation(final: Candidate, read: Read, settings: SyntheticCTSettings) -> str:
    words = f"Synthetic CT from cone-beam CT, method {final.method}"
    if read.prior is not None and read.planning is not None and final.method != "lut":
        series = text(read.planning.headers[0], "SeriesInstanceUID")
        words += f", planning CT series {series} placed by {read.prior.source}"
    filled = "planning CT" if settings.outside_fov == "prior" and read.prior else "air"
    return f"{words}; outside the field of view: {filled}; couch: {settings.couch}"


def _curve_source(settings: SyntheticCTSettings, read: Read) -> Dataset | None:
    if settings.hu_curve_of == "cbct":
        return cast("Dataset", read.cbct.headers[0])
    if settings.hu_curve_of == "planning_ct" and read.planning is not None:
        return cast("Dataset", read.planning.headers[0])
    return None
