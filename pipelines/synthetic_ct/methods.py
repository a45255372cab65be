"""The chain of methods on arrays: network, hybrid, histmatch, lut; each falls back to the next.

Every candidate passes the gates before it is taken. A step down is a WARN, never silent; if the
simplest method fails as well there is no image.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipelines.api import Finding, Severity
from pipelines.geometry.stack import StackGeometry
from pipelines.imaging.body import Mask, Regions
from pipelines.imaging.verdict import Gate, Limits, Verdict, overall
from pipelines.synthetic_ct import qa
from pipelines.synthetic_ct.agreement import WORKING_MM
from pipelines.synthetic_ct.classical import (
    FINE_SHADING_SIGMA_MM,
    correct_shading,
    match_planning_ct,
    tissue_map,
)
from pipelines.synthetic_ct.deform import agree, virtual_ct
from pipelines.synthetic_ct.gates import Case
from pipelines.synthetic_ct.learned import Answer, Learned
from pipelines.synthetic_ct.register import Prior

Hu = NDArray[np.float32]
TRUNCATED_CM3 = 5.0
"""A body that lies at the field of view's edge with more than this is cut."""
AROUND_MM: Final = 25.0
"""Air around the body that the gates see: wider than a wrong outline."""
DISAGREEMENT_HU: Final = 40.0
"""A second opinion that differs by more in 5 % of the body is a warning."""


class Method(StrEnum):
    """How the HU come about."""

    PASSTHROUGH = "passthrough"
    """The CBCT's own HU: for scanners whose CBCT is CT-grade, by rule."""
    NETWORK = "network"
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
    learned: Learned | None = None
    """The network, where it may run on this CBCT."""

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

    @property
    def known(self) -> Mask:
        """Body inside the field of view that the planning CT covers too."""
        return self.body if self.prior is None else self.body & self.prior.covered


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What a method made, with its verdict."""

    method: Method
    hu: Hu
    gates: tuple[Gate, ...]
    notes: tuple[Finding, ...] = ()
    disagreement: Hu | None = None
    """Map of the network's second opinion; see `learned.Answer`."""

    @property
    def verdict(self) -> Verdict:
        """Return the worst of gates and notes."""
        worst = overall(self.gates)
        warned = any(n.severity is not Severity.INFO for n in self.notes)
        return Verdict.WARN if worst is Verdict.PASS and warned else worst


NEEDS_PRIOR: Final = frozenset({Method.HYBRID, Method.HISTMATCH})
CHAINS: Final[Mapping[str, tuple[Method, ...]]] = {
    "network": (Method.NETWORK, Method.HYBRID, Method.HISTMATCH, Method.LUT),
    "hybrid": (Method.HYBRID, Method.HISTMATCH, Method.LUT),
    "auto": (Method.NETWORK, Method.HYBRID, Method.HISTMATCH, Method.LUT),
    "histmatch": (Method.HISTMATCH, Method.LUT),
    "lut": (Method.LUT,),
}
"""What is asked for -> what is tried, best first. `auto` comes to the network only where the site
has validated it."""


def order(asked: str, *, has_prior: bool, has_network: bool = False) -> tuple[Method, ...]:
    """Return the methods to try, best first, for the setting `asked`."""
    return tuple(
        method
        for method in CHAINS[asked]
        if (has_prior or method not in NEEDS_PRIOR)
        and (has_network or method is not Method.NETWORK)
    )


def run_chain(scene: Scene, methods: tuple[Method, ...]) -> tuple[Candidate, ...]:
    """Try `methods` until one does not fail; return all candidates tried, the last one last."""
    reference = None if scene.prior is None else _matched(scene.cbct, scene, scene.prior)
    tried = []
    for method in methods:
        candidate = _make(scene, method, reference)
        tried.append(candidate)
        if candidate.verdict is not Verdict.FAIL:
            break
    return tuple(tried)


def _make(scene: Scene, method: Method, reference: Hu | None) -> Candidate:
    if method is Method.NETWORK and scene.learned is not None:
        return _network(scene, scene.learned, reference)
    if method is Method.PASSTHROUGH:
        return _judged(scene, method, scene.cbct, (), reference)
    if method is Method.LUT or reference is None or scene.prior is None:
        two = _look_up(scene, anchors=2, reference=reference)
        failed = two.verdict is Verdict.FAIL
        return _look_up(scene, anchors=1, reference=reference) if failed else two
    if method is Method.HISTMATCH:
        return _judged(scene, method, reference, (), reference)
    hu, notes, mixed = _hybrid(reference, scene, scene.prior)
    return _judged(scene, method, hu, notes, reference, planning_pixels=mixed)


def _network(scene: Scene, learned: Learned, reference: Hu | None) -> Candidate:
    """Return the network's answer, with the planning CT's help where there is one.

    The network alone keeps its own level; histogram and shading of the planning CT then correct
    it, and the deformed planning CT stands where both agree.
    """
    answer = learned.apply(scene.cbct, scene.regions.body, scene.geometry.spacing)
    hu, notes, mixed = answer.hu, [_second_opinion(answer)], False
    if scene.prior is not None:
        hu = _matched(hu, scene, scene.prior)
        hu, more, mixed = _hybrid(hu, scene, scene.prior)
        notes += more
    limits = {k: Limits(passes=p, fails=f) for k, (p, f) in learned.manifest.gates.items()}
    made = _judged(
        scene, Method.NETWORK, hu, notes, reference, planning_pixels=mixed, limits=limits
    )
    return replace(made, disagreement=answer.disagreement)


def _second_opinion(answer: Answer) -> Finding:
    value = answer.disagreement_p95
    return Finding(
        code="second-opinion",
        severity=Severity.WARN if value > DISAGREEMENT_HU else Severity.INFO,
        message="the network's answer to the image upside down differs by less than this in 95 % "
        "of the body",
        value=round(value, 1),
        unit="HU",
        limit=DISAGREEMENT_HU,
    )


def _matched(hu: Hu, scene: Scene, prior: Prior) -> Hu:
    """Return `hu` with histogram and shading of the planning CT."""
    spacing = scene.geometry.spacing
    return match_planning_ct(hu, scene.known, prior.hu, prior.body, spacing)


def _look_up(scene: Scene, anchors: int, reference: Hu | None) -> Candidate:
    """Return the look-up by fat and muscle; what looks like them may be something else."""
    table = tissue_map(scene.cbct, scene.body, anchors=anchors)
    notes = [] if table.bimodal else [_one_anchor(table.muscle)]
    hu = table.apply(scene.cbct)
    return _judged(scene, Method.LUT, hu, notes, reference, one_mode=not table.bimodal)


def _judged(  # noqa: PLR0913 (what a case needs, named)
    scene: Scene,
    method: Method,
    hu: Hu,
    notes: Iterable[Finding],
    reference: Hu | None,
    *,
    one_mode: bool = False,
    planning_pixels: bool = False,
    limits: Mapping[str, Limits] | None = None,
) -> Candidate:
    """Round and clip `hu` and put it before the gates."""
    hu = np.clip(np.rint(hu), qa.LOWEST_HU, qa.HIGHEST_HU).astype(np.float32)
    box = _box(scene)
    gates = qa.examine(
        Case(
            sct=hu[box],
            cbct=scene.cbct[box],
            body=scene.body[box],
            outline=scene.regions.body[box],
            fov=scene.regions.fov[box],
            spacing=scene.geometry.spacing,
            prior=None if scene.prior is None else scene.prior.hu[box],
            reference=None if reference is None else reference[box],
            one_mode_expected=one_mode,
            planning_pixels=planning_pixels,
            limits=limits or {},
        )
    )
    return Candidate(method=method, hu=hu, gates=gates, notes=tuple(notes))


def _box(scene: Scene) -> tuple[slice, slice, slice]:
    """Return where the body lies, with air around: the gates need to see no more.

    It begins at a whole block of the coarse grid, so that the gates see the same blocks.
    """
    box = [slice(None)]
    for axis in (1, 2):
        length, step = scene.body.shape[axis], scene.geometry.spacing[axis]
        block = max(1, round(WORKING_MM / step))
        where = np.flatnonzero(scene.body.any(axis=(0, 3 - axis)))
        first, last = (int(where[0]), int(where[-1])) if where.size else (0, length - 1)
        margin = round(AROUND_MM / step)
        start = max(0, first - margin) // block * block
        box.append(slice(start, min(length, last + 1 + margin)))
    return box[0], box[1], box[2]


def _hybrid(base: Hu, scene: Scene, prior: Prior) -> tuple[Hu, list[Finding], bool]:
    """Return `base` with the deformed planning CT where both agree, notes, whether it was used.

    Twice: the first deformation shows the finer shading, the second is found without it.
    """
    known, spacing = scene.known, scene.geometry.spacing
    first = virtual_ct(base, prior.hu, known, scene.geometry)
    if first.min_jacobian > 0:
        base = correct_shading(base, first.hu, known, spacing, FINE_SHADING_SIGMA_MM)
    virtual = virtual_ct(base, prior.hu, known, scene.geometry)
    if virtual.min_jacobian <= 0:
        folded = [
            Finding(
                code="deformation-folds",
                severity=Severity.WARN,
                message="the deformation of the planning CT folds; the virtual CT was not used",
                value=virtual.min_jacobian,
                limit=0.0,
            )
        ]
        return base, folded, False
    weight = agree(base, virtual.hu, known)
    note = Finding(
        code="virtual-ct-used",
        severity=Severity.INFO,
        message=f"the deformed planning CT stands for {100 * float(weight[known].mean()):.0f} % of "
        f"the body; 95 % of its displacements are below {virtual.displacement_p95_mm:.1f} mm",
        value=virtual.displacement_p95_mm,
        unit="mm",
    )
    return base + weight * (virtual.hu - base), [note], True


def _one_anchor(median: float) -> Finding:
    return Finding(
        code="one-tissue-mode",
        severity=Severity.WARN,
        message="fat and muscle are one mode in the CBCT's histogram: only its middle was shifted; "
        "HU are a guess, send the planning CT for a better method",
        value=median,
        unit="HU",
    )
