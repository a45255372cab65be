"""CT files into HU in the right place, and what is refused on the way."""

import numpy as np
import pytest
from pydicom.uid import RLELossless

from demo.grid import DIRECTIONS
from pipelines.api import InputRejected
from pipelines.dicom.read import read_dataset
from pipelines.dicom.volume import AIR_HU, from_sitk, read_volume, resample_to, to_sitk
from pipelines.geometry.stack import StackGeometry
from tests import factories


def saved(datasets, folder):
    """Write data sets under names that say nothing and return the paths, in reverse."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, ds in enumerate(datasets):
        ds.save_as(folder / f"{number:03}.dcm", enforce_file_format=True)
    return sorted(folder.glob("*.dcm"), reverse=True)


def series(**options):
    return factories.ct_series(
        grid=factories.ct_grid(20, rows=40, columns=48, spacing=(5.0, 7.5, 7.0), **options)
    )


def brightest(volume):
    """Return the LPS mean position [mm] of the bright marker."""
    index = np.argwhere(volume.hu > 1500)
    return volume.geometry.points(index).mean(axis=0)


@pytest.mark.parametrize("tilt", [0.0, 12.0], ids=["straight", "oblique"])
@pytest.mark.parametrize("position", DIRECTIONS)
def test_the_bright_marker_stays_where_it_is_in_every_position(position, tilt, tmp_path):
    volume = read_volume(saved(series(position=position, tilt_deg=tilt), tmp_path))

    assert np.linalg.norm(brightest(volume) - factories.MARKER) < 6
    assert volume.hu.dtype == np.int16
    assert volume.hu.min() == -1000
    assert [h.SOPInstanceUID for h in volume.headers] == [
        ds.SOPInstanceUID for ds in series(position=position, tilt_deg=tilt)
    ]
    assert all("PixelData" not in h for h in volume.headers)


def test_the_marker_survives_simpleitk_and_resampling(tmp_path):
    volume = read_volume(saved(series(position="HFDL"), tmp_path))
    target = StackGeometry.regular(
        shape=(30, 50, 45), spacing=(2.5, 5.0, 7.5), origin=(-170.0, -120.0, -30.0)
    )

    back, geometry = from_sitk(to_sitk(volume.hu, volume.geometry))
    moved = resample_to(volume.hu, volume.geometry, target, outside=-1000)

    np.testing.assert_array_equal(back, volume.hu)
    assert geometry.same_grid(volume.geometry)
    place = target.points(np.argwhere(moved > 1200)).mean(axis=0)
    assert np.linalg.norm(place - factories.MARKER) < 6


def test_a_left_handed_image_is_flipped_and_not_mirrored():
    geometry = StackGeometry.regular(shape=(3, 4, 5), spacing=(2.0, 1.0, 1.5))
    array = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    image = to_sitk(array[::-1], geometry)
    image.SetOrigin((0.0, 0.0, 4.0))
    image.SetDirection((1, 0, 0, 0, 1, 0, 0, 0, -1))

    back, found = from_sitk(image)

    np.testing.assert_array_equal(back, array)
    assert found.same_grid(geometry)


def test_a_registration_moves_points_of_the_target_to_the_source():
    grid = StackGeometry.regular(shape=(9, 9, 9), spacing=(1.0, 1.0, 1.0))
    array = np.zeros((9, 9, 9), np.float32)
    array[4, 3, 6] = 100
    shift = np.eye(4)
    shift[:3, 3] = (2.0, -1.0, 0.0)  # x, y, z

    moved = resample_to(array, grid, grid, outside=0, target_to_source=shift)

    assert moved[4, 4, 4] == 100


def test_localizers_and_repeated_files_are_left_out(tmp_path):
    datasets = series()
    localizer = series()[0]
    localizer.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    localizer.SOPInstanceUID += ".1"
    localizer.file_meta.MediaStorageSOPInstanceUID = localizer.SOPInstanceUID

    volume = read_volume(saved([*datasets, datasets[2], localizer], tmp_path))

    assert volume.hu.shape[0] == len(datasets)
    assert [f.code for f in volume.findings] == ["localizer-left-out"]


def drop(keyword, *keywords):
    def change(datasets):
        for ds in datasets:
            for word in (keyword, *keywords):
                del ds[word]
        return datasets

    return change


def edit(index, **values):
    def change(datasets):
        for keyword, value in values.items():
            setattr(datasets[index], keyword, value)
        return datasets

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: factories.without(d, 3), "a slice is missing between"),
        (drop("RescaleIntercept", "RescaleSlope"), "not Hounsfield units"),
        (drop("ImagePositionPatient"), "does not state its position"),
        (edit(2, SeriesInstanceUID="1.2.3"), "2 series"),
        (edit(2, FrameOfReferenceUID="1.2.3"), "2 frames of reference"),
        (edit(2, Modality="MR"), "modality MR is not a CT"),
        (edit(2, PixelSpacing=[6, 6.5]), "different pixel spacings"),
        (edit(2, ImageOrientationPatient=[0, 1, 0, -1, 0, 0]), "2 different orientations"),
        (edit(2, NumberOfFrames="5"), "multi-frame"),
        (edit(2, PixelData=b"\0\0"), "cannot be decoded"),
        (lambda _: [], "no CT image"),
    ],
    ids=["gap", "scale", "position", "series", "frame", "mr", "spacing", "orientation", "frames",
         "pixels", "nothing"],
)  # fmt: skip
def test_what_cannot_be_a_volume_is_refused_in_a_sentence(change, words, tmp_path):
    with pytest.raises(InputRejected, match=words):
        read_volume(saved(change(series()), tmp_path))


def test_compressed_pixels_give_the_same_volume(tmp_path):
    plain = read_volume(saved(series(), tmp_path / "plain"))
    datasets = series()
    for ds in datasets:
        ds.compress(RLELossless, generate_instance_uid=False)

    np.testing.assert_array_equal(read_volume(saved(datasets, tmp_path / "rle")).hu, plain.hu)


def test_padding_is_air_and_marked_whatever_value_it_has(tmp_path):
    """Signed pixels with the padding written as unsigned 63536, as GE does."""
    datasets = series()
    for ds in datasets:
        hu = ds.pixel_array.astype(np.int16) - 1024
        hu[:3] = -2000
        ds.PixelRepresentation, ds.RescaleIntercept, ds.HighBit = 1, "0", 15
        ds.PixelData = hu.tobytes()
        ds.PixelPaddingValue = -2000
        ds["PixelPaddingValue"].VR = "SS"

    volume = read_volume(saved(datasets, tmp_path))

    assert volume.padded is not None
    assert volume.padded[:, :3].all()
    assert not volume.padded[:, 3:].any()
    assert (volume.hu[:, :3] == AIR_HU).all()


def test_a_fractional_slope_keeps_its_precision(tmp_path):
    datasets = series()
    for ds in datasets:
        ds.RescaleSlope, ds.RescaleIntercept = "0.5", "-700"

    volume = read_volume(saved(datasets, tmp_path))

    assert volume.hu.dtype == np.float32
    assert volume.hu.min() == pytest.approx(24 * 0.5 - 700)


def test_bits_above_those_stored_are_ignored(tmp_path):
    """Old overlays live there."""
    datasets = series()
    for ds in datasets:
        stored = ds.pixel_array.copy()
        ds.BitsStored, ds.HighBit = 12, 11
        ds.PixelData = (stored | 0x8000).tobytes()

    volume = read_volume(saved(datasets, tmp_path))

    assert np.linalg.norm(brightest(volume) - factories.MARKER) < 6


def test_what_is_no_dicom_file_is_refused_without_its_name(tmp_path):
    path = tmp_path / "YAMADA^TAROU.dcm"
    path.write_bytes(b"nothing of the kind")

    with pytest.raises(InputRejected) as refused:
        read_dataset(path)

    assert "YAMADA" not in str(refused.value)
