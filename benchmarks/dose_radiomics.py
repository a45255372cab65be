"""CPU seconds of dose radiomics beside published peers: ``python benchmarks/dose_radiomics.py``.

One thread. An analytic thoracic dose (five beams, 60 Gy) on a 2.5 mm grid, lungs of 5.6 L and a
target of 300 cc; then a whole job with ten ROIs from files to a checked SR, and how the cost grows
with voxels and with ROIs. Peers' figures are those of the project's reference, measured on the
same kind of machine and data; they are printed for orientation, not measured here.
"""

# ruff: noqa: E402 - the number of threads must be set before numpy is loaded
import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import argparse
import hashlib
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pydicom import dcmread

from pipelines.api import InputFile, Inputs, Provenance, Request, Role, settings_sha256
from pipelines.dose_radiomics.evaluate import Evaluator
from pipelines.dose_radiomics.inputs import read_case
from pipelines.dose_radiomics.pipeline import run
from pipelines.dose_radiomics.recipe import IVH_STEP_GY, method
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from pipelines.radiomics import ivh, morphology, stats, texture
from pipelines.radiomics.engine import BinSize, features
from tests.unit.pipelines.dose_radiomics.support import circle, dose, save, structure_set

STEP_MM = 2.5
LUNGS = ((-75.0, 0.0, 0.0), (75.0, 0.0, 0.0))
LUNG_HALF_AXES = (56.0, 83.0, 144.0)  # two ellipsoids of 2.8 L
PEERS = {
    "texture, PTV 300 cc": "MIRP 2.45, PyRadiomics 0.20, Pictologics 0.005 (JIT)",
    "texture, lungs 5.6 L": "MIRP 5.06, PyRadiomics 0.52, Pictologics 0.045 (JIT); target 0.17",
    "texture, lungs, 0.1 Gy bins": "PyRadiomics 69 (wall), Pictologics 0.056 (JIT); target 0.20",
    "job, 10 ROIs, files to SR": "target 2.0",
}


def gray_at(points: np.ndarray) -> np.ndarray:
    """Return the dose of five beams that meet in the left lung, points (..., 3) [mm]."""
    x, y, z = np.moveaxis(points - [75.0, 0.0, 0.0], -1, 0)
    total = np.zeros(x.shape)
    for angle in np.deg2rad([0, 72, 144, 216, 288]):
        across = x * np.cos(angle) - y * np.sin(angle)
        depth = x * np.sin(angle) + y * np.cos(angle)
        edge = [1 / (1 + np.exp((np.abs(a) - 42) / 3)) for a in (across, z)]
        total += edge[0] * edge[1] * np.exp(-0.004 * depth)
    return 12.2 * total


def phantom() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return dose, lungs and target on one grid of `STEP_MM`."""
    axes = [np.arange(-n, n + 0.1, STEP_MM) for n in (160, 100, 145)]
    z, y, x = np.meshgrid(axes[0], axes[1], axes[2], indexing="ij")
    lungs = np.zeros(x.shape, dtype=bool)
    for cx, cy, cz in LUNGS:
        a, b, c = LUNG_HALF_AXES
        lungs |= ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 + ((z - cz) / c) ** 2 <= 1
    target = (x - 75) ** 2 + y**2 + z**2 <= 41.5**2
    return gray_at(np.stack([x, y, z], axis=-1)), lungs, target


def all_texture(levels: np.ndarray) -> int:
    """Compute all texture families, merged and averaged; return how many merged values."""
    volume = texture.Volume(levels)
    found = {
        **texture.glcm(volume)[0], **texture.glrlm(volume)[0], **texture.glszm(volume),
        **texture.gldzm(volume), **texture.neighborhood(volume),
    }  # fmt: skip
    return len(found)


def cpu(work: Callable[[], object], repeats: int) -> float:
    """Return the least CPU seconds of `repeats` runs, after one to warm up."""
    work()
    found = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def discretise(values: np.ndarray, mask: np.ndarray, bin_gy: float) -> np.ndarray:
    """Return levels from 1, 0 outside."""
    return np.where(mask, np.floor(values / bin_gy + 1e-9).astype(np.int32) + 1, 0)


def ten_roi_job(folder: Path, rois: int = 10, *, pictures: bool = False) -> Request:
    """Write RTDOSE and RTSTRUCT of a thorax with `rois` structures, 3 mm slices."""
    heights = np.arange(-141, 142, 3.0)

    def ellipsoid(
        center: tuple[float, float, float], half: tuple[float, float, float]
    ) -> list[tuple[str, np.ndarray]]:
        loops = []
        for z in heights:
            part = 1 - ((z - center[2]) / half[2]) ** 2
            if part > 0:
                ring = circle(1.0, 0, 0, 0, 200) * [half[0] * part**0.5, half[1] * part**0.5, 0]
                loops.append(("CLOSED_PLANAR", ring + np.array([center[0], center[1], z])))
        return loops

    shapes = [
        ("Lung_L", "ORGAN", ellipsoid(LUNGS[1], LUNG_HALF_AXES)),
        ("Lung_R", "ORGAN", ellipsoid(LUNGS[0], LUNG_HALF_AXES)),
        ("PTV", "PTV", ellipsoid((75, 0, 0), (41.5,) * 3)),
        ("GTV", "GTV", ellipsoid((75, 0, 0), (33.0,) * 3)),
        ("Heart", "ORGAN", ellipsoid((15, -30, -40), (40, 40, 50))),
        ("SpinalCord", "ORGAN", ellipsoid((0, 70, 0), (8, 8, 140))),
        ("Esophagus", "ORGAN", ellipsoid((0, 45, 0), (10, 10, 120))),
        ("Trachea", "ORGAN", ellipsoid((0, 30, 80), (10, 10, 50))),
        ("A_Aorta", "ORGAN", ellipsoid((15, 40, 20), (13, 13, 100))),
    ]
    chosen = [
        (f"{name}{n // len(shapes) or ''}", kind, loops)
        for n, (name, kind, loops) in ((n, shapes[n % len(shapes)]) for n in range(rois - 1))
    ]
    rd = dose(gray_at, shape=(117, 81, 129), step=(STEP_MM,) * 3, first=(-160, -100, -145),
              scaling=1e-5)  # fmt: skip
    files = []
    for role, ds in ((Role.RTDOSE, rd), (Role.RTSTRUCT, structure_set(chosen))):
        path = save(ds, folder / f"{role}.dcm")
        uid = str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)
        sha = hashlib.sha256(path.read_bytes()).hexdigest()
        files.append(InputFile(role=role, path=path, sop_instance_uid=uid, sha256=sha))
    settings = DoseRadiomicsSettings(pictures=pictures)
    out = folder / "out"
    out.mkdir(exist_ok=True)
    provenance = Provenance(
        pipeline="dose_radiomics", version="0", settings_sha256=settings_sha256(settings),
        sources=tuple((f.sop_instance_uid, f.sha256) for f in files),
    )  # fmt: skip
    return Request(
        inputs=Inputs(files=tuple(files)), settings=settings, provenance=provenance, output=out
    )


def show(what: str, seconds: float) -> None:
    """Print one line."""
    print(f"{what:32s} {seconds:8.3f}   {PEERS.get(what, '')}")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """CPU seconds against a size, with the straight line through them."""

    what: str
    unit: str
    sizes: list[float]
    seconds: list[float]

    @property
    def line(self) -> tuple[float, float]:
        """Return slope and intercept by least squares."""
        slope, start = np.polyfit(self.sizes, self.seconds, 1)
        return float(slope), float(start)

    @property
    def r_squared(self) -> float:
        """Return the share of the variance that the line explains."""
        slope, start = self.line
        off = np.array(self.seconds) - start - slope * np.array(self.sizes)
        return float(1 - (off**2).sum() / np.var(self.seconds) / len(self.sizes))


def curves(repeats: int) -> list[Cost]:
    """Measure texture and all default features by voxels, and evaluation by ROIs; print tables."""
    values, lungs, _ = phantom()
    wanted = method(DoseRadiomicsSettings())
    by_voxels: dict[str, list[float]] = {"texture": [], "all default features": []}
    sizes = []
    for parts in (2, 4, 8, 16):
        slices = parts * len(values) // 4
        dose_part = np.concatenate([values] * parts)[:slices]
        mask = np.concatenate([lungs] * parts)[:slices]
        levels = discretise(dose_part, mask, 1)
        sizes.append(float(mask.sum()))
        by_voxels["texture"].append(cpu(lambda v=levels: all_texture(v), repeats))
        by_voxels["all default features"].append(
            cpu(lambda d=dose_part, m=mask: features(d, m, m, (2.5,) * 3, wanted), repeats)
        )
    found = [
        Cost(what=what, unit="voxels", sizes=sizes, seconds=seconds)
        for what, seconds in by_voxels.items()
    ]
    found.append(_by_rois(repeats))
    for cost in found:
        slope, start = cost.line
        print(f"{cost.what}: {slope:.3g} s a {cost.unit.rstrip('s')} + {start:.3f} s, "
              f"R2 {cost.r_squared:.4f}")  # fmt: skip
        for size, seconds in zip(cost.sizes, cost.seconds, strict=True):
            print(f"  {size:10.0f} {cost.unit:8s} {seconds:8.3f} s")
    return found


def _by_rois(repeats: int) -> Cost:
    """Measure the evaluation of a structure set, DVH and features, by copies of one ROI."""
    counts, seconds = [1, 2, 5, 10, 20], []
    with tempfile.TemporaryDirectory() as folder:
        case = read_case(ten_roi_job(Path(folder), 5).inputs, DoseRadiomicsSettings())
        gtv = case.structures.named("GTV")
        for count in counts:
            rois = tuple(
                replace(gtv, number=n, name=f"GTV {n}", interpreted_type="ORGAN")
                for n in range(1, count + 1)
            )
            copies = replace(case, structures=replace(case.structures, rois=rois))
            settings = DoseRadiomicsSettings(presets=())
            work = Evaluator(copies, settings).run
            seconds.append(cpu(work, repeats))
    return Cost(
        what="DVH and features of a 150 cc ROI", unit="ROIs", sizes=list(map(float, counts)),
        seconds=seconds,
    )  # fmt: skip


def draw(path: Path, found: list[Cost]) -> None:
    """Draw the curves with their lines."""
    import matplotlib  # noqa: PLC0415 - costs a second and is needed here only

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for cost, color in zip(found, ("#0072B2", "#D55E00", "#009E73"), strict=True):
        axes = left if cost.unit == "voxels" else right
        scale = 1e6 if cost.unit == "voxels" else 1.0
        x = np.array([0.0, max(cost.sizes)])
        slope, start = cost.line
        axes.plot(x / scale, start + slope * x, color=color, lw=1)
        axes.plot(np.array(cost.sizes) / scale, cost.seconds, "o", color=color,
                  label=f"{cost.what} (R² {cost.r_squared:.4f})")  # fmt: skip
    left.set_xlabel("voxels of the region [million]")
    right.set_xlabel("regions of interest")
    right.set_xticks(found[-1].sizes)
    for axes in (left, right):
        axes.set_ylabel("CPU seconds, one thread")
        axes.set_xlim(0)
        axes.set_ylim(0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="upper left")
    figure.suptitle("Cost of dose radiomics grows in proportion to voxels and to ROIs")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--curve", type=Path, help="only voxels and ROIs against time, as PNG")
    options = parser.parse_args()
    repeats = options.repeats
    if options.curve:
        draw(options.curve, curves(repeats))
        return
    values, lungs, target = phantom()
    print(f"lungs {lungs.sum()} voxels, target {target.sum()} voxels of {STEP_MM} mm")
    print(f"{'what':32s} {'CPU s':>8s}   peers, CPU s")
    show("texture, PTV 300 cc", cpu(lambda: all_texture(discretise(values, target, 1)), repeats))
    coarse, fine = discretise(values, lungs, 1), discretise(values, lungs, 0.1)
    show("texture, lungs 5.6 L", cpu(lambda: all_texture(coarse), repeats))
    volume = texture.Volume(coarse)
    for family in (texture.glcm, texture.glrlm, texture.neighborhood):
        show(f"  {family.__name__}", cpu(lambda f=family: f(volume), repeats))
    show(
        "  glszm with gldzm",
        cpu(lambda: (v := texture.Volume(coarse), texture.glszm(v), texture.gldzm(v)), repeats),
    )
    show("texture, lungs, 0.1 Gy bins", cpu(lambda: all_texture(fine), repeats))
    inside, spacing = values[lungs], (STEP_MM,) * 3
    show("statistics, lungs", cpu(lambda: stats.statistics(inside), repeats))
    show("histogram, lungs", cpu(lambda: stats.histogram(coarse[lungs]), repeats))
    steps = BinSize(width=IVH_STEP_GY)
    show("ivh, lungs", cpu(lambda: ivh.ivh(*steps.volume_histogram(inside)), repeats))
    show("local, lungs", cpu(lambda: stats.local_intensity(values, lungs, spacing), repeats))
    show(
        "morphology, lungs",
        cpu(lambda: morphology.morphology(lungs, values, lungs, spacing), repeats),
    )
    show(
        "Moran and Geary, lungs", cpu(lambda: morphology.autocorrelation(values, lungs, spacing), 1)
    )
    with tempfile.TemporaryDirectory() as folder:
        job = ten_roi_job(Path(folder))
        show("job, 10 ROIs, files to SR", cpu(lambda: run(job), repeats))
        drawn = ten_roi_job(Path(folder), pictures=True)
        show("  with the page as HTML, PNG, PDF", cpu(lambda: run(drawn), repeats))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"peak memory {peak} MiB")


if __name__ == "__main__":
    main()
