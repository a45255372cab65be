"""Contours of a structure in any of the three planes.

In the transverse plane of the drawing the stored contours are shown as they are. In the two
others the structure is what the contours enclose, each plane a slab half way to its neighbors
(PS3.3 C.8.8.6: contours are stacked); the cut through the slabs is outlined at sub-pixel places.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from node.web.pictures.grid import PLANES, TRANSVERSE, Upright
from pipelines.dicom.rtstruct import Roi
from pipelines.geometry.contours import polygons

_FLAT: Final = 0.3
"""Contours that wander less than this along the stack are drawn in one plane. [slices]"""
_SAME_PLANE: Final = 0.05
"""Contours closer than this lie in one plane. [slices]"""

Line = NDArray[np.float64]
"""Shape (n, 2): pixel coordinates (u to the right, v down), pixel centers at the integers."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outline:
    """A structure, ready to be cut."""

    shape: tuple[int, int, int]
    """Of the upright image."""
    heights: NDArray[np.float64]
    """Upright index of each contour along the body, shape (contours,)."""
    loops: tuple[NDArray[np.float64], ...]
    """Upright indices (toward back, toward left) of each contour, shape (n, 2)."""
    skipped: int
    """Contours that lie across the body's axis and are not shown."""

    @classmethod
    def of(cls, roi: Roi, grid: Upright) -> "Outline":
        """Return the closed contours of `roi` in the upright indices of an image."""
        heights, loops, skipped = [], [], 0
        for loop in roi.closed:
            found = grid.indices(loop.points)
            if len(found) < 3 or np.ptp(found[:, 0]) > _FLAT:  # noqa: PLR2004 - an area needs three
                skipped += 1
                continue
            heights.append(float(found[:, 0].mean()))
            loops.append(found[:, 1:])
        return cls(
            shape=grid.shape,
            heights=np.array(heights),
            loops=tuple(loops),
            skipped=skipped,
        )

    def lines(self, axis: int, index: int) -> list[Line]:
        """Return the closed lines in plane `index` of `axis`."""
        if not self.loops:
            return []
        return self._transverse(index) if axis == TRANSVERSE else self._across(axis, index)

    def _transverse(self, index: int) -> list[Line]:
        """Return the contours of the plane nearest to a slice, at most half a slice away."""
        apart = np.abs(self.heights - index)
        nearest = float(apart.min())
        if nearest > 0.5:  # noqa: PLR2004 - half a slice
            return []
        near = np.flatnonzero(apart <= nearest + _SAME_PLANE)
        return [self.loops[i][:, ::-1] for i in near]

    def _across(self, axis: int, index: int) -> list[Line]:
        """Return the outline of the cut through the slabs."""
        plane = PLANES[axis]
        first, step, rows = self._slots()
        width = self.shape[plane.u]
        field = np.zeros((int(rows.max()) + 1, width), dtype=np.float32)
        across, along = (0, 1) if plane.w == 1 else (1, 0)
        for loop, row in zip(self.loops, rows, strict=True):
            spans = _spans(loop[:, across], loop[:, along], float(index))
            if spans.size:
                # Even-odd: a hole or an inner contour takes away what lies around it.
                field[row] = np.abs(field[row] - _cover(spans, width))
        lines = []
        for polygon in polygons(field):
            for ring in (polygon.shell, *polygon.holes):
                height = first + step * ring[:, 0]
                v = self.shape[0] - 1 - height if plane.up else height
                lines.append(np.column_stack([ring[:, 1], v]))
        return lines

    def _slots(self) -> tuple[float, float, NDArray[np.int64]]:
        """Return the first plane, the step between planes, and the row of each contour."""
        planes = np.unique(np.round(self.heights / _SAME_PLANE) * _SAME_PLANE)
        steps = np.diff(planes)
        step = float(np.median(steps)) if steps.size else 1.0
        first = float(planes[0])
        return first, step, np.rint((self.heights - first) / step).astype(np.int64)


def _spans(
    across: NDArray[np.float64], along: NDArray[np.float64], at: float
) -> NDArray[np.float64]:
    """Return where a closed polygon is crossed by the line ``across == at``, as (begin, end)."""
    next_across, next_along = np.roll(across, -1), np.roll(along, -1)
    crossing = (across <= at) != (next_across <= at)
    share = (at - across[crossing]) / (next_across[crossing] - across[crossing])
    found = np.sort(along[crossing] + share * (next_along[crossing] - along[crossing]))
    return found.reshape(-1, 2)


def _cover(spans: NDArray[np.float64], width: int) -> NDArray[np.float32]:
    """Return the share of each pixel that the spans cover, shape (width,)."""
    edges = np.arange(width) - 0.5
    begun, ended = (np.clip(spans[:, i, None] - edges, 0.0, 1.0) for i in (0, 1))
    covered: NDArray[np.float32] = np.clip((ended - begun).sum(axis=0), 0.0, 1.0).astype(np.float32)
    return covered
