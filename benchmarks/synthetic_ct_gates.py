"""False alarms of the gates, and the faults that they catch, on cases that set no limit.

    python benchmarks/synthetic_ct_gates.py --archive ../shared/data/train_sts_ct.tar.xz

Fresh: seeds from `FIRST` on, and regions (abdomen, head) that no limit was ever set on. Thorax,
pelvis, abdomen and head are procedural, with a planning CT of another day; the held-out patients of
the archive are seen by new scanners, network alone. The CBCT comes out of `models.cbct_sim` with
settings that a site would keep. An image is good when its true error is within `GOOD_MAE` and
`GOOD_ME`; a false alarm is a FAIL on a good image. The faults are the eight of the reference page,
section 9. Nothing here sets a limit.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from scipy import ndimage

from models.cbct_sim import CbctSettings, random_settings, simulate
from models.phantom import Day, thorax
from models.phantom_sites import patient
from models.training.sct_data import HELD_OUT, read_sts
from models.training.sct_pairs import evaluation_settings, on_grid
from pipelines.dicom.volume import CtVolume
from pipelines.geometry.stack import StackGeometry
from pipelines.imaging.body import find_regions
from pipelines.imaging.verdict import Verdict, overall
from pipelines.synthetic_ct import qa
from pipelines.synthetic_ct.classical import match_planning_ct
from pipelines.synthetic_ct.gates import Case
from pipelines.synthetic_ct.learned import Learned, open_pack
from pipelines.synthetic_ct.methods import Method, Scene, run_chain
from pipelines.synthetic_ct.metrics import errors
from pipelines.synthetic_ct.register import align

FIRST: Final = 70_000
SHAPE, SPACING = (20, 116, 116), (3.4, 3.8, 3.8)
PLANNING_SHAPE: Final = (36, 122, 122)
DEFORMATION_MM: Final = 3.0
GOOD_MAE, GOOD_ME = 80.0, 25.0
"""Mean absolute and mean error in the body, HU; loose: a FAIL within them is a false one."""
FAULTED: Final = 3
"""Good images of each region that the faults are put into."""

Hu = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """A case that no limit was set on."""

    group: str
    number: int
    scene: Scene
    truth: Hu


def kept_scanner(seed: int) -> CbctSettings:
    """Return a scanner that a site would keep: the worst corners of the training ranges are not."""
    drawn = random_settings(seed)
    return replace(
        drawn,
        isocenter_mm=(0.0, 0.0),
        hu_gain=1.0,
        hu_shift=0.4 * drawn.hu_shift,
        scatter=min(0.2, drawn.scatter),
        scatter_corrected=max(0.4, drawn.scatter_corrected),
    )


def _volume(hu: Hu, spacing: tuple[float, float, float], shift: Hu) -> CtVolume:
    middle = [-(n - 1) / 2 * s for n, s in zip(hu.shape[::-1], spacing[::-1], strict=True)]
    x, y, z = (float(v) for v in np.add(middle, shift))
    grid = StackGeometry.regular(shape=hu.shape, spacing=spacing, origin=(x, y, z))
    return CtVolume(
        hu=hu, padded=None, geometry=grid, headers=(), frame_of_reference_uid="1.2", findings=()
    )


def _days(region: str, number: int) -> tuple[Hu, Hu]:
    """Return planning CT and the CT of another day, in place but for the deformation."""
    if region == "thorax":
        day = Day(shift_mm=(0.0, 0.0, 0.0), amplitude_mm=DEFORMATION_MM, seed=number)
        planning = thorax(PLANNING_SHAPE, SPACING, number).hu
        return planning, thorax(SHAPE, SPACING, number, day=day, noise_hu=0).hu
    both = patient(region, PLANNING_SHAPE, SPACING, number, noise_hu=0)
    random = np.random.default_rng([number, 81])
    field = [
        ndimage.gaussian_filter(random.normal(0, 1, both.shape), (5, 10, 10)) for _ in range(3)
    ]
    at = np.meshgrid(*map(np.arange, both.shape), indexing="ij", sparse=True)
    where = [
        a + f * (DEFORMATION_MM / 2 / s / f.std())
        for a, f, s in zip(at, field, SPACING, strict=True)
    ]
    moved = ndimage.map_coordinates(both, where, order=1, mode="nearest")
    cut = tuple(
        slice((a - b) // 2, (a - b) // 2 + b) for a, b in zip(both.shape, SHAPE, strict=True)
    )
    return both + random.normal(0, 10, both.shape).astype(np.float32), moved[cut]


def phantom_case(region: str, number: int) -> Fresh:
    """Return a procedural patient on two days, the planning CT in place to about a millimeter."""
    random = np.random.default_rng([number, 82])
    left = random.uniform(-1, 1, 3)
    planning, today = _days(region, number)
    settings = kept_scanner(number)
    scan = simulate(today, SPACING, settings, number)
    regions = find_regions(scan, SPACING, diameter_mm=2 * settings.fov_radius_mm)
    cbct = _volume(scan, SPACING, np.zeros(3))
    prior = align(cbct, regions, _volume(planning, SPACING, left), ())
    scene = Scene(cbct=scan, regions=regions, geometry=cbct.geometry, prior=prior)
    return Fresh(group=region, number=number, scene=scene, truth=today)


def held_cases(archive: Path, scanners: int) -> Iterator[Fresh]:
    """Yield the held-out patients, each seen by new scanners, without planning CT."""
    for ct in read_sts(archive):
        if ct.name not in HELD_OUT:
            continue
        first = max(0, (len(ct.hu) - SHAPE[0]) // 2)
        sized = on_grid(replace(ct, hu=ct.hu[first : first + SHAPE[0]]), 1.6, 160)
        for scanner in range(scanners):
            number = FIRST + 100 * int(ct.name.removeprefix("STS_")) + scanner
            settings = evaluation_settings(number)
            scan = simulate(sized.hu, sized.spacing, settings, number)
            regions = find_regions(scan, sized.spacing, diameter_mm=2 * settings.fov_radius_mm)
            grid = _volume(scan, sized.spacing, np.zeros(3)).geometry
            scene = Scene(cbct=scan, regions=regions, geometry=grid, prior=None)
            yield Fresh(group="held-out", number=number, scene=scene, truth=sized.hu)


def judged(scene: Scene, hu: Hu, *, planning_pixels: bool) -> Case:
    """Return what the gates look at for another image in the place of the synthetic CT."""
    prior = scene.prior
    reference = (
        None
        if prior is None
        else match_planning_ct(
            scene.cbct, scene.known, prior.hu, prior.body, scene.geometry.spacing
        )
    )
    return Case(
        sct=np.clip(np.rint(hu), qa.LOWEST_HU, qa.HIGHEST_HU).astype(np.float32),
        cbct=scene.cbct,
        body=scene.body,
        outline=scene.regions.body,
        fov=scene.regions.fov,
        spacing=scene.geometry.spacing,
        prior=None if prior is None else prior.hu,
        reference=reference,
        planning_pixels=planning_pixels,
    )


def faults(good: Hu, scene: Scene, other: Hu | None) -> dict[str, Hu]:
    """Return the gross faults of the reference page, put into a good image."""
    step_mm = scene.geometry.spacing[1]
    wide = round(12 / step_mm)
    depth = ndimage.distance_transform_edt(scene.regions.body, (1e6, *scene.geometry.spacing[1:]))
    gas = scene.regions.body & (good < qa.AIR_HU)
    made = {
        "F1 CBCT as sCT": scene.cbct,
        "F2 HU +60": good + 60,
        "F2 HU -60": good - 60,
        "F3 shifted 10 mm": np.roll(good, round(10 / step_mm), axis=1),
        "F4 gas filled": np.where(gas, 20, good),
        "F5 bone lost": np.where(good > 150, 150 + 0.4 * (good - 150), good),
        "F6 over-smoothed": ndimage.gaussian_filter(good, (1, wide, wide)),
        "F7 body shrunk 7 mm": np.where(scene.regions.body & (depth <= 7), -1000, good),
    }
    if float(gas.sum()) * scene.geometry.voxel_ml < 2 * qa.LEAST_AIR_CM3:
        del made["F4 gas filled"]  # next to no gas to lose
    if other is not None and other.shape == good.shape:
        made["F8 another patient"] = other
    return made


class Tally:
    """What was counted."""

    def __init__(self, learned: Learned) -> None:
        self.learned = learned
        self.verdicts: Counter[tuple[str, str, str]] = Counter()
        self.caught: Counter[tuple[str, str, str]] = Counter()
        self.pairs: dict[str, list[tuple[float, float]]] = {}
        self._before: dict[str, Hu] = {}
        self._faulted: Counter[str] = Counter()

    def look(self, case: Fresh) -> None:
        """Run all methods on a case, print and count; put the faults into the best image."""
        scene, found, best = case.scene, {}, None
        for method in self._methods(scene):
            made = run_chain(replace(scene, learned=self.learned), (method,))[-1]
            error = found[method] = errors(made.hu, case.truth, scene.body)
            good = error.mae <= GOOD_MAE and abs(error.me) <= GOOD_ME
            verdict = f"{made.verdict} on a {'good' if good else 'bad'} image"
            self.verdicts[case.group, method, verdict] += 1
            against = [f"{g.name}={g.value:.2f}" for g in made.gates if g.verdict != Verdict.PASS]
            print(
                f"{case.group:<9} {case.number} {method:<9} MAE {error.mae:5.1f} "
                f"ME {error.me:+6.1f} {made.verdict:<4} {' '.join(against)}",
                flush=True,
            )
            if good and made.verdict is not Verdict.FAIL:
                best = made.hu
        if Method.HYBRID in found:
            both = found[Method.HISTMATCH].mae, found[Method.HYBRID].mae
            self.pairs.setdefault(case.group, []).append(both)
        if best is not None and self._faulted[case.group] < FAULTED:
            self._faulted[case.group] += 1
            self._spoil(case, best)
        self._before[case.group] = case.truth

    def _methods(self, scene: Scene) -> list[Method]:
        runs, _ = self.learned.opinion(scene.cbct, scene.regions.body, scene.geometry.spacing)
        known = scene.prior is not None
        classical = [Method.LUT, Method.HISTMATCH, Method.HYBRID] if known else [Method.LUT]
        return [*classical, Method.NETWORK] if runs else classical

    def _spoil(self, case: Fresh, good: Hu) -> None:
        known = case.scene.prior is not None
        for name, image in faults(good, case.scene, self._before.get(case.group)).items():
            gates = qa.examine(judged(case.scene, image, planning_pixels=known))
            self.caught[name, case.group, str(overall(gates))] += 1

    def report(self) -> None:
        """Print the counts."""
        for title, counter in (("verdicts", self.verdicts), ("faults", self.caught)):
            print(f"\n{title}")
            for key, n in sorted(counter.items()):
                print(f"{n:4d}  {' | '.join(key)}")
        print("\nhistmatch -> hybrid, mean MAE in HU")
        for group, rows in self.pairs.items():
            table = np.array(rows)
            means, worse = table.mean(axis=0), int((table[:, 1] > table[:, 0]).sum())
            print(f"{group}: {means[0]:.1f} -> {means[1]:.1f}; worse in {worse} of {len(rows)}")


def main() -> None:
    """Print a line for each case and method, then the counts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--pack", default="sct-pelvis")
    parser.add_argument("--each", type=int, default=7, help="cases of each procedural region")
    parser.add_argument("--scanners", type=int, default=2, help="of each held-out patient")
    args = parser.parse_args()
    tally = Tally(open_pack(str(Path(args.pack).resolve()) if "/" in args.pack else args.pack))
    for number in range(FIRST, FIRST + args.each):
        for region in ("thorax", "pelvis", "abdomen", "head"):
            tally.look(phantom_case(region, number))
    for case in held_cases(args.archive, args.scanners):
        tally.look(case)
    tally.report()


if __name__ == "__main__":
    main()
