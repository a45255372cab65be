"""Slices into a stack: order, spacing, gaps, and the map between voxels and millimeters.

Everything the product knows of where a voxel lies comes from here and from DICOM positions
alone (PS3.3 C.7.6.2.1.1): no file order, no instance number, no slice thickness, no guess from
the image. Slices are sorted along ``normal = row_direction × column_direction``; indices are
(slice, row, column); points are patient LPS in mm, at voxel centers. Pure numpy, so that the
receiving process may ask whether a series is whole.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.api import InputRejected

Vector = tuple[float, float, float]
Floats = NDArray[np.float64]

ORIENTATION_TOLERANCE: Final = 1e-3
"""Largest difference of a direction cosine inside one orientation (about 0.06 degrees)."""
SPACING_TOLERANCE: Final = 1e-3
"""Largest relative difference of the pixel spacing inside one stack."""
DUPLICATE_MM: Final = 0.01
"""Slices closer than this share one position; the DICOM positions are rounded to 1e-3 or so."""
UNEVEN_MM: Final = 0.05
"""Steps that differ less are equal; half a tenth of a millimeter is rounding, not anatomy."""
UNEVEN_SHARE: Final = 0.02
"""The same, as a share of the median step; the larger of the two limits counts."""
GAP_FACTOR: Final = 1.5
"""A lone step longer than this many usual steps has lost its slice."""
SHIFT_MM: Final = 0.2
"""In-plane drift of the origins over a step that rounding explains; more is a tilt or a shift."""

TOLD_GAPS: Final = 3
"""Gaps that are described one by one before the rest is only counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlicePose:
    """Where one image lies (PS3.3 C.7.6.2)."""

    position: Vector
    """Center of the first voxel, patient LPS [mm]: ImagePositionPatient."""
    row_direction: Vector
    """Along a row, toward the next column: the first three values of ImageOrientationPatient."""
    column_direction: Vector
    """Down a column, toward the next row: the last three values."""
    spacing: tuple[float, float]
    """(between rows, between columns) [mm]: PixelSpacing as it is written."""
    rows: int
    columns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A place where slices are missing between two neighbors."""

    z_from: float
    """Position along the normal [mm]; for an axial stack with the usual signs, LPS z."""
    z_to: float
    missing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StackReport:
    """What a set of poses is worth as a volume."""

    order: tuple[int, ...]
    """Indices of the poses, sorted along the normal; only meaningful with one orientation."""
    positions: tuple[float, ...]
    """Distance along the normal [mm] of the poses, in that order."""
    spacing: float
    """Usual step between different positions [mm]; 0 where there is only one."""
    gaps: tuple[Gap, ...]
    duplicates: int
    """Slices that share a position with another one."""
    orientations: int
    tilt_deg: float
    """Angle between the line through the origins and the normal; 0 for an upright stack."""
    uniform: bool
    """One grid: equal steps within the tolerance, no duplicate, no tilt, one geometry."""
    problems: tuple[str, ...]
    """Sentences that forbid to treat the slices as one volume; empty when they are one."""


def examine(poses: Iterable[SlicePose]) -> StackReport:
    """Return order, spacing and every fault of the poses of one series.

    Never raises for odd input: whoever asks decides what to do with the `problems`. Steps that
    change in runs of three or more (2 mm through the head, 5 mm below) are uneven, not gaps.
    """
    slices = list(poses)
    if not slices:
        return StackReport(order=(), positions=(), spacing=0.0, gaps=(), duplicates=0,
                           orientations=0, tilt_deg=0.0, uniform=False,
                           problems=("there is no image with a position",))  # fmt: skip
    problems = _mixtures(slices)
    orientations = _count_orientations(slices)
    origins = np.array([p.position for p in slices], dtype=np.float64)
    along = origins @ _normal(slices[0])
    order = np.argsort(along, kind="stable")
    positions = along[order]
    steps = np.diff(positions)
    duplicates = int(np.count_nonzero(steps < DUPLICATE_MM))
    real = steps[steps >= DUPLICATE_MM]
    spacing = _usual_step(real)
    gaps = _gaps(positions, spacing) if orientations == 1 else ()
    tilt, shift = _drift(slices[0], origins[order]) if orientations == 1 else (0.0, "")

    if orientations == 1:
        if duplicates:
            problems.append(f"{duplicates} slices share a position with another slice")
        problems += [_describe(gap) for gap in gaps[:TOLD_GAPS]]
        if len(gaps) > TOLD_GAPS:
            problems.append(f"slices are missing in {len(gaps) - TOLD_GAPS} more places")
        if shift:
            problems.append(shift)
    if len(slices) == 1:
        problems.append("there is only one slice")
    even = bool(real.size) and bool(np.ptp(real) <= max(UNEVEN_MM, UNEVEN_SHARE * spacing))
    return StackReport(
        order=tuple(int(i) for i in order),
        positions=tuple(float(z) for z in positions),
        spacing=spacing,
        gaps=gaps,
        duplicates=duplicates,
        orientations=orientations,
        tilt_deg=tilt,
        uniform=even and not problems,
        problems=tuple(problems),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StackGeometry:
    """The grid of a sorted stack: which voxel is where, slice by slice.

    Each slice keeps its own origin, so uneven steps cost no accuracy; `affine` exists where one
    matrix is the truth.
    """

    origins: Floats
    """Shape (slices, 3), patient LPS [mm]: center of voxel (k, 0, 0), sorted along `normal`."""
    row_direction: Floats
    """Unit vector toward the next column."""
    column_direction: Floats
    """Unit vector toward the next row."""
    pixel_spacing: tuple[float, float]
    """(between rows, between columns) [mm]."""
    rows: int
    columns: int

    @classmethod
    def of(cls, poses: Sequence[SlicePose]) -> "StackGeometry":
        """Return the geometry of `poses`, sorted; `examine(poses).order` is the order.

        Raises
        ------
        InputRejected
            With one sentence for each reason why the poses are not one volume.
        """
        report = examine(poses)
        if report.problems:
            raise InputRejected("; ".join(report.problems))
        first = poses[report.order[0]]
        rows, columns = _unit(first.row_direction), _unit(first.column_direction)
        return cls(
            origins=_frozen([poses[i].position for i in report.order]),
            row_direction=rows,
            column_direction=columns,
            pixel_spacing=first.spacing,
            rows=first.rows,
            columns=first.columns,
        )

    @classmethod
    def regular(
        cls,
        *,
        shape: tuple[int, int, int],
        spacing: Vector,
        origin: Vector = (0.0, 0.0, 0.0),
        row_direction: Vector = (1.0, 0.0, 0.0),
        column_direction: Vector = (0.0, 1.0, 0.0),
    ) -> "StackGeometry":
        """Return an even grid of `shape` and `spacing` [mm], both (slice, row, column)."""
        rows, columns = _unit(row_direction), _unit(column_direction)
        steps = np.arange(shape[0], dtype=np.float64)[:, None] * spacing[0]
        return cls(
            origins=_frozen(np.asarray(origin) + steps * np.cross(rows, columns)),
            row_direction=rows,
            column_direction=columns,
            pixel_spacing=(spacing[1], spacing[2]),
            rows=shape[1],
            columns=shape[2],
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns)."""
        return len(self.origins), self.rows, self.columns

    @property
    def normal(self) -> Floats:
        """Unit vector along which the slice index grows: row × column direction."""
        return np.asarray(np.cross(self.row_direction, self.column_direction), dtype=np.float64)

    @property
    def positions(self) -> Floats:
        """Distance of each slice along the normal [mm], shape (slices,)."""
        return np.asarray(self.origins @ self.normal, dtype=np.float64)

    @property
    def steps(self) -> Floats:
        """Distance from each slice to the next [mm], shape (slices - 1,)."""
        return np.diff(self.positions)

    @property
    def spacing(self) -> Vector:
        """(slice, row, column) [mm]; the slice step is the mean of an even, the median of another.

        A single slice has no step; 1 mm stands in for it.
        """
        steps = self.steps
        if not steps.size:
            return 1.0, *self.pixel_spacing
        step = float(np.mean(steps)) if self.uniform else float(np.median(steps))
        return step, *self.pixel_spacing

    @property
    def uniform(self) -> bool:
        """Whether all steps are equal within the tolerance of `examine`."""
        steps = self.steps
        if steps.size < 2:  # noqa: PLR2004 (one step is equal to itself)
            return True
        return bool(np.ptp(steps) <= max(UNEVEN_MM, UNEVEN_SHARE * float(np.median(steps))))

    @property
    def slice_widths(self) -> Floats:
        """Share of the normal [mm] that each slice stands for: half way to its neighbors."""
        steps = self.steps
        if not steps.size:
            return np.ones(1)
        padded = np.concatenate([steps[:1], steps, steps[-1:]])
        return np.asarray((padded[:-1] + padded[1:]) / 2.0, dtype=np.float64)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel of an even stack [ml]."""
        return float(np.prod(self.spacing)) / 1000.0

    @property
    def affine(self) -> Floats:
        """Matrix (4, 4) that takes (slice, row, column, 1) to patient LPS [mm].

        Raises
        ------
        InputRejected
            When the steps are uneven, so that no matrix is the truth.
        """
        if not self.uniform:
            raise InputRejected("the slices are unevenly spaced; they must be resampled first")
        matrix = np.eye(4)
        matrix[:3, 0] = self.normal * self.spacing[0]
        matrix[:3, 1] = self.column_direction * self.pixel_spacing[0]
        matrix[:3, 2] = self.row_direction * self.pixel_spacing[1]
        matrix[:3, 3] = self.origins[0]
        return matrix

    @property
    def inverse(self) -> Floats:
        """Matrix (4, 4) from patient LPS [mm] to (slice, row, column, 1); see `affine`."""
        return np.asarray(np.linalg.inv(self.affine), dtype=np.float64)

    def points(self, indices: ArrayLike) -> Floats:
        """Return patient LPS [mm], shape (n, 3), of fractional (slice, row, column), shape (n, 3).

        Between slices the origins are interpolated, outside the stack the end steps go on.
        """
        index = np.asarray(indices, dtype=np.float64).reshape(-1, 3)
        along = _extrapolate(index[:, 0], np.arange(len(self.origins)), self.positions)
        start = self.origins[0] + np.outer(along - self.positions[0], self.normal)
        return np.asarray(
            start
            + np.outer(index[:, 1] * self.pixel_spacing[0], self.column_direction)
            + np.outer(index[:, 2] * self.pixel_spacing[1], self.row_direction),
            dtype=np.float64,
        )

    def indices(self, points: ArrayLike) -> Floats:
        """Return fractional (slice, row, column), shape (n, 3), of patient LPS [mm], (n, 3)."""
        offset = np.asarray(points, dtype=np.float64).reshape(-1, 3) - self.origins[0]
        along = offset @ self.normal + self.positions[0]
        return np.column_stack(
            [
                _extrapolate(along, self.positions, np.arange(len(self.origins))),
                offset @ self.column_direction / self.pixel_spacing[0],
                offset @ self.row_direction / self.pixel_spacing[1],
            ]
        )

    def parted(self, factor: int) -> "StackGeometry":
        """Return the grid on which each slice is parted into `factor` thin ones, side by side.

        The centers lie on the line from the first to the last origin, evenly: a thick slice is
        where the middle of its thin ones is, whatever the orientation.

        Raises
        ------
        InputRejected
            When the slices are unevenly spaced, or there is only one.
        """
        count = len(self.origins)
        if not self.uniform or count < 2:  # noqa: PLR2004 (no step)
            raise InputRejected("only evenly spaced slices can be parted")
        at = (np.arange(count * factor) - (factor - 1) / 2) / factor
        step = (self.origins[-1] - self.origins[0]) / (count - 1)
        return replace(self, origins=_frozen(self.origins[0] + at[:, None] * step))

    def same_grid(self, other: "StackGeometry", tolerance_mm: float = 0.01) -> bool:
        """Return whether both grids have their voxels in the same places."""
        if self.shape != other.shape:
            return False
        corners = [[k, r, c] for k in (0, self.shape[0] - 1)
                   for r in (0, self.rows - 1) for c in (0, self.columns - 1)]  # fmt: skip
        apart = np.abs(self.points(corners) - other.points(corners))
        return bool(
            np.all(apart <= tolerance_mm)
            and np.all(np.abs(self.origins - other.origins) <= tolerance_mm)
        )


def _mixtures(slices: Sequence[SlicePose]) -> list[str]:
    """Return a sentence for each property that should be one and is several."""
    problems = []
    first = slices[0]
    sizes = {(p.rows, p.columns) for p in slices}
    if len(sizes) > 1:
        listed = " and ".join(f"{rows}x{columns}" for rows, columns in sorted(sizes))
        problems.append(f"the slices have different sizes: {listed}")
    spacings = np.array([p.spacing for p in slices])
    if np.any(spacings <= 0):
        problems.append("a slice has no pixel spacing above zero")
    elif np.any(np.abs(spacings / np.asarray(first.spacing) - 1) > SPACING_TOLERANCE):
        problems.append("the slices have different pixel spacings")
    count = _count_orientations(slices)
    if count > 1:
        problems.append(f"the slices have {count} different orientations")
    elif not _orthonormal(first):
        problems.append("the image orientation is not two perpendicular unit vectors")
    return problems


def _count_orientations(slices: Sequence[SlicePose]) -> int:
    found: list[Floats] = []
    for pose in slices:
        direction = np.array([*pose.row_direction, *pose.column_direction])
        if not any(np.all(np.abs(direction - f) <= ORIENTATION_TOLERANCE) for f in found):
            found.append(direction)
    return len(found)


def _orthonormal(pose: SlicePose) -> bool:
    row, column = np.array(pose.row_direction), np.array(pose.column_direction)
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
    return bool(np.all(np.abs(lengths - 1) < 1e-2) and abs(float(row @ column)) < 1e-3)  # noqa: PLR2004 (written cosines are rounded)


def _normal(pose: SlicePose) -> Floats:
    return np.asarray(np.cross(_unit(pose.row_direction), _unit(pose.column_direction)))


def _usual_step(steps: Floats) -> float:
    """Return the smallest step where it is frequent and divides all others, else the median.

    With many slices missing, the median is no longer the step that the scanner made.
    """
    if not steps.size:
        return 0.0
    least = float(np.median(steps[steps <= steps.min() + UNEVEN_MM]))
    multiples = steps / least
    even = np.all(np.abs(multiples - np.rint(multiples)) <= UNEVEN_SHARE * multiples + 1e-6)
    frequent = np.mean(np.rint(multiples) == 1) >= 0.2  # noqa: PLR2004 (a fifth)
    return least if even and frequent else float(np.median(steps))


def _gaps(positions: Floats, spacing: float) -> tuple[Gap, ...]:
    """Find lone or paired steps that are too long; longer runs are another spacing."""
    if spacing <= 0:
        return ()
    steps = np.diff(positions)
    long = steps > GAP_FACTOR * spacing
    gaps = []
    for k in np.flatnonzero(long):
        near = np.abs(steps - steps[k]) <= max(UNEVEN_MM, UNEVEN_SHARE * steps[k])
        if _run_length(near, int(k)) < 3:  # noqa: PLR2004 (see `examine`)
            gaps.append(
                Gap(
                    z_from=float(positions[k]),
                    z_to=float(positions[k + 1]),
                    missing=max(1, round(float(steps[k]) / spacing) - 1),
                )
            )
    return tuple(gaps)


def _run_length(flags: NDArray[np.bool_], at: int) -> int:
    """Return the length of the run of true flags around `at`."""
    first = last = at
    while first > 0 and flags[first - 1]:
        first -= 1
    while last + 1 < len(flags) and flags[last + 1]:
        last += 1
    return last - first + 1


def _drift(pose: SlicePose, origins: Floats) -> tuple[float, str]:
    """Return the tilt of the stack [degrees] and a sentence when the origins wander in plane."""
    normal = _normal(pose)
    offset = origins - origins[0]
    in_plane = offset - np.outer(offset @ normal, normal)
    wander = float(np.max(np.linalg.norm(np.diff(in_plane, axis=0), axis=1), initial=0.0))
    total = float(np.linalg.norm(in_plane[-1]))
    height = float(offset[-1] @ normal)
    tilt = float(np.degrees(np.arctan2(total, height))) if height > 0 else 0.0
    if max(wander, total / max(1, len(origins) - 1)) <= SHIFT_MM and total <= max(1.0, SHIFT_MM):
        return (tilt if tilt > 0.01 else 0.0), ""  # noqa: PLR2004 (below rounding)
    if height > 0:
        line = np.outer(offset @ normal / height, in_plane[-1])
        if float(np.max(np.linalg.norm(in_plane - line, axis=1))) <= 1.0:
            return tilt, f"the stack is sheared by {tilt:.1f} degrees (gantry tilt)"
    return tilt, f"the slice origins shift in plane by up to {wander:.1f} mm between neighbors"


def _describe(gap: Gap) -> str:
    verb = "a slice is" if gap.missing == 1 else f"{gap.missing} slices are"
    return f"{verb} missing between {gap.z_from:.1f} and {gap.z_to:.1f} mm along the stack"


def _extrapolate(x: Floats, xp: ArrayLike, fp: ArrayLike) -> Floats:
    """Interpolate linearly and go on with the end steps outside; one sample steps by one."""
    known, values = np.asarray(xp, dtype=np.float64), np.asarray(fp, dtype=np.float64)
    if known.size == 1:
        return np.asarray(values[0] + (x - known[0]), dtype=np.float64)
    at = np.clip(np.searchsorted(known, x, side="right") - 1, 0, known.size - 2)
    share = (x - known[at]) / (known[at + 1] - known[at])
    return np.asarray(values[at] + share * (values[at + 1] - values[at]), dtype=np.float64)


def _unit(vector: ArrayLike) -> Floats:
    direction = np.asarray(vector, dtype=np.float64)
    length = float(np.linalg.norm(direction))
    return _frozen(direction / length if length > 0 else direction)


def _frozen(values: ArrayLike) -> Floats:
    array = np.array(values, dtype=np.float64)
    array.flags.writeable = False
    return array
