"""How many injected gross failures the checks of contours catch, and how often they cry wolf.

``python -m benchmarks.contour_checks [patients [first seed]]``. Each procedural thorax is
contoured; one structure at a time is then spoiled, and the run counts as caught when that structure
gets a finding that it did not have before, or is left out. A flip or permutation that leaves Dice
above 0.95 (a straight canal upside down) and a leak that adds less than 5 ml are no failures and
are not counted. The outline of the body is spoiled too: half of it missing, an arm's breadth cut
off, shifted, the couch taken in. Limits were fixed before counting.
"""

import sys
from collections import Counter
from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from models.phantom import thorax
from pipelines.autocontour.body import find_body
from pipelines.autocontour.checks import check
from pipelines.autocontour.evidence import Scene
from pipelines.autocontour.limits import beyond
from pipelines.autocontour.names import LEARNED, Organ
from pipelines.autocontour.outline import doubts
from pipelines.autocontour.pipeline import Found, find_all
from pipelines.geometry.stack import StackGeometry
from pipelines.imaging.grid import Mask, WorkImage, work_image

SPACING = (4.0, 4.0, 4.0)
SHIFT_MM = 15.0
LEAK_MM = 30.0
LEAK_ML = 5.0
COUCH_MM = 32.0
CUT_MM = 48.0
SAME = 0.95


def scan(seed: int) -> WorkImage:
    """Return one procedural patient: other length, level, noise and anatomy."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(44, 64)), 72, 96)
    center = (0.0, 0.0, float(rng.uniform(-30, 40)))
    made = thorax(shape, SPACING, seed, center=center, noise_hu=float(rng.uniform(8, 30)))
    geometry = StackGeometry.regular(shape=shape, spacing=SPACING, origin=made.origin)
    return work_image(made.hu, geometry, 4.0)


def patient(seed: int) -> Found:
    """Return what is found in one procedural patient."""
    return find_all(scan(seed), [o for o in Organ if o not in {*LEARNED, Organ.AIR}])


def spoiled_outlines(body: Mask) -> Iterator[tuple[str, Mask]]:
    """Yield (failure, spoiled outline of the body)."""
    columns = np.flatnonzero(body.any(axis=(0, 1)))
    middle, back = (columns[0] + columns[-1]) // 2, np.flatnonzero(body.any(axis=(0, 2)))[-1]
    half, cut, lower = body.copy(), body.copy(), body.copy()
    half[:, :, middle:] = False
    cut[:, :, columns[-1] - round(CUT_MM / SPACING[2]) :] = False
    lower[: len(body) // 2] = False
    couch = body.copy()
    couch[:, back + 1 : back + 1 + round(COUCH_MM / SPACING[1]), columns[0] : columns[-1]] = True
    yield "one side missing", half
    yield "48 mm of a side missing", cut
    yield "lower half missing", lower
    yield "shifted 16 mm", np.roll(body, 4, 2)
    yield "couch taken in", couch


def shifted(mask: Mask, rng: np.random.Generator) -> Mask:
    """Return the mask 15 mm along one axis of the image, either way."""
    axis, steps = int(rng.integers(3)), int(rng.choice([-1, 1])) * round(SHIFT_MM / 4.0)
    moved = np.roll(mask, steps, axis)
    edge = [slice(None)] * 3
    edge[axis] = slice(0, steps) if steps > 0 else slice(steps, None)
    moved[tuple(edge)] = False
    return moved


def halved(mask: Mask) -> Mask:
    """Return the mask without its lower half."""
    used = np.flatnonzero(mask.any(axis=(1, 2)))
    half = mask.copy()
    half[: (used[0] + used[-1]) // 2] = False
    return half


def leaked(mask: Mask, rng: np.random.Generator) -> Mask:
    """Return the mask with a ball of 30 mm about a place on its surface."""
    edge = np.argwhere(mask & ~ndimage.binary_erosion(mask))
    center = edge[rng.integers(len(edge))]
    index = np.indices(mask.shape, sparse=True)
    return mask | (sum(((i - c) * 4.0) ** 2 for i, c in zip(index, center, strict=True))
                   <= LEAK_MM**2)  # fmt: skip


def spoiled(
    masks: dict[Organ, Mask], rng: np.random.Generator
) -> Iterator[tuple[str, Organ, Mask]]:
    """Yield (failure, structure, spoiled mask)."""
    names = list(masks)
    yield "sides swapped", Organ.LUNG_L, masks[Organ.LUNG_R]
    yield "sides swapped", Organ.LUNG_R, masks[Organ.LUNG_L]
    for name, other in zip(names, names[1:] + names[:1], strict=True):
        mask = masks[name]
        yield "shifted 15 mm", name, shifted(mask, rng)
        yield "lower half missing", name, halved(mask)
        yield "flipped head to feet", name, mask[::-1]
        yield "flipped front to back", name, mask[:, ::-1]
        yield "mirrored left to right", name, mask[:, :, ::-1]
        yield "labels permuted", name, masks[other]
        yield "leaked 30 mm", name, leaked(mask, rng)


def codes(organ: Organ, mask: Mask, found: Found, scene: Scene) -> set[str]:
    """Return the findings that the checks have about a mask."""
    verdict = check(organ, mask.astype(np.float32), found.image, np.ones(mask.shape, bool))
    return {f.code for f in (*verdict.findings, *beyond(organ, mask, scene))}


def dice(a: Mask, b: Mask) -> float:
    """Return 2 |A & B| / (|A| + |B|)."""
    return 2 * np.count_nonzero(a & b) / max(np.count_nonzero(a) + np.count_nonzero(b), 1)


def main(patients: int, first: int) -> None:
    """Print the tables."""
    caught, tried, alarms, good = Counter(), Counter(), Counter(), 0
    for seed in range(first, first + patients):
        image = scan(seed)
        body = find_body(image)
        alarms["outline"] += bool(doubts(image, body))
        good += 1
        for kind, outline in spoiled_outlines(body):
            for key in (f"outline: {kind}", "outline", "all"):
                tried[key] += 1
                caught[key] += bool(doubts(image, outline))
        found = patient(seed)
        scene = Scene(image=found.image, body=found.body)
        masks = {organ: surface >= 0.5 for organ, surface in found.surfaces.items()}
        before = {organ: codes(organ, mask, found, scene) for organ, mask in masks.items()}
        for organ, told in before.items():
            good += 1
            alarms[organ] += bool(told - {"roi-cut-by-image", "body-truncated"})
        rng = np.random.default_rng(seed)
        for kind, organ, mask in spoiled(masks, rng):
            alike = dice(mask, masks[organ]) > SAME
            if alike and not kind.startswith(("leaked", "shifted")):
                continue
            added = np.count_nonzero(mask & ~masks[organ]) * found.image.voxel_ml
            if kind.startswith("leaked") and added < LEAK_ML:
                continue
            new = codes(organ, mask, found, scene) - before[organ]
            for key in (kind, organ.value, "all"):
                tried[key] += 1
                caught[key] += bool(new - {"roi-cut-by-image"})
    for key, count in tried.items():
        print(f"| {key} | {caught[key]} of {count} | {100 * caught[key] / count:.1f} % |")
    print(f"false alarms: {sum(alarms.values())} of {good} good structures {dict(alarms)}")


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:3]]
    main(*(given + [20, 200][len(given) :]))
