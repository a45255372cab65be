"""CBCT in, synthetic CT series out: read, place the planning CT, correct, gate, write, read back.

The grid and the frame of reference of the CBCT are kept; only values change. A failed gate falls
back to a simpler method; when that fails as well, no image leaves, only the report and a BLOCK.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import cast

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy import ndimage

from pipelines.api import Finding, Json, Outcome, Request, Severity
from pipelines.dicom.ct_series import COMMENT, KEPT_COMMENT, SeriesText, write_ct_series
from pipelines.dicom.read import text
from pipelines.imaging.nps import Texture, texture
from pipelines.imaging.verdict import Gate, Verdict
from pipelines.report.objects import page_objects
from pipelines.synthetic_ct.contour_outputs import planning_contours, write_contours
from pipelines.synthetic_ct.inputs import Read, read_inputs
from pipelines.synthetic_ct.learned import Learned, open_pack
from pipelines.synthetic_ct.methods import Candidate, Method, Scene, order, run_chain
from pipelines.synthetic_ct.qa import LOWEST_HU
from pipelines.synthetic_ct.report import write_report
from pipelines.synthetic_ct.settings import SyntheticCTSettings
from pipelines.synthetic_ct.validation import ReportRefused, read_report

MOST_GRAIN = 2.0
"""Noise variance of the synthetic CT over that of the CBCT. A CBCT that reads too low is stretched
by its correction, and its noise with it; beyond this, texture is made up."""
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
    learned, opinions = choose_network(settings, read)
    scene = Scene(
        cbct=read.hu,
        regions=read.regions,
        geometry=read.cbct.geometry,
        prior=read.prior,
        learned=learned,
    )
    methods = order(
        settings.method, has_prior=read.prior is not None, has_network=learned is not None
    )
    ruled = ct_grade(settings, read)
    if ruled:
        methods = (Method.PASSTHROUGH, *methods)
    tried = run_chain(scene, methods)
    final = tried[-1]
    passed = final.method is Method.PASSTHROUGH
    grain = texture(scene.cbct, final.hu, scene.body, read.cbct.geometry.pixel_spacing)
    findings = [
        *read.findings,
        *(() if passed else opinions),
        *ruled,
        *_fallbacks(settings, read, tried),
        *_results(final),
        *_grain(grain),
    ]
    hu = final.hu if passed else finish(final.hu, scene, settings)
    flagged = any(f.severity is Severity.WARN for f in findings)
    figures = dict(_figures(scene, final, hu, grain))
    contours = None
    if final.verdict is not Verdict.FAIL:
        contours = planning_contours(settings, request.inputs, read, scene, hu)
    if contours is not None:
        findings += contours.findings
        figures["contours"] = dict(contours.figures)
    sheet = write_report(
        request.output / "report", scene, final, hu, figures, findings, contours, grain
    )
    if final.verdict is Verdict.FAIL:
        return Outcome(objects=(), findings=tuple(findings), figures=figures)
    words = SeriesText(
        description=f"{settings.description_prefix} {final.method} "
        f"{Verdict.WARN if flagged else Verdict.PASS} UNAPPROVED",
        derivation=_derivation(final, read, settings, learned),
        hu_curve_source=_curve_source(settings, read),
        synthetic=not passed,
        comment=KEPT_COMMENT if passed else COMMENT,
    )
    provenance = request.provenance
    if final.method is Method.NETWORK and learned is not None:
        provenance = replace(provenance, model=learned.pack.label, model_sha256=learned.pack.sha256)
    objects = write_ct_series(hu, read.cbct, words, provenance, request.output)
    drawn = (
        []
        if contours is None
        else write_contours(contours, settings, objects, provenance, request.output)
    )
    pages = page_objects(
        settings, sheet.pdf, read.cbct.headers[:1], provenance, request.output, title="Synthetic CT"
    )
    return Outcome(objects=(*objects, *drawn, *pages), findings=tuple(findings), figures=figures)


def choose_network(
    settings: SyntheticCTSettings, read: Read
) -> tuple[Learned | None, list[Finding]]:
    """Return the network if it may run on this CBCT at this site, and what there is to say.

    Raises
    ------
    ModelUnavailable
        Where the network is asked for and its pack is missing or changed.
    """
    asked = settings.method == "network"
    if not asked and (settings.method != "auto" or settings.validation_report is None):
        return None, []
    learned = open_pack(settings.model_pack)
    findings = []
    try:
        read_report(settings.validation_report, learned.pack.sha256)
    except ReportRefused as refused:
        findings.append(
            Finding(
                code="network-not-validated",
                severity=Severity.WARN,
                message=f"{refused}; {'it ran all the same' if asked else 'it was not run'}",
            )
        )
        if not asked:
            return None, findings
    grid = read.cbct.geometry
    axes = np.stack([grid.normal, grid.column_direction, grid.row_direction])
    runs, opinions = learned.opinion(read.hu, read.regions.body, grid.spacing, axes)
    return learned if runs else None, [*findings, *opinions]


def ct_grade(settings: SyntheticCTSettings, read: Read) -> list[Finding]:
    """Return a finding if a rule says that this scanner's CBCT is CT-grade."""
    stated = [text(read.cbct.headers[0], k) for k in ("Manufacturer", "ManufacturerModelName")]
    if not any(rule.matches(*stated) for rule in settings.passthrough):
        return []
    return [
        Finding(
            code="ct-grade-scanner",
            severity=Severity.INFO,
            message=f"a rule says that the CBCT of {' '.join(stated)} is CT-grade: its values "
            "are kept",
        )
    ]


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
    passed = tried[-1].method is Method.PASSTHROUGH
    if not passed and read.prior is None and settings.method in ("hybrid", "histmatch"):
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


def _grain(found: Texture | None) -> list[Finding]:
    """Return a WARN where the synthetic CT is grainier than the CBCT: texture that is made up."""
    if found is None or found.ratio <= MOST_GRAIN:
        return []
    return [
        Finding(
            code="noise-power",
            severity=Severity.WARN,
            message="flat tissue is noisier than in the CBCT",
            value=round(found.ratio, 2),
            limit=MOST_GRAIN,
        )
    ]


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


def _figures(
    scene: Scene, final: Candidate, hu: NDArray[np.float32], grain: Texture | None
) -> Mapping[str, Json]:
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
    if grain is not None:
        figures["noise_power"] = {
            name: {
                "variance_hu2": round(found.variance, 1),
                "mean_frequency_per_mm": round(found.mean_frequency, 4),
            }
            for name, found in (("cbct", grain.before), ("sct", grain.after))
        }
    if scene.prior is not None:
        figures["planning_ct"] = {
            "placed_by": str(scene.prior.source),
            "body_dice": round(scene.prior.body_dice, 3),
            "gradient_correlation": round(scene.prior.gradient_correlation, 3),
            "coverage": round(scene.prior.coverage, 3),
        }
    return figures


def _derivation(
    final: Candidate, read: Read, settings: SyntheticCTSettings, learned: Learned | None
) -> str:
    words = f"Synthetic CT from cone-beam CT, method {final.method}"
    if final.method is Method.PASSTHROUGH:
        return f"{words}: the CBCT's own values, by a rule for its scanner"
    if final.method is Method.NETWORK and learned is not None:
        words += f", model {learned.pack.label} sha256 {learned.pack.sha256}"
    if read.prior is not None and read.planning is not None and final.method is not Method.LUT:
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
