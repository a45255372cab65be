"""Whether the outline of the body is right, looked at in the whole image, not in what it cut out.

All other structures are judged against the outline, so it is judged against the image alone: thick
tissue that it leaves out (half a body, an arm), and air just below its surface (a couch or a mask
that it took in). Neither look uses what the method that found it knows of cores and couches.
"""

from typing import Final

import numpy as np
from scipy import ndimage

from pipelines.api import Finding, Severity
from pipelines.autocontour.morphology import depth_in_slice
from pipelines.autocontour.names import Organ
from pipelines.imaging.grid import Mask, WorkImage

STRIDES: Final = (2, 2, 2)
"""Every second slice, row and column of the work image is looked at."""
TISSUE_HU: Final = (-200.0, 300.0)
THICK_MM: Final = 9.0
"""Half the thickness from which tissue is no shell of a couch and no mask."""
LEFT_OUT: Final = 0.03
"""Thick tissue outside, as a share of the body, that is worth a word."""
EMPTY_HU: Final = -880.0
"""Air and foam; aerated lung is denser."""
SKIN_MM: Final = (3.0, 22.0)
"""Depth below the surface at which there is no gas in a patient, but in a couch."""
EMPTY_SHARE: Final = 0.006
"""Of the body: ears, nose and throat hold less."""


def doubts(image: WorkImage, body: Mask) -> tuple[Finding, ...]:
    """Return what the image says against an outline.

    Parameters
    ----------
    image : WorkImage
        Not cropped.
    body : ndarray, bool, same shape
    """
    coarse = tuple(slice(None, None, step) for step in STRIDES)
    step = (image.spacing[0] * STRIDES[0], image.spacing[1] * STRIDES[1],
            image.spacing[2] * STRIDES[2])  # fmt: skip
    hu, body = image.hu[coarse], body[coarse]
    count = max(1, int(np.count_nonzero(body)))
    tissue = (hu > TISSUE_HU[0]) & (hu < TISSUE_HU[1])
    outside = tissue & ~body
    thick = depth_in_slice(outside, step) > THICK_MM
    missed = _grown(thick, outside, step) / count
    depth = depth_in_slice(body, step)
    hollow = (depth > SKIN_MM[0]) & (depth < SKIN_MM[1]) & (hu < EMPTY_HU)
    empty = float(np.count_nonzero(hollow)) / count
    found = []
    if missed > LEFT_OUT:
        found.append(
            _finding("body-incomplete", missed, LEFT_OUT,
                     "{:.1f} % as much thick tissue lies outside of the outline as in it")
        )  # fmt: skip
    if empty > EMPTY_SHARE:
        found.append(
            _finding("body-with-couch", empty, EMPTY_SHARE,
                     "{:.1f} % of it is air just below its surface: a couch, a mask or a cushion")
        )  # fmt: skip
    return tuple(found)


def _grown(cores: Mask, within: Mask, step: tuple[float, float, float]) -> int:
    """Return the size of what hangs together with `cores`, as far as they are thick."""
    if not cores.any():
        return 0
    away = ndimage.distance_transform_edt(~cores, sampling=step)
    return int(np.count_nonzero(within & (away <= THICK_MM + max(step))))


def _finding(code: str, share: float, limit: float, words: str) -> Finding:
    return Finding(
        code=code,
        severity=Severity.WARN,
        message=f"{Organ.EXTERNAL}: " + words.format(100 * share),
        roi=Organ.EXTERNAL.value,
        value=round(share, 4),
        limit=limit,
    )
