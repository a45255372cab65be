"""CTs to train the synthetic CT network on, and the split by patient.

The soft-tissue sarcoma CTs of `train_sts_ct.tar.xz` (TCIA; Vallieres et al. 2015; CC BY 3.0): 34
crops of thigh and pelvis, NIfTI. Their axes are taken as (column, row, slice); which way they run
does not matter here, since training flips every axis. Procedural patients add the sites, the sizes
and the gas that the crops lack.
"""

import gzip
import struct
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.phantom import thorax
from models.phantom_sites import patient

HELD_OUT: Final = frozenset({"STS_006", "STS_015", "STS_024", "STS_036", "STS_043", "STS_051"})
"""Never trained on; fixed for ever (reference page, section 15)."""
NIFTI_TYPES: Final = {2: "u1", 4: "<i2", 8: "<i4", 16: "<f4", 64: "<f8", 256: "i1", 512: "<u2"}
"""Data type code -> numpy type (NIfTI-1 standard, nifti1.h)."""
PHANTOM_SITES: Final = ("thorax", "pelvis", "abdomen", "head")
FAT_HU, MUSCLE_HU = -100.0, 50.0
"""What the two tissues read in a well calibrated CT, and in `models.phantom`."""
PEAKS_HU: Final = ((-150.0, -50.0), (5.0, 95.0))
"""Where their peaks are looked for."""
DEEPEST_VALLEY: Final = 0.7
"""Count between the peaks over the lower peak: above, they are not two."""
MOST_OFF_HU: Final = 25.0
"""A peak further away is another tissue, not another calibration."""
BIN_HU: Final = 4.0
HIGHEST_HU: Final = 3000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ct:
    """One CT."""

    name: str
    hu: NDArray[np.float32]
    """Shape (slices, rows, columns), HU."""
    spacing: tuple[float, float, float]
    """(slice, row, column), mm."""


def read_nifti(name: str, data: bytes) -> Ct:
    """Return a little-endian NIfTI-1 volume.

    Raises
    ------
    ValueError
        If the bytes are no three-dimensional NIfTI-1 image of a known type.
    """
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    if len(data) < 352 or struct.unpack_from("<i", data)[0] != 348:  # noqa: PLR2004 (nifti1.h)
        raise ValueError(f"{name}: no little-endian NIfTI-1 file")
    dims = struct.unpack_from("<8h", data, 40)
    (code,) = struct.unpack_from("<h", data, 70)
    steps = struct.unpack_from("<8f", data, 76)
    start, slope, intercept = struct.unpack_from("<3f", data, 108)
    if dims[0] < 3 or code not in NIFTI_TYPES:  # noqa: PLR2004 (axes)
        raise ValueError(f"{name}: not a volume of a known type")
    shape = dims[3], dims[2], dims[1]  # the first axis of a NIfTI runs fastest
    count = shape[0] * shape[1] * shape[2]
    values = np.frombuffer(data, NIFTI_TYPES[code], count, int(start)).reshape(shape)
    hu = values.astype(np.float32) * (slope or 1.0) + intercept
    return Ct(name=name, hu=hu, spacing=(float(steps[3]), float(steps[2]), float(steps[1])))


def calibrated(hu: NDArray[np.float32], body: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return a CT with fat and muscle at `FAT_HU` and `MUSCLE_HU`; unchanged without two peaks.

    Scanners and patients differ by some 10 HU, and nothing in a CBCT tells a network by how much:
    it answers in the HU of its average training CT, which must therefore be the nominal ones. The
    28 training CTs read muscle at 43 HU in the mean; the first network, trained on them as they
    are, read the muscle of other patients 8 to 16 HU too low.
    """
    edges = np.arange(-200.0, 200.0, BIN_HU)
    counts = np.histogram(hu[body], edges)[0].astype(np.float64)
    smooth = np.asarray(ndimage.gaussian_filter1d(counts, 2.0), dtype=np.float64)
    centers = (edges[:-1] + edges[1:]) / 2
    fat, muscle = (
        int(near[smooth[near].argmax()])
        for near in (np.flatnonzero((centers > a) & (centers < b)) for a, b in PEAKS_HU)
    )
    lower = min(smooth[fat], smooth[muscle])
    off = abs(centers[fat] - FAT_HU), abs(centers[muscle] - MUSCLE_HU)
    if smooth[fat : muscle + 1].min() > DEEPEST_VALLEY * lower or max(off) > MOST_OFF_HU:
        return hu
    known = (-1000.0, centers[fat], centers[muscle], HIGHEST_HU)
    wanted = (-1000.0, FAT_HU, MUSCLE_HU, HIGHEST_HU + MUSCLE_HU - centers[muscle])
    return np.interp(hu, known, wanted).astype(np.float32)


def read_sts(archive: Path) -> Iterator[Ct]:
    """Yield the CTs of the training archive, in the archive's order."""
    with tarfile.open(archive) as tar:
        for member in tar:
            if Path(member.name).name == "CT_image.nii":
                stream = tar.extractfile(member)
                if stream is not None:
                    yield read_nifti(Path(member.name).parent.name, stream.read())


def phantom(
    site: str,
    seed: int,
    *,
    pixel_mm: float,
    slice_mm: float,
    slices: int,
    noise_hu: float | None = None,
) -> Ct:
    """Return a procedural patient of `site` on a grid of 440 mm; its noise is drawn if not said."""
    side = round(440 / pixel_mm)
    shape, spacing = (slices, side, side), (slice_mm, pixel_mm, pixel_mm)
    random = np.random.default_rng([seed, 6])
    if site == "thorax":
        center = (0.0, 0.0, float(random.uniform(-90, 90)))
        couch = bool(random.random() < 0.5)  # noqa: PLR2004 (share with a couch)
        drawn = float(random.uniform(3, 12))
        noise = drawn if noise_hu is None else noise_hu
        hu = thorax(shape, spacing, seed, center=center, couch=couch, noise_hu=noise).hu
    else:
        drawn = float(random.uniform(3, 12))
        noise = drawn if noise_hu is None else noise_hu
        hu = patient(site, shape, spacing, seed, noise_hu=noise)
    return Ct(name=f"{site}_{seed}", hu=hu, spacing=spacing)
