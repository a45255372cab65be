"""How many injected failures of head-and-neck organs the checks catch, and how often they cry wolf.

``python -m benchmarks.organ_checks measure TAR FILE`` measures the organs that clinicians drew in
the OpenKBP *training* patients (the contouring hold-out is never opened), and each organ spoiled in
ten ways. ``fit FILE`` writes `pipelines/autocontour/anatomy.json` from two thirds of the patients;
``score FILE`` counts on the last third, which the table has never seen. A spoiled organ of which
Dice with the good one stays above 0.95 is no failure. An alarm is any finding about a good organ
other than that the image cuts it.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from benchmarks.contour_checks import dice, halved
from models.training.cases import Case
from models.training.openkbp import ORGANS, held_out, read_cases
from pipelines.autocontour.anatomy import (
    PLACE,
    TABLE_FILE,
    Shape,
    Usual,
    relations,
    shape_of,
    unusual,
    usual,
)
from pipelines.autocontour.body import find_body
from pipelines.autocontour.checks import check, is_cut
from pipelines.autocontour.evidence import Scene
from pipelines.autocontour.limits import beyond
from pipelines.autocontour.morphology import bounding_box
from pipelines.autocontour.names import Organ
from pipelines.geometry.stack import StackGeometry
from pipelines.imaging.grid import Mask, WorkImage, work_image

REGION = "head and neck"
SAME = 0.95
BORDER = 4
SHIFT_MM = 15.0
LEAK_MM = 20.0
GAP_SHARE = 0.25
MARGINS = (0.0, 0.05, 0.1, 0.2, 0.3)
"""Tried inside the fitting patients; the range of all of them, wider by this share on each side."""
MARGIN = 0.3
FOLDS = 4
Measured = dict[str, Any]


def is_scored(name: str) -> bool:
    """Return whether a training patient belongs to the third that the table never sees."""
    return sum(name.encode()) % 3 == 0


def spoiled(
    name: str, masks: dict[str, Mask], spacing: tuple[float, float, float], rng: np.random.Generator
) -> Iterator[tuple[str, Mask]]:
    """Yield (failure, spoiled mask) of one organ."""
    mask = masks[name]
    for axis, word in enumerate(("head or feet", "front or back", "left or right")):
        steps = int(rng.choice([-1, 1])) * round(SHIFT_MM / spacing[axis])
        yield f"shifted 15 mm to {word}", moved(mask, axis, steps)
    yield "lower half missing", halved(mask)
    yield "slices missing", with_gap(mask)
    yield "flipped head to feet", mask[::-1]
    yield "flipped front to back", mask[:, ::-1]
    yield "mirrored left to right", mask[:, :, ::-1]
    yield "leaked 20 mm", leaked(mask, spacing, rng)
    others = [n for n in masks if n != name]
    if others:
        yield "wrong organ", masks[others[int(rng.integers(len(others)))]]
    twin = name[:-1] + {"L": "R", "R": "L"}.get(name[-1], "")
    if name[-2:] in {"_L", "_R"} and twin in masks:
        yield "sides swapped", masks[twin]


def moved(mask: Mask, axis: int, steps: int) -> Mask:
    """Return the mask moved by whole voxels; what leaves the image is gone."""
    result = np.roll(mask, steps, axis)
    gone = [slice(None)] * 3
    gone[axis] = slice(0, steps) if steps > 0 else slice(steps, None)
    result[tuple(gone)] = False
    return result


def with_gap(mask: Mask) -> Mask:
    """Return the mask without a quarter of its slices, in its middle."""
    used = np.flatnonzero(mask.any(axis=(1, 2)))
    count = max(2, round(GAP_SHARE * len(used)))
    first = used[len(used) // 2] - count // 2
    gap = mask.copy()
    gap[first : first + count] = False
    return gap


def leaked(mask: Mask, spacing: tuple[float, float, float], rng: np.random.Generator) -> Mask:
    """Return the mask with a ball about a place on its surface."""
    edge = np.argwhere(mask & ~ndimage.binary_erosion(mask))
    center = edge[rng.integers(len(edge))]
    index = np.indices(mask.shape, sparse=True)
    square = sum(((i - c) * s) ** 2 for i, c, s in zip(index, center, spacing, strict=True))
    return np.asarray(mask | (square <= LEAK_MM**2))


def codes(name: str, mask: Mask, scene: Scene) -> list[str]:
    """Return what the checks by name say, without the table."""
    found = check(Organ(name), mask.astype(np.float32), scene.image, np.ones(mask.shape, bool))
    told = {f.code for f in (*found.findings, *beyond(Organ(name), mask, scene))}
    return sorted(told - {"roi-cut-by-image"})


def described(name: str, mask: Mask, scene: Scene) -> Measured:
    """Return the traits of a mask as plain JSON."""
    if not mask.any():
        return {"empty": True}
    shape = shape_of(name, mask, scene.image)
    return {
        "traits": dict(shape.traits),
        "anchor": shape.anchor.tolist(),
        "cut": is_cut(mask, np.ones(mask.shape, bool)),
        "codes": codes(name, mask, scene),
    }


def patient(case: Case) -> Measured:
    """Return the organs of one patient, good and spoiled."""
    geometry = StackGeometry.regular(
        shape=case.hu.shape, spacing=case.spacing, origin=(0.0, 0.0, 0.0)
    )
    image: WorkImage = work_image(case.hu, geometry, 1.0)
    # The images are masked to the dose region: what was drawn beyond it counts as body.
    body = find_body(image) | (case.labels > 0)
    box = bounding_box(body, BORDER)
    image, labels = image.cropped(box), case.labels[box]
    scene = Scene(image=image, body=body[box])
    masks = {
        organ: labels == n + 1
        for n, organ in enumerate(ORGANS)
        if n + 1 in case.drawn and (labels == n + 1).any()
    }
    rng = np.random.default_rng(int(case.name.removeprefix("pt_")))
    bad = [
        {"organ": name, "kind": kind, **described(name, mask, scene)}
        for name in masks
        for kind, mask in spoiled(name, masks, image.spacing, rng)
        if dice(mask, masks[name]) <= SAME
    ]
    good = {name: described(name, mask, scene) for name, mask in masks.items()}
    return {"name": case.name, "good": good, "bad": bad}


def shapes_of(good: dict[str, Measured]) -> dict[str, Shape]:
    """Return the organs as the checks take them."""
    return {
        name: Shape(traits=one["traits"], anchor=np.array(one["anchor"]))
        for name, one in good.items()
        if "traits" in one
    }


def fitted(patients: list[Measured], margin: float) -> Usual:
    """Return the table of some patients."""
    all_shapes = [shapes_of(p["good"]) for p in patients]
    places: dict[str, dict[str, Any]] = {}
    for name in ORGANS:
        for other in ORGANS:
            both = [s for s in all_shapes if name in s and other in s and name != other]
            if len(both) > 5:
                way = np.array([s[name].anchor - s[other].anchor for s in both])
                places.setdefault(name, {})[other] = (
                    np.round(way.mean(axis=0), 1).tolist(),
                    np.round(way.std(axis=0), 1).tolist(),
                )
    known = Usual(patients=len(patients), ranges={}, places=places)
    ranges: dict[str, dict[str, tuple[float, float]]] = {}
    for name in ORGANS:
        rows = [{**s[name].traits, **relations(name, s, known)} for s in all_shapes if name in s]
        for trait in dict.fromkeys(t for row in rows for t in row):
            values = np.array([row[trait] for row in rows if trait in row])
            low, high = float(values.min()), float(values.max())
            room = margin * (high - low)
            low = 0.0 if trait == PLACE else low - room
            ranges.setdefault(name, {})[trait] = (round(low, 4), round(high + room, 4))
    return Usual(patients=len(patients), ranges=ranges, places=places)


def count(
    patients: list[Measured], known: Usual
) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Return how many were tried and caught, by kind and organ, and the alarms about good ones."""
    tried: Counter[str] = Counter()
    caught: Counter[str] = Counter()
    alarms: Counter[str] = Counter()
    for one in patients:
        shapes = shapes_of(one["good"])
        for name, good in one["good"].items():
            told = bool(good["codes"]) or bool(unusual(name, shapes, known, cut=good["cut"]))
            alarms["good"] += 1
            alarms["all"] += told
            alarms[name] += told
        for bad in one["bad"]:
            name = bad["organ"]
            told = bad.get("empty", False) or bool(bad["codes"])
            if not told:
                spoiled_shapes = shapes | shapes_of({name: bad})
                told = bool(unusual(name, spoiled_shapes, known, cut=bad["cut"]))
            for key in (bad["kind"], name, "all"):
                tried[key] += 1
                caught[key] += told
    return tried, caught, alarms


def table(patients: list[Measured], known: Usual) -> None:
    """Print what `count` finds."""
    tried, caught, alarms = count(patients, known)
    for key, number in tried.items():
        print(f"| {key} | {caught[key]} of {number} | {100 * caught[key] / number:.1f} % |")
    print(f"alarms: {alarms['all']} of {alarms['good']} good organs "
          f"({100 * alarms['all'] / alarms['good']:.1f} %) {dict(alarms)}")  # fmt: skip


def main(verb: str, *files: str) -> None:
    """Do one step."""
    if verb == "measure":
        found = [patient(c) for c in read_cases(Path(files[0])) if not held_out(c.name)]
        Path(files[1]).write_text(json.dumps(found), encoding="utf-8")
        return
    patients = json.loads(Path(files[0]).read_text(encoding="utf-8"))
    fit = [p for p in patients if not is_scored(p["name"])]
    if verb == "fit":
        for margin in MARGINS:
            sums = [Counter(), Counter(), Counter()]
            for n in range(FOLDS):
                known = fitted([p for k, p in enumerate(fit) if k % FOLDS != n], margin)
                for total, part in zip(sums, count(fit[n::FOLDS], known), strict=True):
                    total.update(part)
            tried, caught, alarms = sums
            print(f"margin {margin}: caught {caught['all'] / tried['all']:.3f}, "
                  f"alarms {alarms['all'] / alarms['good']:.3f}")  # fmt: skip
        made = {REGION: fitted(fit, MARGIN).model_dump(mode="json")}
        TABLE_FILE.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
        return
    table([p for p in patients if is_scored(p["name"])], usual()[REGION])


if __name__ == "__main__":
    main(*sys.argv[1:])
