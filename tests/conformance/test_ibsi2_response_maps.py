"""IBSI-2: our response maps against the consensus maps of the filter phantoms, voxel by voxel.

The tolerance of IBSI-2 is 1 % of the range of the consensus map, at every voxel. The phantoms
(CC BY 4.0) and the consensus maps (CC0, theibsi/ibsi_2_reference_data) lie in the development data.
"""

import numpy as np
import pytest

from pipelines.radiomics.filter_settings import (
    Gabor,
    LaplacianOfGaussian,
    Laws,
    Mean,
    Simoncelli,
    Wavelet,
)
from pipelines.radiomics.filters import filtered
from tests.conformance.test_ibsi_ct_phantom import read_nifti

pytestmark = pytest.mark.devpack

VOXEL_MM = 2.0
BOARD, IMPULSE, SPHERE = "checkerboard", "impulse", "sphere"
RIPPLES = {"wavelength_mm": 4.0, "sigma_mm": 10.0, "aspect": 0.5, "boundary": "zero"}
WAVES = {"wavelength_mm": 8.0, "sigma_mm": 20.0, "aspect": 2.5, "boundary": "mirror"}

MAPS = {
    "1A1": (BOARD, Mean(support=15, boundary="zero")),
    "1A2": (BOARD, Mean(support=15, boundary="nearest")),
    "1A3": (BOARD, Mean(support=15, boundary="periodic")),
    "1A4": (BOARD, Mean(support=15, boundary="mirror")),
    "1B1": (IMPULSE, Mean(support=15, boundary="zero", dimensions=2)),
    "2A": (IMPULSE, LaplacianOfGaussian(sigma_mm=3.0, boundary="zero")),
    "2B": (BOARD, LaplacianOfGaussian(sigma_mm=5.0)),
    "2C": (BOARD, LaplacianOfGaussian(sigma_mm=5.0, dimensions=2)),
    "3A1": (IMPULSE, Laws(kernels="E5L5S5", pooling=None, energy=None, boundary="zero")),
    "3A2": (IMPULSE, Laws(kernels="E5L5S5", energy=None, boundary="zero")),
    "3A3": (IMPULSE, Laws(kernels="E5L5S5", energy=7, boundary="zero")),
    "3B1": (BOARD, Laws(kernels="E3W5R5", pooling=None, energy=None)),
    "3B2": (BOARD, Laws(kernels="E3W5R5", energy=None)),
    "3B3": (BOARD, Laws(kernels="E3W5R5", energy=7)),
    "3C1": (BOARD, Laws(kernels="L5S5", pooling=None, energy=None)),
    "3C2": (BOARD, Laws(kernels="L5S5", energy=None)),
    "3C3": (BOARD, Laws(kernels="L5S5", energy=7)),
    "4A1": (IMPULSE, Gabor(**RIPPLES, angle_pi=1 / 3, step_pi=None, planes="axial")),
    "4A2": (IMPULSE, Gabor(**RIPPLES, step_pi=1 / 4)),
    "4B1": (SPHERE, Gabor(**WAVES, angle_pi=5 / 4, step_pi=None, planes="axial")),
    "4B2": (SPHERE, Gabor(**WAVES, step_pi=1 / 8)),
    "5A1": (IMPULSE, Wavelet(family="db2", bands="LHL", pooling=None, boundary="zero")),
    "5A2": (IMPULSE, Wavelet(family="db2", bands="LHL", boundary="zero")),
    "6A1": (SPHERE, Wavelet(family="coif1", bands="HHL", pooling=None, boundary="periodic")),
    "6A2": (SPHERE, Wavelet(family="coif1", bands="HHL", boundary="periodic")),
    "7A1": (BOARD, Wavelet(family="haar", bands="LLL", level=2)),
    "7A2": (BOARD, Wavelet(family="haar", bands="HHH", level=2)),
    "8A1": (BOARD, Simoncelli(level=1)),
    "8A2": (BOARD, Simoncelli(level=2)),
    "8A3": (BOARD, Simoncelli(level=3)),
}


def test_every_consensus_map_of_the_pack_is_tested(devpack):
    folder = devpack / "dev_ibsi2_filters" / "reference_response_maps"

    assert len(list(folder.iterdir())) == len(MAPS)


@pytest.mark.parametrize("name", MAPS)
def test_the_response_map_is_the_consensus_map(devpack, name):
    folder = devpack / "dev_ibsi2_filters"
    phantom, chosen = MAPS[name]
    image, spacing = read_nifti(
        folder / "ibsi_2_digital_phantom_nifti" / phantom / "image" / f"{phantom}.nii.gz"
    )
    (path,) = (folder / "reference_response_maps").glob(f"*_CT_{name}_*")
    consensus, _ = read_nifti(path)

    response = filtered(image, chosen, VOXEL_MM)

    assert spacing == (VOXEL_MM,) * 3
    assert np.abs(response - consensus).max() <= 0.01 * np.ptp(consensus)
