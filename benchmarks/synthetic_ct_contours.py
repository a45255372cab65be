"""Propagated planning contours against the truth of the CBCT's day.

    python -m benchmarks.synthetic_ct_contours [--cases N] [--pack FOLDER]

The procedural thoraxes of `benchmarks.synthetic_ct`: another day (a known smooth deformation,
moved organs), simulated CBCT, planning CT placed by the known shift; truth are the labels of the
day inside the field of view. With --pack: dev_lung1_001_thorax with its REG; its planning CT is the
truth CT, so that only the way through the matrix is measured.
"""

import argparse
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from benchmarks.synthetic_ct import case
from demo import rt
from demo.grid import Grid
from models.metrics import agreement
from models.phantom import Day, thorax
from pipelines.api import InputFile, Inputs, Role
from pipelines.autocontour.pairs import mask_of
from pipelines.dicom.rtstruct import Loop, Roi, read_structure_set
from pipelines.dicom.volume import resample_to
from pipelines.geometry.contours import LEVEL
from pipelines.geometry.stack import StackGeometry
from pipelines.synthetic_ct.contours import Moved, Passage, move
from pipelines.synthetic_ct.deform import find_deformation
from pipelines.synthetic_ct.inputs import read_inputs
from pipelines.synthetic_ct.methods import Method, Scene, order, run_chain
from pipelines.synthetic_ct.register import Prior

Scores = dict[tuple[str, str], list[tuple[float, float]]]
"""(structure, mode) -> (Dice, HD95 in mm) of each case."""


def phantom(number: int, scores: Scores) -> None:
    """Score one thorax of another day, rigid and deformable."""
    scene, _, _ = case(number)
    prior = scene.prior
    if prior is None or not prior.fits:
        print(f"{number}: the planning CT does not fit")
        return
    rng = np.random.default_rng(number)  # as in `case`
    shift = tuple(float(v) for v in rng.uniform(-8, 8, 3))
    day = Day(shift_mm=shift, amplitude_mm=float(rng.uniform(2, 6)), seed=number)
    today = thorax(scene.geometry.shape, scene.geometry.spacing, number, day=day, noise_hu=0)
    plan = thorax((80, 200, 200), (3.0, 2.2, 2.2), number)
    origin = np.add(plan.origin, shift)
    placed = Grid(shape=plan.hu.shape, spacing=plan.spacing, origin=tuple(map(float, origin)))
    rois = [_roi(n, name, mask, placed) for n, (name, mask) in enumerate(plan.labels.items(), 1)]
    geometry = StackGeometry.regular(
        shape=plan.hu.shape, spacing=plan.spacing, origin=placed.origin
    )
    truths = {name: mask & scene.regions.fov for name, mask in today.labels.items()}
    sct = run_chain(scene, (Method.HYBRID,))[-1].hu
    _score(scene, prior, sct, geometry, rois, truths, scores)


def pack(folder: Path, scores: Scores) -> None:
    """Score the thorax of the development pack against its planning contours."""
    places = {
        Role.CBCT: "SIMULATED_CBCT/CBCT", Role.PLANNING_CT: "CT", Role.REG: "SIMULATED_CBCT/REG"
    }  # fmt: skip
    files = tuple(
        InputFile(role=role, path=path, sop_instance_uid=path.stem, sha256="")
        for role, below in places.items()
        for path in sorted((folder / below).glob("*.dcm"))
    )
    read = read_inputs(Inputs(files=files))
    if read.prior is None or read.planning is None:
        print("the planning CT of the pack was not placed")
        return
    scene = Scene(cbct=read.hu, regions=read.regions, geometry=read.cbct.geometry, prior=read.prior)
    (structures,) = sorted((folder / "RTSTRUCT").glob("*.dcm"))
    rois = [r for r in read_structure_set(structures).rois if r.closed]
    truths = {
        roi.name: (
            resample_to(
                mask_of(roi, read.planning), read.planning.geometry, scene.geometry,
                outside=0, nearest=True, target_to_source=read.prior.matrix,
            )
            > LEVEL
        ) & scene.regions.fov
        for roi in rois
    }  # fmt: skip
    sct = run_chain(scene, order("auto", has_prior=True))[-1].hu
    _score(scene, read.prior, sct, read.planning.geometry, rois, truths, scores)


def _score(
    scene: Scene,
    prior: Prior,
    sct: np.ndarray,
    planning: StackGeometry,
    rois: list[Roi],
    truths: dict[str, np.ndarray],
    scores: Scores,
) -> None:
    start = time.process_time()
    found = find_deformation(sct, prior.hu, scene.known, scene.geometry)
    seconds = time.process_time() - start
    start = time.process_time()
    for mode, deformation in (("rigid", None), ("deformable", found)):
        passage = Passage(
            planning=planning, today=scene.geometry, matrix=prior.matrix,
            deformation=deformation, seen=scene.regions.fov,
        )  # fmt: skip
        for roi in rois:
            moved = move(roi, passage)
            if not isinstance(moved, Moved):
                print(f"{mode} {roi.name}: {moved.why}")
                continue
            mask = np.zeros(scene.geometry.shape, np.bool_)
            box = zip(moved.corner, moved.field.shape, strict=True)
            mask[tuple(slice(a, a + n) for a, n in box)] = moved.field > LEVEL
            measured = agreement(mask, truths[roi.name], scene.geometry.spacing)
            if measured is not None:
                scores[roi.name, mode].append((measured.dice, measured.hd95_mm))
    print(
        f"deformation {seconds:.1f} CPU s, smallest Jacobian {found.min_jacobian:.2f}, "
        f"p95 {found.displacement_p95_mm:.1f} mm; contours of both and scores "
        f"{time.process_time() - start:.1f} CPU s"
    )


def _roi(number: int, name: str, mask: np.ndarray, grid: Grid) -> Roi:
    loops = tuple(
        Loop(points=ring, geometric_type="CLOSED_PLANAR") for ring in rt.rings_from_mask(mask, grid)
    )
    return Roi(number=number, name=name, interpreted_type="", codes=(), loops=loops)


def main() -> None:
    """Print the mean of each structure and mode."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=3)
    parser.add_argument("--pack", type=Path)
    args = parser.parse_args()
    scores: Scores = defaultdict(list)
    for number in range(1, args.cases + 1):
        phantom(number, scores)
    if args.pack:
        pack(args.pack, scores)
    print(f"{'structure':<16} {'mode':<11} {'n':>2} {'Dice':>6} {'HD95':>6}")
    for (name, mode), values in sorted(scores.items()):
        dice, distance = np.mean(values, axis=0)
        print(f"{name:<16} {mode:<11} {len(values):>2} {dice:6.3f} {distance:6.2f}")


if __name__ == "__main__":
    main()
