"""How like a CBCT is to those that a synthetic CT network was trained on.

Features that a physicist can name, a Gaussian over the training images, the squared Mahalanobis
distance of a new one (Mahalanobis 1936), and which features carry it. Crude on purpose: it must
notice another modality, another scale or another part of the body, not another patient.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.pack import Familiar

Hu = NDArray[np.float32]
Mask = NDArray[np.bool_]

QUANTILES: Final = (5, 25, 50, 75, 95)
"""Percent."""
SOFT_HU: Final = (-300.0, 300.0)
RIM_SHARE: Final = 0.25
"""The rim is the outer quarter of the depth below the skin, the middle the inner quarter."""
LEAST_IMAGES: Final = 8
"""Fewer say nothing about what is familiar."""
CONTRIBUTORS: Final = 3
"""How many features are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """How far an image is from the training images."""

    distance: float
    """Squared Mahalanobis distance."""
    largest: tuple[str, ...]
    """Features that carry it, the largest first."""


def features(cbct: Hu, body: Mask, spacing: tuple[float, float, float]) -> dict[str, float]:
    """Return the features of a CBCT.

    Parameters
    ----------
    cbct : ndarray, shape (slices, rows, columns), HU
    body : ndarray of bool, same shape
        Body inside the field of view; must not be empty.
    spacing : (slice, row, column), mm
    """
    values = cbct[body].astype(np.float32)
    areas = body.sum(axis=(1, 2)) * spacing[1] * spacing[2] / 100
    found = {
        "pixel_log_mm": float(np.log(spacing[2])),
        "slice_log_mm": float(np.log(spacing[0])),
        "area_median_log_cm2": float(np.log(max(np.median(areas[areas > 0]), 1))),
        "area_largest_log_cm2": float(np.log(max(np.percentile(areas, 95), 1))),
        "cupping_hu": _cupping(cbct, body, spacing),
        "noise_log_hu": float(np.log(max(_noise(cbct, body), 0.5))),
        "air_share_root": float(np.sqrt(np.mean(values < SOFT_HU[0]))),
        "metal_share_root": float(np.sqrt(np.mean(values > 1500))),  # noqa: PLR2004 (HU of metal)
    }
    return found | {
        f"quantile_{q}_hu": float(v)
        for q, v in zip(QUANTILES, np.percentile(values, QUANTILES), strict=True)
    }


def likeness(found: Mapping[str, float], familiar: Familiar) -> Likeness:
    """Return how far an image with the features `found` is from the training images."""
    difference = np.array([found[name] for name in familiar.features]) - familiar.mean
    carried = difference * (np.array(familiar.precision) @ difference)
    order = np.argsort(-carried)[:CONTRIBUTORS]
    return Likeness(
        distance=float(carried.sum()), largest=tuple(familiar.features[i] for i in order)
    )


def fit(rows: list[dict[str, float]], *, folds: int = 5) -> Familiar:
    """Return the Gaussian of the training images, and the limits of the distance.

    The distances behind the limits are those of images that the Gaussian was not fitted on: WARN
    above 97.5 % of them, refuse above twice that. Hundreds of images hold no better quantile.

    Raises
    ------
    ValueError
        For fewer than `LEAST_IMAGES` images.
    """
    if len(rows) < LEAST_IMAGES:
        raise ValueError(f"{len(rows)} training images; at least {LEAST_IMAGES} are needed")
    names = tuple(rows[0])
    table = np.array([[r[n] for n in names] for r in rows])
    held = np.arange(len(table)) % folds
    distances = np.concatenate(
        [_distances(table[held == k], *_gaussian(table[held != k])) for k in range(folds)]
    )
    limit = float(np.percentile(distances, 97.5))
    mean, precision = _gaussian(table)
    return Familiar(
        features=names,
        mean=tuple(round(float(v), 6) for v in mean),
        precision=tuple(tuple(float(f"{v:.8g}") for v in row) for row in precision),
        warn=round(limit, 3),
        refuse=round(2 * limit, 3),
    )


def _gaussian(table: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and inverse covariance, a little of each variance added to the diagonal."""
    covariance = np.cov(table.T)
    covariance += np.diag(0.02 * np.diag(covariance) + 1e-9)
    mean = np.asarray(table.mean(axis=0), dtype=np.float64)
    return mean, np.asarray(np.linalg.inv(covariance), dtype=np.float64)


def _distances(
    table: NDArray[np.float64], mean: NDArray[np.float64], precision: NDArray[np.float64]
) -> NDArray[np.float64]:
    centred = table - mean
    return np.asarray(np.einsum("ni,ij,nj->n", centred, precision, centred))


def _cupping(cbct: Hu, body: Mask, spacing: tuple[float, float, float]) -> float:
    """Return the median soft tissue in the middle of the body minus that at its rim, HU."""
    step = max(1, round(4 / spacing[2]))
    some = (slice(None), slice(None, None, step), slice(None, None, step))
    inside, values = body[some], cbct[some]
    depth = np.stack([ndimage.distance_transform_edt(plane) for plane in inside])
    deepest = depth.max(axis=(1, 2), keepdims=True)
    soft = inside & (values > SOFT_HU[0]) & (values < SOFT_HU[1])
    rim = values[soft & (depth < RIM_SHARE * deepest)]
    middle = values[soft & (depth > (1 - RIM_SHARE) * deepest)]
    return float(np.median(middle) - np.median(rim)) if rim.size and middle.size else 0.0


def _noise(cbct: Hu, body: Mask) -> float:
    """Return the noise in plane: the median absolute second difference, scaled to an SD [HU]."""
    second = np.abs(cbct[:, :, 2:] - 2 * cbct[:, :, 1:-1] + cbct[:, :, :-2])
    inside = body[:, :, 2:] & body[:, :, :-2]
    return 1.4826 * float(np.median(second[inside])) / np.sqrt(6) if inside.any() else 0.0
