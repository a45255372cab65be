"""The founding research's rival of the networks: an atlas carried over by deformable registration.

Run: ``.venv/bin/python -m benchmarks.contour_atlas ../shared/data/train_openkbp.tar OUT.json
--patients 12 --atlases 3``. Each held-out patient is registered to a few training patients (affine
by mean squares, then diffeomorphic demons on HU clipped to bone and air, 4 mm voxels); labels are
carried over and voted on. Same split and scores as `models.training.contour`.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from models.training.cases import Case
from models.training.evaluate_contour import score, summary
from models.training.openkbp import ORGANS, held_out, read_cases

CLIP_HU = (-1000, 500)
BODY_HU = -500
"""What is compared: images end where the dose was not of interest, so air says nothing."""
GRID_MM = 4.0
DEMONS_STEPS = 60
SMOOTH_VOXELS = 1.5


def length(case: Case) -> float:
    """Return how much of the body the image shows [mm]."""
    return case.hu.shape[0] * case.spacing[0]


def image(array: np.ndarray, case: Case) -> sitk.Image:
    """Return an array (slice, row, column) of a case as an image with its spacing."""
    made = sitk.GetImageFromArray(array)
    made.SetSpacing(case.spacing[::-1])
    return made


def cropped(case: Case) -> Case:
    """Return the case without the air around what is seen."""
    seen = (case.hu > -1000) | (case.labels > 0)
    box = tuple(
        slice(at[0], at[-1] + 1)
        for axis in range(3)
        if len(at := np.flatnonzero(seen.any(axis=tuple(a for a in range(3) if a != axis))))
    )
    return Case(name=case.name, hu=case.hu[box], labels=case.labels[box], drawn=case.drawn,
                spacing=case.spacing)  # fmt: skip


def coarse(case: Case) -> sitk.Image:
    """Return the CT clipped, at `GRID_MM`."""
    fine = image(np.clip(case.hu, *CLIP_HU).astype(np.float32), case)
    size = [
        int(np.ceil(n * s / GRID_MM))
        for n, s in zip(fine.GetSize(), fine.GetSpacing(), strict=True)
    ]
    return sitk.Resample(fine, size, sitk.Transform(), sitk.sitkLinear, (0.0, 0.0, 0.0),
                         (GRID_MM,) * 3, fine.GetDirection(), float(CLIP_HU[0]))  # fmt: skip


def placed(fixed: sitk.Image, moving: sitk.Image) -> sitk.Transform:
    """Return the shift along the body at which the images differ least, middles on each other.

    Scans begin and end anywhere, so the optimizer needs to be told where the head is.
    """
    small = [sitk.Shrink(i, [3, 3, 3]) for i in (fixed, moving)]
    middle = [
        np.array(i.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in i.GetSize()]))
        for i in (fixed, moving)
    ]
    best, least = None, np.inf
    target = sitk.GetArrayFromImage(small[0])
    for along in range(-120, 121, 12):
        shift = sitk.AffineTransform(3)
        shift.SetCenter(tuple(middle[0]))
        shift.SetTranslation(tuple(middle[1] - middle[0] + (0, 0, along)))
        there = sitk.Resample(small[1], small[0], shift, sitk.sitkLinear, float(CLIP_HU[0]))
        difference = sitk.GetArrayFromImage(there) - target
        cost = float(np.mean(difference[target > BODY_HU] ** 2))
        if cost < least:
            best, least = shift, cost
    return best


def carried(patient: Case, atlas: Case) -> np.ndarray:
    """Return the labels of `atlas` on the grid of `patient`."""
    fixed, moving = coarse(patient), coarse(atlas)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMeanSquares()
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.2, seed=1)
    method.SetMetricFixedMask(fixed > BODY_HU)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-3, 120)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([2, 1])
    method.SetInitialTransform(placed(fixed, moving), inPlace=False)
    affine = method.Execute(fixed, moving)
    warped = sitk.Resample(moving, fixed, affine, sitk.sitkLinear, float(CLIP_HU[0]))
    demons = sitk.DiffeomorphicDemonsRegistrationFilter()
    demons.SetNumberOfIterations(DEMONS_STEPS)
    demons.SetStandardDeviations(SMOOTH_VOXELS)
    field = sitk.DisplacementFieldTransform(
        sitk.Cast(demons.Execute(fixed, warped), sitk.sitkVectorFloat64)
    )
    both = sitk.CompositeTransform([affine, field])
    found = sitk.Resample(image(atlas.labels, atlas), image(patient.labels, patient), both,
                          sitk.sitkNearestNeighbor, 0)  # fmt: skip
    return sitk.GetArrayFromImage(found)


def voted(found: list[np.ndarray], atlases: list[Case]) -> np.ndarray:
    """Return the label that at least half of the atlases that have it agree on."""
    answer, best = np.zeros(found[0].shape, np.uint8), np.zeros(found[0].shape, np.float32)
    for label in range(1, len(ORGANS) + 1):
        owners = [f == label for f, a in zip(found, atlases, strict=True) if label in a.drawn]
        share = np.mean(owners, axis=0, dtype=np.float32) if owners else np.zeros_like(best)
        chosen = (share >= 0.5) & (share > best)
        answer[chosen], best[chosen] = label, share[chosen]
    return answer


def main() -> None:
    """Print and write the scores."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--patients", type=int, default=12)
    parser.add_argument("--atlases", type=int, default=3)
    args = parser.parse_args()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    everyone = [cropped(c) for c in read_cases(args.archive)]
    complete = [c for c in everyone if not held_out(c.name) and len(c.drawn) == len(ORGANS)]
    unseen = [c for c in everyone if held_out(c.name)][: args.patients]
    scores: dict[str, list[dict[str, float]]] = {organ: [] for organ in ORGANS}
    started = time.process_time()
    for patient in unseen:
        atlases = sorted(complete, key=lambda a: abs(length(a) - length(patient)))[: args.atlases]
        answer = voted([carried(patient, a) for a in atlases], atlases)
        for organ, row in score(patient, answer, ORGANS).items():
            scores[organ].append(row)
    table = summary(scores)
    seconds = (time.process_time() - started) / len(unseen)
    result = {"patients": len(unseen), "atlases": args.atlases, "complete_atlases": len(complete),
              "cpu_seconds_a_patient": round(seconds, 1), "organs": table}  # fmt: skip
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{seconds:.1f} CPU s a patient,", {o: r["dice"] for o, r in table.items()})


if __name__ == "__main__":
    main()
