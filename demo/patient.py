"""The generated patient of the demo: planning data of one day, a CBCT of another, and the truth.

The planning CT, its structures and the dose come from one analytic anatomy (`models.phantom`); the
CBCT shows the same patient two weeks later (moved, deformed, other gas), projected, scattered,
made noisy and reconstructed by `models.cbct_sim`. All of it is simulated: figures on it say that
the chain works, not how good it is on patients.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy import ndimage

from demo.dicom import VARIAN_CBCT, ct_series, reg, save
from demo.elements import Case
from demo.grid import Grid
from demo.rt import Roi, rings_from_mask, rtdose, rtplan, rtstruct
from models import cbct_sim, phantom
from models.phantom import Day, Phantom

PRESCRIPTION_GY: Final = 60.0
PTV_MARGIN_MM: Final = 7.0
SEED: Final = 7
CENTER: Final = (0.0, 0.0, 10.0)
"""Middle of the planning CT, patient LPS [mm]: apex of the lungs to below the domes."""
ROI_TYPES: Final = {
    "External": "EXTERNAL", "GTV": "GTV", "PTV": "PTV", "Lung_L": "ORGAN", "Lung_R": "ORGAN",
    "Heart": "ORGAN", "Esophagus": "ORGAN", "SpinalCanal": "ORGAN",
}  # fmt: skip
"""Structures that the TPS sends, and their RT ROI Interpreted Type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How finely the patient is sampled: (slices, rows, columns) and mm."""

    ct_shape: tuple[int, int, int] = (80, 240, 240)
    ct_spacing: tuple[float, float, float] = (3.0, 1.9, 1.9)
    cbct_shape: tuple[int, int, int] = (48, 192, 192)
    cbct_spacing: tuple[float, float, float] = (3.0, 2.4, 2.4)
    dose_shape: tuple[int, int, int] = (100, 80, 120)
    dose_spacing: tuple[float, float, float] = (2.5, 3.0, 3.0)
    views: int = 360


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """What the devices send, and what only the demo knows."""

    modality: Mapping[str, list[Dataset]]
    """CT, CBCT and REG: pushed by the modality."""
    planning: Mapping[str, list[Dataset]]
    """RTSTRUCT, RTPLAN and RTDOSE: pushed by the TPS."""
    ct: Phantom
    """Planning day: image and truth on the grid of the CT."""
    structures: Mapping[str, NDArray[np.bool_]]
    """The drawn structures on the grid of the CT."""
    dose_gy: NDArray[np.float32]
    """Dose on the grid of the CT [Gy]."""
    cbct: NDArray[np.float32]
    """Shape of `treatment.hu`, HU."""
    treatment: Phantom
    """Day of the CBCT: the true HU on its grid, in the coordinates of the planning day."""


def generate(size: Size | None = None, *, say: Callable[[str], None] = lambda _: None) -> Patient:
    """Return the patient; the same arguments give the same bytes.

    Parameters
    ----------
    size
        Sampling; default that of the demo.
    say
        Told before each step, for a progress display.
    """
    size = size or Size()
    say("planning CT and structures")
    planning_day = phantom.thorax(size.ct_shape, size.ct_spacing, SEED, center=CENTER)
    structures = {**planning_day.labels, "PTV": _grown(planning_day, PTV_MARGIN_MM)}
    say("CBCT of another day: projections, scatter, noise, reconstruction")
    day = Day()
    isocenter = phantom.thorax((2, 2, 2), (3.0, 2.0, 2.0), SEED, day=day).target
    treatment = phantom.thorax(
        size.cbct_shape, size.cbct_spacing, SEED, day=day, center=isocenter, noise_hu=0.0
    )
    settings = cbct_sim.CbctSettings(views=size.views)
    cbct = cbct_sim.simulate(treatment.hu, treatment.spacing, settings, SEED)
    say("plan and dose")
    case = Case(seed=SEED)
    images = _images(case, planning_day, treatment, cbct)
    drawn = {name: structures[name] for name in ROI_TYPES}
    return Patient(
        modality=images,
        planning=_plan(case, images["CT"], planning_day, drawn, size),
        ct=planning_day,
        structures=structures,
        dose_gy=phantom.dose(planning_day, prescription_gy=PRESCRIPTION_GY),
        cbct=cbct,
        treatment=treatment,
    )


def write(patient: Patient, folder: Path) -> list[Path]:
    """Write all objects under `folder`, one folder a kind, and return their paths."""
    kinds = {**patient.modality, **patient.planning}
    return [path for kind, objects in kinds.items() for path in save(objects, folder / kind)]


def _images(
    case: Case, planning_day: Phantom, treatment: Phantom, cbct: NDArray[np.float32]
) -> dict[str, list[Dataset]]:
    """Return CT, CBCT in a frame of its own around the isocenter, and the match of the two."""
    ct = ct_series(case, planning_day.hu, _grid(planning_day))
    own_origin = np.subtract(treatment.origin, treatment.target)
    x, y, z = (float(c) for c in own_origin)
    cone_beam = ct_series(
        replace(case, study="treatment", date="20260119"),
        cbct,
        replace(_grid(treatment), origin=(x, y, z)),
        device=VARIAN_CBCT,
        frame="cbct",
        series="cbct",
    )
    to_planning = np.eye(4)  # the therapists matched target on target
    to_planning[:3, 3] = planning_day.target
    matched = reg(replace(case, date="20260119"), ct, cone_beam, to_planning)
    return {"CT": ct, "CBCT": cone_beam, "REG": [matched]}


def _plan(
    case: Case,
    ct: list[Dataset],
    planning_day: Phantom,
    drawn: Mapping[str, NDArray[np.bool_]],
    size: Size,
) -> dict[str, list[Dataset]]:
    grid = _grid(planning_day)
    rois = [
        Roi(name=name, rings=rings_from_mask(mask, grid), interpreted_type=ROI_TYPES[name])
        for name, mask in drawn.items()
    ]
    structure_set = rtstruct(case, ct, rois)
    plan = rtplan(case, structure_set, prescription_gy=PRESCRIPTION_GY)
    sampled = _dose_grid(planning_day, size)
    dose = phantom.dose(sampled, prescription_gy=PRESCRIPTION_GY)
    return {
        "RTSTRUCT": [structure_set],
        "RTPLAN": [plan],
        "RTDOSE": [rtdose(case, dose, _grid(sampled), plan)],
    }


def _dose_grid(planning_day: Phantom, size: Size) -> Phantom:
    """Return the patient with the grid of the dose: coarser than the CT and offset from it."""
    extent = (np.array(size.dose_shape) - 1) * size.dose_spacing / 2
    x, y, z = (float(c) for c in np.subtract(CENTER, extent[::-1]))
    empty = np.zeros(size.dose_shape, np.float32)
    return replace(planning_day, hu=empty, spacing=size.dose_spacing, origin=(x, y, z))


def _grown(planning_day: Phantom, margin_mm: float) -> NDArray[np.bool_]:
    """Return the GTV grown by `margin_mm`: the PTV."""
    outside = ~planning_day.labels["GTV"]
    distance = ndimage.distance_transform_edt(outside, sampling=planning_day.spacing)
    return np.asarray(distance <= margin_mm) & planning_day.labels["External"]


def _grid(sampled: Phantom) -> Grid:
    slices, rows, columns = sampled.hu.shape
    return Grid(shape=(slices, rows, columns), spacing=sampled.spacing, origin=sampled.origin)
