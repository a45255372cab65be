"""The chain of methods on arrays: hybrid, histmatch, lut; each falls back to the next simpler.

Every candidate passes the gates before it is taken. A step down is a WARN, never silent; if the
simplest method fails as well there is no image.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from pipelines.api import Finding, Severity
from pipelines.geometry.stack import StackGeometry
from pipelines.synthetic_ct import qa
from pipelines.synthetic_ct.body import Mask, Regions
from pipelines.synthetic_ct.classical import match_planning_ct, tissue_map
from pipelines.synthetic_ct.deform import agree, virtual_ct
from pipelines.synthetic_ct.register import Prior

Hu = NDArray[np.float32]

TRUNCATED_CM3 = 5.0
"""A body that lies at the field of view's edge with more than this is cut."""


class Method(StrEnum):
    """How the HU come about."""

    HYBRID = "hybrid"
    HISTMATCH = "histmatch"
    LUT = "lut"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a method works on; arrays of one shape."""

    cbct: Hu
    regions: Regions
    geometry: StackGeometry
    prior: Prior | None

    @property
    def truncated(self) -> bool:
        """Whether the field of view cuts the body."""
        return self.regions.truncated_cm3 > TRUNCATED_CM3

    @property
    def body(self) -> Mask:
        """Body inside the field of view; where it is cut, the planning CT knows more of it."""
        if self.prior is None or not self.truncated:
            return self.regions.body
        return self.regions.body | (self.prior.body & self.regions.fov)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What a method made, with its verdict."""

    method: Method
    hu: Hu
    gates: tuple[qa.Gate, ...]
    notes: tuple[Finding, ...] = ()

    @property
    def verdict(self) -> qa.Verdict:
        """Return the worst of gates and notes."""
        worst = qa.overall(self.gates)
        warned = any(n.severity is not Severity.INFO for n in self.notes)
        return qa.Verdict.WARN if worst is qa.Verdict.PASS and warned else worst


def order(asked: str, *, has_prior: bool) -> tuple[Method, ...]:
    """Return the methods to try, best first, for the setting `asked`."""
    chain = {
        "hybrid": (Method.HYBRID, Method.HISTMATCH, Method.LUT),
        "auto": (Method.HISTMATCH, Method.LUT),
        "histmatch": (Method.HISTMATCH, Method.LUT),
        "lut": (Method.LUT,),
    }[asked]
    return chain if has_prior else (Method.LUT,)


def run_chain(scene: Scene, methods: tuple[Method, ...]) -> tuple[Candidate, ...]:
    """Try `methods` until one does not fail; return all candidates tried, the last one last."""
    tried = []
    for method in methods:
        candidate = _make(scene, method)
        tried.append(candidate)
        if candidate.verdict is not qa.Verdict.FAIL:
            break
    return tuple(tried)


def _make(scene: Scene, method: Method) -> Candidate:
    if method is Method.LUT or scene.prior is None:
        two = _look_up(scene, anchors=2)
        return two if two.verdict is not qa.Verdict.FAIL else _look_up(scene, anchors=1)
    known = scene.body & scene.prior.covered
    hu = match_planning_ct(
        scene.cbct, known, scene.prior.hu, scene.prior.body, scene.geometry.spacing
    )
    notes: list[Finding] = []
    if method is Method.HYBRID:
        hu, notes = _hybrid(hu, scene, known, scene.prior)
    return _judged(scene, method, hu, notes)


def _look_up(scene: Scene, anchors: int) -> Candidate:
    """Return the look-up by fat and muscle; what looks like them may be something else."""
    table = tissue_map(scene.cbct, scene.body, anchors=anchors)
    notes = [] if table.bimodal else [_one_anchor(table.muscle)]
    hu = table.apply(scene.cbct)
    return _judged(scene, Method.LUT, hu, notes, one_mode=not table.bimodal)


def _judged(
    scene: Scene, method: Method, hu: Hu, notes: list[Finding], *, one_mode: bool = False
) -> Candidate:
    """Round and clip `hu` and put it before the gates."""
    hu = np.clip(np.rint(hu), qa.LOWEST_HU, qa.HIGHEST_HU).astype(np.float32)
    gates = qa.examine(
        qa.Case(
            sct=hu,
            cbct=scene.cbct,
            body=scene.body,
            outline=scene.regions.body,
            fov=scene.regions.fov,
            spacing=scene.geometry.spacing,
            prior=None if scene.prior is None else scene.prior.hu,
            one_mode_expected=one_mode,
        )
    )
    return Candidate(method=method, hu=hu, gates=gates, notes=tuple(notes))


def _hybrid(base: Hu, scene: Scene, known: Mask, prior: Prior) -> tuple[Hu, list[Finding]]:
    virtual = virtual_ct(base, prior.hu, known, scene.geometry)
    if virtual.min_jacobian <= 0:
        return base, [
            Finding(
                code="deformation-folds",
                severity=Severity.WARN,
                message="the deformation of the planning CT folds; the virtual CT was not used",
                value=virtual.min_jacobian,
                limit=0.0,
            )
        ]
    weight = agree(base, virtual.hu, known)
    note = Finding(
        code="virtual-ct-used",
        severity=Severity.INFO,
        message=f"the deformed planning CT stands for {100 * float(weight[known].mean()):.0f} % of "
        f"the body; 95 % of its displacements are below {virtual.displacement_p95_mm:.1f} mm",
        value=virtual.displacement_p95_mm,
        unit="mm",
    )
    return base + weight * (virtual.hu - base), [note]


def _one_anchor(median: float) -> Finding:
    return Finding(
        code="one-tissue-mode",
        severity=Severity.WARN,
        message="fat and muscle are one mode in the CBCT's histogram: only its middle was shifted; "
        "HU are a guess, send the planning CT for a better method",
        value=median,
        unit="HU",
    )
