"""A small patient of the phantom as DICOM: planning CT, CBCT with shading and noise, REG."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from scipy import ndimage

from demo import dicom, rt
from demo.elements import Case
from demo.grid import centered_grid
from models.phantom import Day, thorax
from pipelines.api import InputFile, Inputs, Outcome, Provenance, Request, Role, settings_sha256
from pipelines.synthetic_ct.pipeline import run
from pipelines.synthetic_ct.settings import SyntheticCTSettings

CASE = Case(seed=1)
SHIFT = np.array([9.0, -6.0, 8.0])
"""How the patient lies on the day of the CBCT, LPS [mm]: asymmetric."""
DAY = Day(shift_mm=(9.0, -6.0, 8.0), amplitude_mm=0.5, gas=1.0, seed=3)
CT_SHAPE, CT_SPACING = (36, 80, 80), (5.0, 4.8, 4.8)
CBCT_SHAPE, CBCT_SPACING = (22, 88, 88), (4.0, 4.4, 4.4)
CBCT_TO_CT = np.eye(4)
CBCT_TO_CT[:3, 3] = -SHIFT


def truth() -> np.ndarray:
    """Return the CT of the CBCT's day on the grid of the CBCT, HU."""
    return thorax(CBCT_SHAPE, CBCT_SPACING, 1, day=DAY, noise_hu=0).hu


def cbct_hu() -> np.ndarray:
    """Return the truth, blurred, compressed, cupped and noisy."""
    _, y, x = np.mgrid[: CBCT_SHAPE[0], : CBCT_SHAPE[1], : CBCT_SHAPE[2]]
    radius = np.hypot(y - 43.5, x - 43.5) * CBCT_SPACING[1]
    hu = 0.85 * (ndimage.gaussian_filter(truth(), (0, 0.6, 0.6)) + 1000) - 1000
    hu -= 80 * np.exp(-((radius / 110) ** 2)) * (hu > -900)
    hu += np.random.default_rng(5).normal(0, 20, hu.shape)
    return np.where(radius < 188, np.maximum(hu, -1000), -1000).astype(np.float32)


def planning_ct(case: Case = CASE, *, patient: int = 1) -> list[Dataset]:
    """Return the planning CT of the reference day."""
    phantom = thorax(CT_SHAPE, CT_SPACING, patient)
    grid = centered_grid(CT_SHAPE, CT_SPACING)
    return dicom.ct_series(case, phantom.hu, grid, device=dicom.PLANNING_CT)


def cbct(case: Case = CASE, *, hu: np.ndarray | None = None) -> list[Dataset]:
    """Return the CBCT in its own study and frame of reference."""
    hu = cbct_hu() if hu is None else hu
    grid = centered_grid(hu.shape, CBCT_SPACING)
    return dicom.ct_series(
        replace(case, study="treatment", date="20260119"),
        hu,
        grid,
        device=dicom.VARIAN_CBCT,
        series="cbct",
        frame="cbct",
    )


def registration(matrix: np.ndarray = CBCT_TO_CT) -> Dataset:
    """Return the REG from the CBCT to the planning CT."""
    return dicom.reg(CASE, planning_ct(), cbct(), matrix)


def run_on(folder: Path, objects: dict[Role, list[Dataset]], **settings: object) -> Outcome:
    """Write `objects`, run the pipeline on them, return its outcome; files go below `folder`."""
    files = []
    for role, datasets in objects.items():
        (folder / "in" / role).mkdir(parents=True, exist_ok=True)
        paths = dicom.save(datasets, folder / "in" / role)
        files += [
            InputFile(
                role=role,
                path=path,
                sop_instance_uid=str(ds.SOPInstanceUID),
                sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            )
            for path, ds in zip(paths, datasets, strict=True)
        ]
    chosen = SyntheticCTSettings(**settings)
    provenance = Provenance(
        pipeline="synthetic_ct",
        version="0.1.0",
        settings_sha256=settings_sha256(chosen),
        sources=tuple(sorted((f.sop_instance_uid, f.sha256) for f in files)),
    )
    output = folder / "out"
    output.mkdir()
    return run(
        Request(
            inputs=Inputs(files=tuple(files)),
            settings=chosen,
            provenance=provenance,
            output=output,
        )
    )


CONTOURED = ("External", "Lung_L", "Lung_R", "Heart", "SpinalCanal", "GTV")


def structures(case: Case = CASE, *, names: tuple[str, ...] = CONTOURED) -> Dataset:
    """Return the phantom's own contours of `names`, and a point, on the planning CT."""
    grid = centered_grid(CT_SHAPE, CT_SPACING)
    labels = thorax(CT_SHAPE, CT_SPACING, 1).labels
    colors = [
        (230, 200, 40),
        (60, 160, 250),
        (60, 220, 220),
        (250, 80, 60),
        (90, 240, 90),
        (240, 80, 240),
    ]
    rois = [
        rt.Roi(name=n, rings=rt.rings_from_mask(labels[n], grid), color=color)
        for n, color in zip(names, colors, strict=False)
    ]
    rois.append(rt.Roi(name="ISO", rings=(np.zeros((1, 3)),)))
    ds = rt.rtstruct(case, planning_ct(case), rois)
    ds.ROIContourSequence[-1].ContourSequence[0].ContourGeometricType = "POINT"
    return ds
