"""A small procedural patient as a CT series with known slices, and the pipeline on it."""

import hashlib
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from scipy import ndimage

from demo import dicom
from demo.elements import Case
from demo.grid import Grid, centered_grid
from models.phantom_sites import patient
from models.training.quality_data import fbp_noise
from pipelines.api import InputFile, Inputs, Outcome, Provenance, Request, Role, settings_sha256
from pipelines.image_quality.pipeline import run
from pipelines.image_quality.settings import ImageQualitySettings

SHAPE, SPACING = (10, 150, 210), (4.0, 1.9, 1.9)
CASE = Case(seed=4)


def truth() -> np.ndarray:
    """Return the patient without noise, HU."""
    hu = patient("pelvis", SHAPE, SPACING, 3, noise_hu=0)
    return ndimage.gaussian_filter(hu, (0, 0.5, 0.5))


def noisy(sd: float = 20.0) -> np.ndarray:
    """Return the patient with noise of filtered back projection."""
    return truth() + fbp_noise(np.random.default_rng(2), SHAPE, sd)


def series(hu: np.ndarray | None = None, grid: Grid | None = None, **of: object) -> list[Dataset]:
    """Return the patient as a CT series; noisy where nothing is said."""
    hu = noisy() if hu is None else hu
    return dicom.ct_series(
        CASE, hu, grid or centered_grid(hu.shape, SPACING), device=dicom.PLANNING_CT, **of
    )


def run_on(folder: Path, datasets: list[Dataset], **settings: object) -> Outcome:
    """Write a series, run the pipeline on it, return its outcome."""
    (folder / "in").mkdir(parents=True)
    files = [
        InputFile(
            role=Role.CT,
            path=path,
            sop_instance_uid=str(ds.SOPInstanceUID),
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path, ds in zip(dicom.save(datasets, folder / "in"), datasets, strict=True)
    ]
    chosen = ImageQualitySettings(**settings)
    output = folder / "out"
    output.mkdir()
    provenance = Provenance(
        pipeline="image_quality",
        version="0.1.0",
        settings_sha256=settings_sha256(chosen),
        sources=tuple(sorted((f.sop_instance_uid, f.sha256) for f in files)),
    )
    inputs = Inputs(files=tuple(files))
    return run(Request(inputs=inputs, settings=chosen, provenance=provenance, output=output))
