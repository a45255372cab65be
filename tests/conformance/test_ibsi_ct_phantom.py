"""IBSI-1, CT radiomics phantom, configurations C, D and E: 210 of 210 values each.

The phantom is CC BY-NC and lies in the development data only. Processing by the IBSI manual,
table 5.1: 2 mm, trilinear (E: cubic spline), rounded HU, mask >= 0.5 after rounding; C: range
[-1000, 400], 25 HU bins; D: 3 sigma, 32 bins; E: both, 32 bins.
"""

import csv
import gzip
import struct

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from pipelines.radiomics import ivh, morphology, stats, texture
from pipelines.radiomics.resample import aligned, trilinear
from tests.conformance.ibsi_reference import VALUES, agrees

pytestmark = pytest.mark.devpack

SPACING = (2.0, 2.0, 2.0)


def read_nifti(path):
    """Return the array (slices, rows, columns) and its spacing, from a plain NIfTI-1 file."""
    stored = gzip.decompress(path.read_bytes())
    columns, rows, slices = struct.unpack("<8h", stored[40:56])[1:4]
    kind = {2: "u1", 4: "<i2", 8: "<i4", 16: "<f4", 64: "<f8", 512: "<u2"}[
        struct.unpack("<h", stored[70:72])[0]
    ]
    x, y, z = struct.unpack("<8f", stored[76:108])[1:4]
    start = int(struct.unpack("<f", stored[108:112])[0])
    flat = np.frombuffer(stored, kind, columns * rows * slices, start)
    return flat.reshape(slices, rows, columns).astype(float), (z, y, x)


@pytest.fixture(scope="module")
def phantom(devpack):
    """Return trilinear image, cubic image and mask at 2 mm."""
    folder = devpack / "dev_ibsi1" / "ibsi_1_ct_radiomics_phantom" / "nifti"
    image, spacing = read_nifti(folder / "image" / "phantom.nii.gz")
    mask, _ = read_nifti(folder / "mask" / "mask.nii.gz")
    old = tuple(np.arange(n) * s for n, s in zip(image.shape, spacing, strict=True))
    new = tuple(aligned(line, 2.0) for line in old)
    index = np.meshgrid(*[p / s for p, s in zip(new, spacing, strict=True)], indexing="ij")
    cubic = map_coordinates(image, index, order=3, mode="nearest")
    inside = np.round(trilinear((mask > 0).astype(float), old, new), 5) >= 0.5
    return np.rint(trilinear(image, old, new)), np.rint(cubic), inside


def in_range(image, mask):
    return mask & (image >= -1000) & (image <= 400)


def without_outliers(image, mask):
    inside = image[mask]
    return mask & (np.abs(image - inside.mean()) <= 3 * inside.std())


def fixed_number(values, bins):
    low, high = values.min(), values.max()
    return np.minimum(np.floor(bins * (values - low) / (high - low)) + 1, bins)


def configuration(name, phantom):
    """Return (image, morphological mask, intensity mask, levels, IVH values, IVH levels)."""
    linear, cubic, mask = phantom
    if name == "c":
        kept = in_range(linear, mask)
        inside = linear[kept]
        centers = np.arange(-1000 + 1.25, 400, 2.5)
        return (linear, mask, kept, np.floor((inside + 1000) / 25) + 1,
                np.floor((inside + 1000) / 2.5) * 2.5 - 1000 + 1.25, centers)  # fmt: skip
    if name == "d":
        kept = without_outliers(linear, mask)
        inside = linear[kept]
        return (linear, mask, kept, fixed_number(inside, 32), inside,
                np.arange(inside.min(), inside.max() + 1))  # fmt: skip
    kept = without_outliers(cubic, in_range(cubic, mask))
    inside = cubic[kept]
    return (cubic, mask, kept, fixed_number(inside, 32), fixed_number(inside, 1000),
            np.arange(1.0, 1001))  # fmt: skip


@pytest.mark.parametrize("name", ["c", "d", "e"])
def test_all_210_values_agree_with_the_consensus(devpack, phantom, name):
    image, mask, kept, inside_levels, fractions, steps = configuration(name, phantom)
    levels = np.zeros(image.shape, dtype=int)
    levels[kept] = inside_levels
    volume = texture.Volume(levels, mask)
    glcm, glrlm = texture.glcm(volume), texture.glrlm(volume)
    found = {
        "": {
            **morphology.morphology(mask, image, kept, SPACING),
            **morphology.autocorrelation(image, kept, SPACING),
            **stats.statistics(image[kept]),
            **stats.histogram(levels[kept]),
            **stats.local_intensity(image, kept, SPACING),
            **ivh.ivh(fractions, steps),
            **texture.glszm(volume),
            **texture.gldzm(volume),
            **texture.neighborhood(volume),
        },
        "merged": glcm[0] | glrlm[0],
        "averaged": glcm[1] | glrlm[1],
    }
    table = devpack / "dev_ibsi1" / "reference_values_csv_mirp" / f"ibsi_1_chest_config_{name}.csv"
    with table.open(newline="") as file:
        published = {row[2]: (row[0], row[1]) for row in csv.reader(file, delimiter=";")}

    wrong = []
    for tag, code, how, _, _ in VALUES:
        reference, tolerance = (float(v) for v in published[tag])
        if not agrees(found[how][code], reference, tolerance):
            wrong.append((tag, found[how][code], reference, tolerance))

    assert not wrong
