"""Accuracy and time of the synthetic CT on simulated cases: ``python benchmarks/synthetic_ct.py``.

Procedural thorax patients; the CBCT of another day (moved, deformed, other gas) comes out of
`models.cbct_sim` with settings drawn by the case's number. Errors in the body inside the field of
view, HU. All of it is simulated: no number here is that of a real CBCT.
"""

import argparse
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from models.cbct_sim import random_settings, simulate
from models.phantom import Day, Phantom, thorax
from pipelines.dicom.volume import CtVolume
from pipelines.geometry.stack import StackGeometry
from pipelines.imaging.body import find_regions
from pipelines.imaging.verdict import Verdict
from pipelines.synthetic_ct.learned import open_pack
from pipelines.synthetic_ct.methods import Candidate, Method, Scene, run_chain
from pipelines.synthetic_ct.metrics import errors
from pipelines.synthetic_ct.register import align


def _volume(phantom: Phantom, hu: np.ndarray, frame: str) -> CtVolume:
    grid = StackGeometry.regular(
        shape=phantom.hu.shape, spacing=phantom.spacing, origin=phantom.origin
    )
    return CtVolume(
        hu=hu, padded=None, geometry=grid, headers=(), frame_of_reference_uid=frame, findings=()
    )


def case(number: int) -> tuple[Scene, np.ndarray, float]:
    """Return one case in place, its truth, and the seconds the simulation took."""
    rng = np.random.default_rng(number)
    shift = tuple(float(v) for v in rng.uniform(-8, 8, 3))
    day = Day(shift_mm=shift, amplitude_mm=float(rng.uniform(2, 6)), seed=number)
    planning = thorax((80, 200, 200), (3.0, 2.2, 2.2), number)
    today = thorax((48, 220, 220), (2.5, 2.0, 2.0), number, day=day, noise_hu=0)
    drawn = random_settings(number)
    settings = replace(  # the worst corners of the training ranges are no CBCT that a site keeps
        drawn,
        isocenter_mm=(0.0, 0.0),
        hu_gain=1.0,
        hu_shift=0.4 * drawn.hu_shift,
        scatter=min(0.2, drawn.scatter),
        scatter_corrected=max(0.4, drawn.scatter_corrected),
    )
    start = time.perf_counter()
    scan = simulate(today.hu, today.spacing, settings, number)
    seconds = time.perf_counter() - start
    cbct = _volume(today, scan, "1.2.3")
    moved = replace(planning, origin=tuple(np.add(planning.origin, shift)))
    regions = find_regions(scan, today.spacing, diameter_mm=2 * settings.fov_radius_mm)
    prior = align(cbct, regions, _volume(moved, planning.hu, "1.2.3"), ())
    return Scene(cbct=scan, regions=regions, geometry=cbct.geometry, prior=prior), today.hu, seconds


def _verdict(made: Candidate) -> str:
    """Return the verdict and what spoke against PASS."""
    against = [f"{g.name} {g.value:.2f}" for g in made.gates if g.verdict is not Verdict.PASS]
    return f"{made.verdict} {', '.join(against)}"


def main() -> None:
    """Print one line a case and method, and the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=4)
    parser.add_argument("--pack", default="sct-pelvis", help="name or path of the network")
    args = parser.parse_args()
    count, learned = (
        args.cases,
        open_pack(str(Path(args.pack).resolve()) if "/" in args.pack else args.pack),
    )
    rows: dict[str, list[float]] = {}
    print(
        f"{'case':>4} {'method':<10} {'MAE':>6} {'ME':>6} {'soft':>6} {'PSNR':>6} {'s':>6} verdict"
    )
    for number in range(1, count + 1):
        scene, truth, simulated = case(number)
        raw = errors(scene.cbct, truth, scene.body)
        lines = [("raw", raw, simulated, "-")]
        if scene.prior is not None:
            prior = errors(scene.prior.hu, truth, scene.body)
            lines.append(("planning", prior, 0.0, f"fits {scene.prior.fits}"))
        runs, why = learned.opinion(scene.cbct, scene.regions.body, scene.geometry.spacing)
        alone = replace(scene, prior=None, learned=learned)
        tries = {
            "lut": (alone, Method.LUT),
            "net alone": (alone, Method.NETWORK),
            "histmatch": (scene, Method.HISTMATCH),
            "hybrid": (scene, Method.HYBRID),
            "net+prior": (replace(scene, learned=learned), Method.NETWORK),
        }
        print(f"{number:>4} network runs: {runs} {' '.join(f.message for f in why)}")
        for title, (known, method) in tries.items():
            start = time.perf_counter()
            made = run_chain(known, (method,))[-1]
            seconds = time.perf_counter() - start
            lines.append((title, errors(made.hu, truth, scene.body), seconds, _verdict(made)))
        for name, found, seconds, verdict in lines:
            e = asdict(found)
            rows.setdefault(name, []).append(e["mae"])
            print(
                f"{number:>4} {name:<10} {e['mae']:6.1f} {e['me']:6.1f} {e['soft_mae']:6.1f} "
                f"{e['psnr_db']:6.1f} {seconds:6.1f} {verdict}"
            )
    for name, values in rows.items():
        print(f"mean {name:<10} {np.mean(values):6.1f} HU")


if __name__ == "__main__":
    main()
