"""Measure the shipped stability classes: ``python benchmarks/dose_stability.py``.

Writes ``pipelines/dose_radiomics/stability_table.py``. The analytic thoracic dose of
``benchmarks/dose_radiomics.py`` is sampled exactly on grids of 1.5 to 4 mm and on shifted ones, so
nothing but the grid and the interpolation of the recipe differs; nine structures.
"""

# ruff: noqa: E402 - the root must be on the path first
import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.dose_radiomics import gray_at, ten_roi_job
from pipelines.dicom.rtdose import DoseGrid
from pipelines.dose_radiomics.inputs import read_case
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from pipelines.dose_radiomics.stability import Study, study
from pipelines.dose_radiomics.stability_report import summary
from pipelines.radiomics.resample import Axes

TABLE = ROOT / "pipelines" / "dose_radiomics" / "stability_table.py"
SPACINGS_MM = (1.5, 2.0, 3.0, 4.0)  # beside the 2.5 mm of the phantom
HEAD = '''"""Stability of features on an analytic dose. Written by benchmarks/dose_stability.py."""

from typing import Final

TABLE: Final[tuple[tuple[str, str, float, float | None], ...]] = (
'''
TAIL = """)
\"\"\"(IBSI code, class, CV of the worst factor [%], lowest ICC(2,1)).\"\"\"
"""


def exact(grid: DoseGrid, axes: Axes) -> DoseGrid:
    """Return the true dose on another grid, frame by frame."""
    frames = []
    for height in axes[0]:
        k, j, i = np.meshgrid([height], axes[1], axes[2], indexing="ij")
        frames.append(gray_at(grid.origin + np.stack([k, j, i], axis=-1) @ grid.axes))
    return replace(grid, dose=np.concatenate(frames), positions=axes)


def measure() -> Study:
    """Return the study of the phantom."""
    with tempfile.TemporaryDirectory() as folder:
        job = ten_roi_job(Path(folder))
        settings = DoseRadiomicsSettings()
        case = read_case(job.inputs, settings)
        return study([case], settings, print, SPACINGS_MM, exact)


def text(result: Study) -> str:
    """Return the module."""
    lines = []
    for row in result.rows:
        cv = max(spread.mean_cv for spread in row.spreads.values())
        icc = min((s.icc for s in row.spreads.values() if s.icc is not None), default=None)
        figure = "None" if icc is None else f"{icc:#.4g}"
        lines.append(f'    ("{row.code}", "{row.stability}", {cv:#.4g}, {figure}),\n')
    return HEAD + "".join(lines) + TAIL


def main() -> None:
    """Measure, print, and write the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    options = parser.parse_args()
    result = measure()
    for line in summary(result):
        print(" ".join(f"{cell:>9s}" for cell in line))
    made = text(result)
    if options.check:
        sys.exit(0 if made == TABLE.read_text(encoding="utf-8") else "the table has changed")
    TABLE.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
