"""What small differences between two people who draw an organ cost in Dice, on OpenKBP's labels.

Run: ``python -m benchmarks.contour_limits --archive ../shared/data/train_openkbp.tar``; about a
minute. For each organ of the training patients (no network, no held-out patient): the Dice of a
label with itself after its surface moved outwards or inwards everywhere by 1 or 2 mm, and after
one slice was left out at both ends. The last columns are of the labels alone: the ratio of left
to right parotid, and how the length of an organ along the patient varies between patients.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.training.openkbp import ORGANS, held_out, read_cases

FINER = 3
"""In-plane voxels are split into so many a side, so that a millimeter can be told."""
MOVES_MM = (1.0, 2.0)


def moved(mask: NDArray[np.bool_], spacing: tuple[float, float, float], mm: float) -> float:
    """Return the mean Dice of an organ with itself grown and shrunk by `mm` within its slices.

    Parameters
    ----------
    mask : ndarray of bool, shape (slices, rows, columns)
    spacing : tuple of float
        Millimeters between slices, rows and columns.
    """
    fine = mask.repeat(FINER, axis=1).repeat(FINER, axis=2)
    pixel = (spacing[1] / FINER, spacing[2] / FINER)
    sizes = np.zeros(3)
    for plane in fine:
        outside = ndimage.distance_transform_edt(~plane, pixel) - pixel[0] / 2
        inside = ndimage.distance_transform_edt(plane, pixel) - pixel[0] / 2
        sizes += (plane.sum(), (outside < mm).sum() if plane.any() else 0, (inside > mm).sum())
    own, grown, shrunk = sizes
    return float(np.mean([2 * own / (own + grown), 2 * shrunk / (own + shrunk)]))


def without_ends(mask: NDArray[np.bool_]) -> float:
    """Return the Dice of an organ with itself without its first and last slice."""
    areas = mask.sum(axis=(1, 2))
    found = np.flatnonzero(areas)
    kept = areas[found[1:-1]].sum()
    return float(2 * kept / (kept + areas.sum()))


def main() -> None:
    """Print a row for each organ."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--archive", type=Path, required=True)
    args = parser.parse_args()
    rows: dict[str, list[tuple[float, ...]]] = {organ: [] for organ in ORGANS}
    sides = []
    for case in read_cases(args.archive):
        if held_out(case.name):
            continue
        ml = {}
        for label in case.drawn:
            mask = case.labels == label
            box = ndimage.find_objects(mask.astype(np.uint8))
            if not box:
                continue
            mask = np.pad(mask[box[0]], 3)
            ml[label] = mask.sum() * np.prod(case.spacing) / 1000
            length = (box[0][0].stop - box[0][0].start) * case.spacing[0]
            dice = [moved(mask, case.spacing, mm) for mm in MOVES_MM]
            rows[ORGANS[label - 1]].append((*dice, without_ends(mask), length))
        if {3, 4} <= ml.keys():
            sides.append(ml[3] / ml[4])
    print("organ            n   1 mm   2 mm   ends  length [mm] 10/50/90 %")
    for organ, found in rows.items():
        table = np.array(found)
        low, middle, high = np.quantile(table[:, 3], (0.1, 0.5, 0.9))
        one, two, ends = table[:, :3].mean(axis=0)
        print(f"{organ:15} {len(table):3d}  {one:.3f}  {two:.3f}  {ends:.3f}  "
              f"{low:.0f}/{middle:.0f}/{high:.0f}")  # fmt: skip
    ratio = np.abs(np.log(sides))
    print(f"left to right parotid, {len(sides)} patients: volumes differ by "
          f"{100 * (np.exp(np.median(ratio)) - 1):.0f} % in the median, by more than "
          f"{100 * (np.exp(np.quantile(ratio, 0.9)) - 1):.0f} % in a tenth")  # fmt: skip


if __name__ == "__main__":
    main()
