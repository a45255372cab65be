"""Is the synthetic CT plausible? Gates that need no ground truth (reference page, section 9).

Each gate is a number with two limits: better than `passes` is PASS, worse than `fails` is FAIL,
WARN between. The limits were set on simulated cases; a site re-fits them. What no gate can see: a
small soft-tissue structure of plausible HU that is not in the patient. The classical methods
cannot invent one, since they map values monotonically and add a smooth field.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.imaging.body import Mask, body_mask, eroded
from pipelines.imaging.verdict import Gate, Limits
from pipelines.synthetic_ct.gates import Case, gate
from pipelines.synthetic_ct.qa_image import image_gates

Hu = NDArray[np.float32]

SOFT_RANGE_HU: Final = (-250.0, 200.0)
BIN_HU: Final = 4.0
FAT_RANGE_HU: Final = (-200.0, -30.0)
MUSCLE_RANGE_HU: Final = (-20.0, 150.0)
NOMINAL_FAT_HU, NOMINAL_MUSCLE_HU = -100.0, 45.0
NOMINAL_MEDIAN_HU: Final = 15.0
"""Median of all soft tissue of a usual body."""
AIR_HU: Final = -300.0
LEAST_AIR_CM3: Final = 5.0
"""Less gas is not compared: good images of a thigh failed on half a milliliter."""
LOWEST_HU, HIGHEST_HU = -1024, 3071
GRADIENT_CLIP_HU: Final = (-1000.0, 600.0)


ONE_MODE: Final = 0.95
"""A valley above this is no valley."""
VALLEY_LIMITS: Final = Limits(passes=0.75, fails=ONE_MODE)
ONE_MODE_LIMITS: Final = Limits(passes=0.75, fails=1.0)


def examine(case: Case) -> tuple[Gate, ...]:
    """Return all gates of one synthetic CT."""
    if not np.isfinite(case.sct).all():
        return (gate(case, "range", float("nan"), "", Limits(passes=0, fails=0), "not a number"),)
    return (
        *_histogram_gates(case), *_structure_gates(case), *image_gates(case), _noise_gate(case),
        _range_gate(case),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Modes:
    """Soft-tissue peaks of a histogram."""

    fat: float
    muscle: float
    valley: float
    """Lowest count between the peaks over the lower peak: 1 = one mode, 0 = two apart."""
    median: float
    """Of all soft tissue."""


def modes(hu: Hu, body: Mask) -> Modes:
    """Return the fat and muscle peaks of `hu` in `body`, bins of 4 HU, smoothed.

    A range whose largest count lies at its end holds no peak: then the valley is 1.
    """
    values = hu[body]
    edges = np.arange(*SOFT_RANGE_HU, BIN_HU)
    counts, _ = np.histogram(values, edges)
    smooth: NDArray[np.float64] = np.asarray(
        ndimage.gaussian_filter1d(counts.astype(np.float64), 1.5), dtype=np.float64
    )
    centers = (edges[:-1] + edges[1:]) / 2
    fat, at_end = _peak(smooth, centers, FAT_RANGE_HU)
    muscle, also = _peak(smooth, centers, MUSCLE_RANGE_HU)
    lower = max(min(float(smooth[fat]), float(smooth[muscle])), 1e-9)
    valley = 1.0 if at_end or also else float(smooth[fat : muscle + 1].min()) / lower
    soft = values[(values > SOFT_RANGE_HU[0]) & (values < SOFT_RANGE_HU[1])]
    median = float(np.median(soft)) if soft.size else float("nan")
    return Modes(
        fat=float(centers[fat]), muscle=float(centers[muscle]), valley=valley, median=median
    )


def _peak(
    counts: NDArray[np.float64], centers: NDArray[np.float64], limits: tuple[float, float]
) -> tuple[int, bool]:
    """Return the bin of the largest count between `limits`, and whether it is the end bin."""
    near = np.flatnonzero((centers > limits[0]) & (centers < limits[1]))
    best = int(near[counts[near].argmax()])
    return best, best in (int(near[0]), int(near[-1]))


def gradient_correlation(first: Hu, second: Hu, mask: Mask) -> float:
    """Return the correlation of the in-plane gradients of two images inside `mask`."""
    inside = eroded(mask, 5)
    if not inside.any():
        return float("nan")
    parts = []
    for image in (first, second):
        smooth = ndimage.gaussian_filter(np.clip(image, *GRADIENT_CLIP_HU), (0, 1, 1))
        slopes = [np.asarray(np.gradient(smooth, axis=axis))[inside] for axis in (1, 2)]
        parts.append(np.concatenate(slopes).astype(np.float64))
    a, b = (p - p.mean() for p in parts)
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else float("nan")


def dice(a: Mask, b: Mask) -> float:
    """Return the Dice overlap; 1 for two empty masks."""
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def _histogram_gates(case: Case) -> list[Gate]:
    """Judge the peaks where there are two, else the median of all soft tissue."""
    now = modes(case.sct, case.body)
    goal = None if case.prior is None else modes(case.prior, _own_body(case, case.prior))
    worst = ONE_MODE_LIMITS if case.one_mode_expected else VALLEY_LIMITS
    gates = [gate(case, "valley-ratio", now.valley, "", worst, "fat and muscle are not told apart")]
    one_mode = now.valley >= ONE_MODE or (goal is not None and goal.valley >= ONE_MODE)
    if case.one_mode_expected or one_mode:
        off = abs(now.median - (NOMINAL_MEDIAN_HU if goal is None else goal.median))
        limits = Limits(passes=35, fails=60)
    elif goal is None:
        off = max(abs(now.fat - NOMINAL_FAT_HU), abs(now.muscle - NOMINAL_MUSCLE_HU))
        limits = Limits(passes=35, fails=45)
    else:
        off = max(abs(now.fat - goal.fat), abs(now.muscle - goal.muscle))
        limits = Limits(passes=25, fails=45)
    return [*gates, gate(case, "tissue-peaks", off, "HU", limits, "soft tissue reads wrong HU")]


def _own_body(case: Case, hu: Hu) -> Mask:
    return body_mask(np.where(case.fov, hu, -1000), case.spacing, case.fov) & case.fov


def _structure_gates(case: Case) -> list[Gate]:
    edges = gradient_correlation(case.sct, case.cbct, case.body)
    return [
        gate(
            case,
            "gradient-correlation",
            edges,
            "",
            Limits(passes=0.85, fails=0.75),
            "edges are not where the CBCT has them",
        ),
        *_outline_gates(case),
        *_air_gates(case),
    ]


def _air_gates(case: Case) -> list[Gate]:
    """Compare lung and gas; a few voxels of it at the threshold say nothing."""
    core = eroded(case.body, 7)
    now, before = ((image < AIR_HU) & core for image in (case.sct, case.cbct))
    voxel_cm3 = float(np.prod(case.spacing)) / 1000
    if max(int(now.sum()), int(before.sum())) * voxel_cm3 < LEAST_AIR_CM3:
        return []
    limits = Limits(passes=0.75, fails=0.5)
    meaning = "lung or gas differs from the CBCT's"
    return [gate(case, "air-agreement", dice(now, before), "", limits, meaning)]


def _outline_gates(case: Case) -> list[Gate]:
    """Compare body outlines where the field of view does not cut the body; elsewhere none is."""
    rim = case.fov & ~eroded(case.fov, 3)
    whole = ~(rim & case.outline).any(axis=(1, 2))
    if not whole.any():
        return []
    value = dice(_own_body(case, case.sct)[whole], case.outline[whole])
    limits = Limits(passes=0.98, fails=0.97)
    meaning = "the body outline differs from the CBCT's"
    return [gate(case, "body-agreement", value, "", limits, meaning)]


def noise(hu: Hu, body: Mask) -> float:
    """Return the SD of the noise in soft tissue [HU]: robust, blind to edges and ramps.

    The difference of two Laplacians (Immerkaer 1996, Comput. Vis. Image Underst. 64, 300).
    """
    inside = eroded(body, 7)
    smooth = ndimage.uniform_filter(hu, (1, 3, 3))
    soft = inside & (smooth > SOFT_RANGE_HU[0]) & (smooth < SOFT_RANGE_HU[1])
    twice = ndimage.correlate1d(ndimage.correlate1d(hu, (1, -2, 1), 1), (1, -2, 1), 2)
    residual = twice[soft] / 6
    return 1.4826 * float(np.median(np.abs(residual))) if residual.size else float("nan")


def _noise_gate(case: Case) -> Gate:
    limits = Limits(passes=60, fails=120)
    return gate(case, "noise", noise(case.sct, case.body), "HU", limits, "noise hides the tissues")


def _range_gate(case: Case) -> Gate:
    planes = zip(case.sct, case.body, strict=True)
    flat = sum(float(np.ptp(plane[inside])) == 0 for plane, inside in planes if inside.any())
    outside = float(np.mean((case.sct < LOWEST_HU) | (case.sct > HIGHEST_HU)))
    limits = Limits(passes=0, fails=0)
    return gate(case, "range", flat + outside, "", limits, "constant slices or impossible values")
