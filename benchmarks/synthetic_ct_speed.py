"""100 slices of 512 x 512: from the files of a CBCT to the files of its synthetic CT, and memory.

    python benchmarks/synthetic_ct_speed.py --case /tmp/case [--slices 100]

A procedural pelvis is written as DICOM, once; then a fresh process imports the pipeline, reads,
corrects by the network with its second opinion, judges, writes the series and its report and reads
back, as the node's worker does. Without a planning CT. Prints wall and processor seconds of that
process, its start and imports included, and its peak memory.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from scipy import ndimage

from demo import dicom
from demo.elements import Case
from demo.grid import centered_grid
from models.cbct_sim import CbctSettings, simulate
from models.phantom_sites import patient

SPACING: Final = (2.5, 0.9, 0.9)
SIDE: Final = 512
PIECE: Final = 25
"""Slices simulated at once, at half the resolution: only the time of the pipeline is measured."""
WORKER: Final = """
import sys, tempfile
from pathlib import Path
from pipelines.api import Provenance, Request, settings_sha256
from pipelines.synthetic_ct.pipeline import run
from pipelines.synthetic_ct.settings import SyntheticCTSettings
from pipelines.synthetic_ct.site import case_inputs

inputs = case_inputs(Path(sys.argv[1]))
settings = SyntheticCTSettings(method="network")
provenance = Provenance(
    pipeline="synthetic_ct", version="0.1.0", settings_sha256=settings_sha256(settings),
    sources=tuple(sorted((f.sop_instance_uid, f.sha256) for f in inputs.files)),
)
output = Path(tempfile.mkdtemp())
made = run(Request(inputs=inputs, settings=settings, provenance=provenance, output=output))
print(made.figures["method"], made.figures["verdict"], len(made.objects), "slices", flush=True)
"""
"""What the fresh process runs."""


def write_case(folder: Path, slices: int) -> None:
    """Write a CBCT series of a pelvis into ``folder/cbct``."""
    half = (SPACING[0], 2 * SPACING[1], 2 * SPACING[2])
    hu = patient("pelvis", (slices, SIDE // 2, SIDE // 2), half, 70_123)
    scanner = CbctSettings(views=180, hu_shift=20.0, scatter=0.12, photons=2e5)
    parts = [simulate(hu[k : k + PIECE], half, scanner, 5) for k in range(0, slices, PIECE)]
    fine = ndimage.uniform_filter(np.concatenate(parts).repeat(2, 1).repeat(2, 2), (0, 2, 2))
    noise = np.random.default_rng(1).normal(0, 8, fine.shape)
    fine = np.where(fine > -999, fine + noise, fine).astype(np.float32)
    series = dicom.ct_series(
        replace(Case(seed=1), study="treatment"),
        fine,
        centered_grid(fine.shape, SPACING),
        device=dicom.VARIAN_CBCT,
        series="cbct",
        frame="cbct",
    )
    (folder / "cbct").mkdir(parents=True)
    dicom.save(series, folder / "cbct")


def main() -> None:
    """Write the case where it is missing, then measure a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--slices", type=int, default=100)
    parser.add_argument("--case", type=Path, help="folder of the case; made where it is missing")
    args = parser.parse_args()
    folder = args.case or Path(tempfile.mkdtemp())
    if not (folder / "cbct").exists():
        write_case(folder, args.slices)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", WORKER, str(folder)], check=True)
    wall = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"{wall:.1f} s wall, {used.ru_utime + used.ru_stime:.1f} CPU s, "
        f"{used.ru_maxrss / 1024:.0f} MiB at most"
    )


if __name__ == "__main__":
    main()
