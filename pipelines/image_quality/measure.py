"""How near the classical method and the network come to an image that was made worse.

Noise is added to a CT, or its slices are averaged in pairs; both methods answer as a job would, and
are held against the CT. A CT has noise of its own, which no method can foretell: it bounds what
can be reached. Errors are taken in the body.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from models.training.quality_data import Clean, clean_of, fbp_noise, quiet_phantom, thickened
from models.training.sct_data import PHANTOM_SITES
from pipelines.dicom.volume import CtVolume
from pipelines.geometry.stack import StackGeometry
from pipelines.image_quality.classical import diffused, parted
from pipelines.image_quality.learned import Learned
from pipelines.image_quality.pipeline import Candidate, Scene, judged, limits_of
from pipelines.image_quality.settings import ImageQualitySettings

Hu = NDArray[np.float32]

RANGE_HU: Final = 4024.0
SLICES: Final = 24
"""At most so many of an image are measured."""
NOISE_HU: Final = {"noise_reduction": (10.0, 20.0, 30.0), "super_resolution": (0.0,)}
"""Task -> SD of the noise that is added to a held-out CT."""
PHANTOM_NOISE_HU: Final = {"noise_reduction": (8.0, 35.0), "super_resolution": (5.0, 20.0)}
"""Task -> range of the SD of the noise that is added to a phantom, which has none."""
PIXEL_MM: Final = 1.2


def spoiled(clean: Clean, task: str, noise_hu: float, seed: int) -> tuple[Scene, Hu]:
    """Return an image made worse, as a job sees it, and the truth on the grid of the answer.

    Parameters
    ----------
    clean : Clean
    task : str
        noise_reduction or super_resolution.
    noise_hu : float
        SD of the noise that is added; before averaging, where slices are.
    seed : int
    """
    factor = 1 if task == "noise_reduction" else 2
    depth = min(SLICES, len(clean.hu)) // factor * factor
    first = (len(clean.hu) - depth) // 2
    truth = clean.hu[first : first + depth].astype(np.float32)
    body = clean.body[first : first + depth]
    noisy = truth + fbp_noise(np.random.default_rng([seed, 73]), truth.shape, noise_hu)
    if factor > 1:
        truth = noisy
    hu = np.rint(np.clip(thickened(noisy, factor), -1024, 3071)).astype(np.float32)
    body = body if factor == 1 else body[::2] & body[1::2]
    step, rows, columns = clean.spacing
    geometry = StackGeometry.regular(shape=hu.shape, spacing=(step * factor, rows, columns))
    ct = CtVolume(
        hu=hu,
        padded=None,
        geometry=geometry,
        headers=tuple(Dataset() for _ in hu),
        frame_of_reference_uid="1.2.3",
    )
    settings = ImageQualitySettings.model_validate({"task": task, "max_change_hu": MOST[task]})
    return Scene(ct=ct, body=body, factor=factor, settings=settings), truth


MOST: Final = {"noise_reduction": 100.0, "super_resolution": 300.0}
"""Bound of the change when methods are compared, HU."""


def answers(scene: Scene, learned: Learned | None) -> dict[str, Candidate]:
    """Return what each method makes of the scene, judged."""
    made = {
        "classical": diffused(scene.hu, scene.ct.geometry)
        if scene.factor == 1
        else parted(scene.hu, scene.factor)
    }
    found = {name: judged(scene, hu, name, {}) for name, hu in made.items()}
    if learned is not None:
        found["network"] = judged(scene, learned.apply(scene.hu), "network", limits_of(learned))
    return found


def measured(truth: Hu, found: dict[str, Candidate]) -> dict[str, float]:
    """Return MAE, RMSE, PSNR and the edges kept of the input and of each answer."""
    some = next(iter(found.values())).case
    images = {"raw": some.before, **{name: c.case.after for name, c in found.items()}}
    row: dict[str, float] = {}
    for name, hu in images.items():
        off = (hu - truth)[some.body].astype(np.float64)
        rms = float(np.sqrt(np.mean(off**2)))
        row |= {
            f"{name}_mae": float(np.abs(off).mean()),
            f"{name}_rms": rms,
            f"{name}_me": float(off.mean()),
            f"{name}_psnr": float(20 * np.log10(RANGE_HU / max(rms, 1e-9))),
        }
    for name, candidate in found.items():
        row[f"{name}_edges"] = candidate.case.change.edges_kept
    return {name: round(value, 3) for name, value in row.items()}


def procedural(seed: int, *, slice_mm: float = 2.0) -> Clean:
    """Return a procedural patient; seeds above 900 were never trained on."""
    site = PHANTOM_SITES[seed % len(PHANTOM_SITES)]
    return clean_of(quiet_phantom(site, seed, pixel_mm=PIXEL_MM, slice_mm=slice_mm, slices=20))


def mean_of(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return the mean of each measure over all cases."""
    keys = next(iter(rows.values()))
    return {k: round(float(np.mean([r[k] for r in rows.values()])), 3) for k in keys}
