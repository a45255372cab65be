"""Noise reduction and thin slices: accuracy on held-out images, gates on good ones and on faults.

    python benchmarks/image_quality.py --task noise_reduction [--pack ct-noise]
        [--archive ../shared/data/train_sts_ct.tar.xz] [--json measured.json]

The six held-out patients with added noise of 10, 20 and 30 HU (or their slices averaged in pairs),
and procedural patients of seeds that were never trained on. `good` counts the verdicts on answers
of the methods, `faults` those on answers that were spoiled on purpose.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
from scipy import ndimage

from models.training.quality_data import Clean, evaluation_images
from pipelines.image_quality.classical import parted
from pipelines.image_quality.learned import open_pack
from pipelines.image_quality.measure import (
    NOISE_HU,
    answers,
    mean_of,
    measured,
    procedural,
    spoiled,
)
from pipelines.image_quality.pipeline import Scene, judge_image
from pipelines.imaging.verdict import Verdict


def faults(scene: Scene, after: np.ndarray) -> dict[str, np.ndarray]:
    """Return an answer spoiled in each way."""
    factor = scene.factor
    body = np.repeat(scene.body, factor, axis=0)
    depth = len(after)
    step, rows, columns = scene.ct.geometry.spacing
    # a place in soft tissue, away from the skin
    smooth = ndimage.gaussian_filter(after, (1, 3, 3))
    soft = ndimage.binary_erosion(body, np.ones((1, 25, 25))) & (smooth > 0) & (smooth < 90)
    places = np.argwhere(soft)
    k, i, j = (
        places[len(places) // 2]
        if len(places)
        else (depth // 2, *(n // 2 for n in after.shape[1:]))
    )
    z, y, x = np.ogrid[:depth, : after.shape[1], : after.shape[2]]
    ball = ((z - k) * step / factor) ** 2 + ((y - i) * rows) ** 2 + ((x - j) * columns) ** 2 < 7**2
    return {
        "over-smoothed": ndimage.gaussian_filter(after, (0, 1.5, 1.5)),
        "HU + 15": after + 15,
        "muscle + 8": np.where((smooth > 0) & (smooth < 120), after + 8, after),
        "sphere of 14 mm painted in, + 60 HU": np.where(ball, after + 60, after),
        "moved by one slice": np.roll(after, 1, axis=0),
        "moved by 2 pixels": np.roll(after, 2, axis=2),
        "slices in the wrong order": after[::-1],
        "grain added, 15 HU": after + np.random.default_rng(1).normal(0, 15, after.shape),
        "bone lost": np.where(smooth > 200, 60.0, after),
        **(
            {}
            if factor == 1
            else {
                "order wrong in each group": np.concatenate(
                    [after[n : n + factor][::-1] for n in range(0, depth, factor)]
                ),
                "copies of the thick slices": np.repeat(scene.hu, factor, axis=0),
            }
        ),
    }  # fmt: skip


def lesion_removed(clean: Clean, task: str, seed: int) -> tuple[Scene, np.ndarray]:
    """Return a scene with a sphere of 14 mm and 60 HU more, and an answer that lacks it."""
    scene, _ = spoiled(clean, task, 15.0, seed)
    plain = next(iter(answers(scene, None).values())).case.after
    with_it = faults(scene, scene.hu if scene.factor == 1 else parted(scene.hu, 2, cubic=False))
    shown = with_it["sphere of 14 mm painted in, + 60 HU"]
    hu = shown if scene.factor == 1 else shown.reshape(-1, 2, *shown.shape[1:]).mean(axis=1)
    ct = scene.ct.__class__(
        hu=np.rint(hu).astype(np.float32), padded=None, geometry=scene.ct.geometry,
        headers=scene.ct.headers, frame_of_reference_uid="1.2.3",
    )  # fmt: skip
    return Scene(ct=ct, body=scene.body, factor=scene.factor, settings=scene.settings), plain


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--archive", type=Path)
    parser.add_argument("--task", choices=("noise_reduction", "super_resolution"), required=True)
    parser.add_argument("--pack")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--good", type=int, default=20)
    parser.add_argument("--spoiled", type=int, default=4)
    parser.add_argument("--first-seed", type=int, default=901)
    args = parser.parse_args()
    learned = None if args.pack is None else open_pack(args.pack, args.task)
    noise = NOISE_HU[args.task]
    verdicts: dict[str, Counter[str]] = {}
    failing: Counter[str] = Counter()
    table: dict[str, dict[str, float]] = {}

    def judge(name: str, clean: Clean, noise_hu: float, seed: int) -> dict[str, float]:
        scene, truth = spoiled(clean, args.task, noise_hu, seed)
        found = answers(scene, learned)
        for method, candidate in found.items():
            verdicts.setdefault(method, Counter())[str(candidate.verdict)] += 1
            bad = [
                f"{g.name} {g.value:.3g}" for g in candidate.gates if g.verdict is not Verdict.PASS
            ]
            failing.update(f"{method} {b.split()[0]}" for b in bad)
            if bad:
                print(f"  {name} {method} {candidate.verdict}: {', '.join(bad)}", flush=True)
        row = measured(truth, found)
        words = ", ".join(f"{k} {v}" for k, v in row.items() if not k.endswith(("rms", "me")))
        print(f"{name}: {words}", flush=True)
        return row

    if args.archive is not None:
        for clean in evaluation_images(args.archive):
            for sd in noise:
                name = clean.name + (f", noise {sd:.0f} HU" if sd else "")
                table[name] = judge(name, clean, sd, 1)
        table["mean of patients"] = mean_of(table)
    phantoms: dict[str, dict[str, float]] = {}
    random = np.random.default_rng(5)
    for n in range(args.good):
        seed = args.first_seed + n
        sd = float(
            random.uniform(8, 35) if args.task == "noise_reduction" else random.uniform(5, 20)
        )
        clean = procedural(seed, slice_mm=float(random.uniform(1.0, 3.0)))
        phantoms[clean.name] = judge(f"{clean.name}, noise {sd:.0f} HU", clean, sd, seed)
    if phantoms:
        table[f"mean of {len(phantoms)} procedural patients"] = mean_of(phantoms)
    print("good:", {m: dict(c) for m, c in verdicts.items()}, dict(failing))
    caught: Counter[str] = Counter()
    tripped: dict[str, Counter[str]] = {}
    for n in range(args.spoiled):
        clean = procedural(args.first_seed + 100 + n)
        scene, _ = spoiled(clean, args.task, 15.0, n)
        after = answers(scene, None)["classical"].case.after
        wrong = {name: (scene, image) for name, image in faults(scene, after).items()}
        wrong["sphere of 14 mm removed"] = lesion_removed(clean, args.task, n)
        for name, (where, image) in wrong.items():
            judged = judge_image(where, np.asarray(image, np.float32), "fault", {})
            caught[name] += judged.verdict is Verdict.FAIL
            tripped.setdefault(name, Counter()).update(
                f"{g.name} {g.verdict}" for g in judged.gates if g.verdict is not Verdict.PASS
            )
    for name, count in tripped.items():
        print(f"fault {name}: FAIL {caught[name]}/{args.spoiled}: {dict(count)}")
    if args.json is not None:
        args.json.write_text(json.dumps(table, indent=1) + "\n")
    for name, row in table.items():
        if name.startswith("mean"):
            print(name, row)


if __name__ == "__main__":
    main()
