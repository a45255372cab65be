"""A patient of ellipsoids whose deformation is known in closed form, with planning contours.

`POINT_OF` takes a point of today's image to the planning CT: a shear and a bulge, then an oblique
rigid matrix. Transposed, inverted or applied in the other order it is another map.
"""

from dataclasses import replace

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from demo import dicom, rt
from demo.grid import Grid, centered_grid
from pipelines.dicom.volume import to_sitk
from pipelines.geometry.stack import StackGeometry
from pipelines.synthetic_ct.deform import Deformation
from tests.factories import CASE, ct_series, ellipsoid

A, B = np.deg2rad(11.0), np.deg2rad(-7.0)
MATRIX = np.eye(4)
MATRIX[:3, :3] = np.array(
    [[np.cos(A), -np.sin(A), 0], [np.sin(A), np.cos(A), 0], [0, 0, 1]]
) @ np.array([[1, 0, 0], [0, np.cos(B), -np.sin(B)], [0, np.sin(B), np.cos(B)]])
MATRIX[:3, 3] = (14.0, -9.0, 6.0)

ROIS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "Marker": ((-62.0, 28.0, 11.0), (13.0, 9.0, 11.0)),
    "Parotid_L": ((48.0, -31.0, -9.0), (17.0, 22.0, 14.0)),
    "Bladder": ((5.0, 12.0, 4.0), (31.0, 24.0, 18.0)),
}
"""Ellipsoids of the planning CT, LPS [mm]; off every axis of symmetry."""


def displacement(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the vectors [mm] at today's points: up to 7 mm, no fold."""
    x, y, z = np.moveaxis(points, -1, 0)
    bulge = np.exp(-((x - 30) ** 2 + (y + 20) ** 2 + z**2) / (2 * 45.0**2))
    return np.stack([6.0 * bulge, -4.0 * bulge + 0.02 * z, 3.0 * np.sin(x / 60.0)], axis=-1)


def planned_point(points: NDArray[np.float64], *, deformed: bool = True) -> NDArray[np.float64]:
    """Return where today's points [mm] lie in the planning CT."""
    moved = points + displacement(points) if deformed else points
    return moved @ MATRIX[:3, :3].T + MATRIX[:3, 3]


def deformation(grid: StackGeometry) -> Deformation:
    """Return `displacement` on a grid, as the registration would give it."""
    return deformation_of(displacement(points_of(grid)), grid)


def deformation_of(field: NDArray[np.floating], grid: StackGeometry) -> Deformation:
    """Return vectors [mm], shape (slices, rows, columns, 3), as a registration would give them."""
    parts = [to_sitk(np.asarray(field[..., i], np.float64), grid) for i in range(3)]
    largest = float(np.linalg.norm(field, axis=-1).max())
    return Deformation(
        field=sitk.Compose(parts), min_jacobian=0.8, displacement_p95_mm=6.0, largest_mm=largest
    )


def points_of(grid: StackGeometry) -> NDArray[np.float64]:
    """Return the LPS points [mm] of all voxels, shape (slices, rows, columns, 3)."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
    return grid.points(index.reshape(-1, 3)).reshape(*grid.shape, 3)


def planning_grid(position: str = "HFS") -> Grid:
    """Return a planning grid that has nothing in common with today's."""
    return centered_grid((30, 100, 110), (3.0, 2.0, 2.0), position=position)


def planning_structures(position: str = "HFS", **rois: object) -> tuple[list[Dataset], Dataset]:
    """Return the planning CT and its structure set."""
    grid = planning_grid(position)
    ct = ct_series(grid=grid, position=position)
    where = grid.positions()
    drawn = [
        rt.Roi(name=name, rings=rt.rings_from_mask(ellipsoid(where, *shape), grid))
        for name, shape in {**ROIS, **rois}.items()
    ]
    return ct, rt.rtstruct(CASE, ct, drawn)


def images(grid: Grid, position: str = "HFS") -> list[Dataset]:
    """Return a series in another frame of reference and study: stands for the synthetic CT."""
    return dicom.ct_series(
        replace(CASE, study="treatment", date="20260119"),
        np.full(grid.shape, 0, np.float32),
        grid,
        device=dicom.VARIAN_CBCT,
        position=position,
        series="cbct",
        frame="cbct",
    )
