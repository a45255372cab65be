"""Small seeded DICOM objects for tests: a thorax of ellipsoids, 5-20 slices of 64 × 64.

Every value follows from closed forms in patient space, so each orientation shows the same
anatomy and the truth of any measurement is known. Thin layer over `demo.dicom`.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from demo import dicom, rt
from demo.dicom import save
from demo.elements import Case, Device
from demo.grid import Grid, centered_grid
from demo.rt import Roi

__all__ = [
    "CASE",
    "CBCT_TO_CT",
    "MARKER",
    "TISSUES",
    "Case",
    "Device",
    "Grid",
    "Roi",
    "cbct_grid",
    "cbct_series",
    "ct_grid",
    "ct_series",
    "dose_at",
    "ellipsoid",
    "hu_at",
    "reg",
    "rtdose",
    "rtplan",
    "rtstruct",
    "save",
    "study",
    "without",
]

CASE = Case(seed=1)
SHAPE = (12, 64, 64)
SPACING = (5.0, 6.0, 6.0)

TISSUES: dict[str, tuple[tuple[float, float, float], tuple[float, float, float], float]] = {
    # name: (center LPS [mm], half axes [mm], HU), painted in this order
    "External": ((0, 0, 0), (160, 100, 1e6), 40),
    "Lung_R": ((-70, -10, 0), (45, 60, 1e6), -750),
    "Lung_L": ((70, -10, 0), (45, 60, 1e6), -750),
    "Spine": ((0, 65, 0), (22, 22, 1e6), 500),
    "SpinalCanal": ((0, 65, 0), (9, 9, 1e6), 30),
    "GTV": ((70, -10, 5), (20, 20, 15), 30),
}
"""Ellipsoids in patient space; ``1e6`` makes a cylinder along z."""
MARKER = (-130.0, -30.0, 12.5)
"""A small bright ball off every axis of symmetry: tells a mirrored volume at once [mm]."""
MARKER_RADIUS = 9.0
MARKER_HU = 2000

_ROTATION = np.deg2rad(3.0)
CBCT_TO_CT = np.array(
    [
        [np.cos(_ROTATION), -np.sin(_ROTATION), 0, 8.0],
        [np.sin(_ROTATION), np.cos(_ROTATION), 0, -5.0],
        [0, 0, 1, 4.0],
        [0, 0, 0, 1],
    ]
)
"""Takes points of the CBCT frame to the CT frame, LPS [mm]."""


def ellipsoid(
    positions: NDArray[np.float64],
    center: tuple[float, float, float],
    half_axes: tuple[float, float, float],
) -> NDArray[np.bool_]:
    """Return which LPS positions [mm], shape (..., 3), lie inside an ellipsoid."""
    return np.sum(((positions - center) / half_axes) ** 2, axis=-1) <= 1


def hu_at(positions: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the HU of the test anatomy at LPS positions [mm], shape (..., 3)."""
    hu = np.full(positions.shape[:-1], -1000, np.float32)
    for center, half_axes, value in TISSUES.values():
        hu[ellipsoid(positions, center, half_axes)] = value
    hu[ellipsoid(positions, MARKER, (MARKER_RADIUS,) * 3)] = MARKER_HU
    return hu


def dose_at(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a dose [Gy] that is linear in x and falls to 0 outside the body: 30 + 0.2 x."""
    inside = ellipsoid(positions, *TISSUES["External"][:2])
    return np.where(inside, 30 + 0.2 * positions[..., 0], 0.0)


def ct_grid(
    slices: int = SHAPE[0],
    *,
    position: str = "HFS",
    tilt_deg: float = 0.0,
    rows: int = SHAPE[1],
    columns: int = SHAPE[2],
    spacing: tuple[float, float, float] = SPACING,
) -> Grid:
    """Return the grid of the planning CT, centered at the origin."""
    return centered_grid((slices, rows, columns), spacing, position=position, tilt_deg=tilt_deg)


def cbct_grid(slices: int = 8) -> Grid:
    """Return the grid of the CBCT in its own frame of reference."""
    return centered_grid((slices, 64, 64), (4.0, 5.0, 5.0))


def ct_series(
    case: Case = CASE,
    *,
    grid: Grid | None = None,
    position: str = "HFS",
    device: Device = dicom.PLANNING_CT,
    series: str = "ct",
    frame: str = "planning",
) -> list[Dataset]:
    """Return the planning CT in slice order; `position` also turns the grid."""
    grid = grid or ct_grid(position=position)
    return dicom.ct_series(
        case,
        hu_at(grid.positions()),
        grid,
        device=device,
        position=position,
        series=series,
        frame=frame,
    )


def cbct_series(
    case: Case = CASE,
    *,
    grid: Grid | None = None,
    device: Device = dicom.VARIAN_CBCT,
    seed: int = 0,
    series: str = "cbct",
    frame: str = "cbct",
) -> list[Dataset]:
    """Return a CBCT of the same anatomy: moved by `CBCT_TO_CT`, shaded, noisy, own study."""
    grid = grid or cbct_grid()
    positions = grid.positions()
    truth = hu_at(positions @ CBCT_TO_CT[:3, :3].T + CBCT_TO_CT[:3, 3])
    noise = np.random.default_rng(seed).normal(0, 25, truth.shape)
    hu = np.where(truth > -1000, 0.85 * truth - 60 + noise, -1000)
    return dicom.ct_series(
        replace(case, study="treatment", date="20260119"),
        hu,
        grid,
        device=device,
        series=series,
        frame=frame,
    )


def rtstruct(
    case: Case = CASE,
    ct: list[Dataset] | None = None,
    *,
    grid: Grid | None = None,
    names: Iterable[str] = ("GTV", "Lung_L", "Lung_R", "SpinalCanal", "External"),
) -> Dataset:
    """Return the structures of `TISSUES` drawn on `ct`, which must lie on `grid`."""
    grid = grid or ct_grid()
    positions = grid.positions()
    kinds = {"External": "EXTERNAL", "GTV": "GTV"}
    rois = [
        Roi(
            name=name,
            rings=rt.rings_from_mask(ellipsoid(positions, *TISSUES[name][:2]), grid),
            interpreted_type=kinds.get(name, "ORGAN"),
        )
        for name in names
    ]
    return rt.rtstruct(case, ct or ct_series(case, grid=grid), rois)


def rtplan(case: Case = CASE, structures: Dataset | None = None) -> Dataset:
    """Return a plan of 60 Gy in 30 fractions on `structures`."""
    return rt.rtplan(case, structures or rtstruct(case))


def rtdose(
    case: Case = CASE,
    plan: Dataset | None = None,
    *,
    grid: Grid | None = None,
    bits: int = 32,
) -> Dataset:
    """Return `dose_at` on a grid coarser than the CT and offset from it."""
    grid = grid or centered_grid((10, 40, 50), (6.0, 7.0, 8.0), center=(3.0, -2.0, 1.0))
    return rt.rtdose(case, dose_at(grid.positions()), grid, plan or rtplan(case), bits=bits)


def reg(
    case: Case = CASE, ct: list[Dataset] | None = None, cbct: list[Dataset] | None = None
) -> Dataset:
    """Return the registration from the CBCT to the CT by `CBCT_TO_CT`."""
    return dicom.reg(case, ct or ct_series(case), cbct or cbct_series(case), CBCT_TO_CT)


def study(case: Case = CASE) -> dict[str, list[Dataset]]:
    """Return a whole consistent patient: CT, RTSTRUCT, RTPLAN, RTDOSE, CBCT and REG."""
    ct, cbct = ct_series(case), cbct_series(case)
    structures = rtstruct(case, ct)
    plan = rtplan(case, structures)
    return {
        "CT": ct,
        "RTSTRUCT": [structures],
        "RTPLAN": [plan],
        "RTDOSE": [rtdose(case, plan)],
        "CBCT": cbct,
        "REG": [reg(case, ct, cbct)],
    }


def without(series: list[Dataset], *indices: int) -> list[Dataset]:
    """Return `series` without the slices at `indices`: a gap."""
    return [ds for k, ds in enumerate(series) if k not in indices]
