"""How long contours take: the writer alone, the network alone, and a whole head-and-neck CT.

Run: ``.venv/bin/python -m benchmarks.contouring``; prints seconds, points, bytes and memory. The
whole case is timed as a warm worker sees it: from the files of the last image on disk to the RT
Structure Set on disk, read back and checked, for several numbers of slices of 512 x 512. The
reference figures of the project's notes for 20 structures on 512 x 512 x 200: a common open
writer 14.2 MB and 4.4 CPU s at a Dice of .82 to .96; our target is 6 MB and 4 CPU s at 1.000.
"""

import contextlib
import io
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from demo import dicom
from demo.elements import Case
from demo.grid import centered_grid
from models.organs import answer
from models.phantom import thorax
from models.phantom_sites import patient
from node.worker import process_folder
from pipelines.api import Provenance
from pipelines.autocontour.learned import installed
from pipelines.autocontour.names import Organ
from pipelines.autocontour.pipeline import find_all
from pipelines.dicom.rtstruct_check import check_structure_set
from pipelines.dicom.rtstruct_writer import Structure, write_structure_set
from pipelines.dicom.volume import pose_of
from pipelines.geometry.stack import StackGeometry
from pipelines.imaging.grid import work_image

SHAPE = (200, 512, 512)
SPACING = (1.5, 0.977, 0.977)
SLICES = (75, 150, 300)
"""Of the whole case; cost should be linear in them."""
PACK = "headneck-openkbp"
PROVENANCE = Provenance(pipeline="benchmark", version="0", settings_sha256="0" * 64, sources=())


def organs(count: int = 20) -> list[Structure]:
    """Return bumpy ellipsoids from the size of a cord to that of a liver, some with a hole."""
    rng = np.random.default_rng(1)
    found = []
    for n in range(count):
        radii = rng.uniform((20, 8, 8), (95, 90, 90))
        center = rng.uniform(radii + 1, np.array(SHAPE) - radii - 1)
        low, high = np.floor(center - radii).astype(int), np.ceil(center + radii).astype(int) + 1
        z, y, x = np.ogrid[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        bumps = 0.06 * np.sin(x / 5.0) + 0.06 * np.sin(y / 7.0) + 0.05 * np.sin(z / 4.0)
        distance = np.sqrt(sum(((i - c) / r) ** 2 for i, c, r in zip((z, y, x), center, radii,
                                                                    strict=True)))  # fmt: skip
        field = distance + bumps < 0.9
        if n % 4 == 0:
            field &= distance > 0.35
        found.append(Structure(number=n + 1, name=f"organ_{n}", field=field, corner=tuple(low),
                               interpreted_type="ORGAN", color=(255, 0, 0)))  # fmt: skip
    return found


def head(slices: int, folder: Path) -> None:
    """Write a head-and-neck phantom of 512 x 512 pixels."""
    coarse = patient("head", (slices, 128, 128), (300 / slices, 3.9, 3.9), 1)
    hu = coarse.repeat(4, axis=1).repeat(4, axis=2)
    grid = centered_grid(hu.shape, (300 / slices, 0.975, 0.975))
    dicom.save(dicom.ct_series(Case(seed=slices), hu, grid), folder)


def memory_mib() -> float:
    """Return the most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def whole_case(slices: int, folder: Path) -> None:
    """Print what a case of `slices` costs a warm worker."""
    head(slices, folder / "ct")
    wall, cpu = time.monotonic(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = process_folder("autocontour", folder / "ct", folder / "out", {"model_pack": PACK})
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    print(f"{slices} slices of 512x512 to an RTSTRUCT (exit {code}): {wall:.1f} s, "
          f"{cpu:.1f} CPU s, {1000 * cpu / slices:.0f} CPU ms a slice; "
          f"process {memory_mib():.0f} MiB at most")  # fmt: skip


def network_alone(slices: int) -> None:
    """Print what the sliding networks cost on `slices` of 512 x 512, and its memory."""
    pack, networks = installed(PACK)
    hu = np.full((slices, 512, 512), -1024, np.int16)
    hu[:, 130:390, 130:390] = 30
    cpu, before = time.process_time(), memory_mib()
    for _ in answer(hu, (1.0, 0.975, 0.975), networks, pack.manifest.frames).slices():
        pass
    print(f"network over {slices} slices of 512x512 of 1 mm: {time.process_time() - cpu:.1f} "
          f"CPU s, {memory_mib() - before:.0f} MiB above the image "
          f"of {hu.nbytes / 2**20:.0f} MiB")  # fmt: skip


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        whole_case(20, Path(folder) / "warm-up")
        for slices in SLICES:
            whole_case(slices, Path(folder) / str(slices))
    network_alone(800)
    grid = centered_grid(SHAPE, SPACING)
    small = centered_grid((SHAPE[0], 8, 8), SPACING)
    headers = dicom.ct_series(Case(), np.full(small.shape, -1000.0), small)
    for k, ds in enumerate(headers):
        ds.Rows, ds.Columns = SHAPE[1:]
        ds.ImagePositionPatient = [round(float(v), 3) for v in grid.slice_origin(k)]
    geometry = StackGeometry.of([pose_of(ds) for ds in headers])
    structures = organs()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rs.dcm"
        start = time.process_time()
        written = write_structure_set(structures, headers, geometry, PROVENANCE, path)
        wrote = time.process_time()
        trips = check_structure_set(path, structures, headers, geometry)
        checked = time.process_time()
        size = path.stat().st_size
    print(f"writer, 20 structures on 512x512x200: {wrote - start:.1f} CPU s, {written.points} "
          f"points, {size / 1e6:.1f} MB")  # fmt: skip
    print(f"  read back and compared: {checked - wrote:.1f} CPU s, lowest Dice "
          f"{min(t.dice for t in trips):.4f}")  # fmt: skip

    spacing = (3.0, 2.0, 2.0)
    patient = thorax((84, 144, 192), spacing, 1, center=(0.0, 0.0, 18.0))
    on_grid = StackGeometry.regular(shape=patient.hu.shape, spacing=spacing, origin=patient.origin)
    start = time.process_time()
    found = find_all(work_image(patient.hu, on_grid, 2.0), list(Organ))
    print(f"six structures found on a phantom of {patient.hu.shape}: "
          f"{time.process_time() - start:.1f} CPU s ({len(found.surfaces)} found)")  # fmt: skip


if __name__ == "__main__":
    main()
