"""Phases of a 4DCT are recognized, and what a structure covers in all of them is their union."""

import json

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from demo import dicom
from demo.elements import Case
from demo.grid import Grid
from node.cli.main import main
from pipelines.api import InputRejected
from pipelines.autocontour.four_d import Drawn, reference
from pipelines.dicom.phases import Phase, find_phases, is_average, percent_of
from pipelines.dicom.rtstruct import read_structure_set
from pipelines.dicom.volume import read_volume

SHAPE, SPACING = (20, 48, 64), (4.0, 4.0, 4.0)


@pytest.mark.parametrize(
    ("words", "percent"),
    [
        ("0.0%", 0.0),
        ("Thorax 4D 50.0 %", 50.0),
        ("T=30%", 30.0),
        ("CT_70", 70.0),
        ("Gated, 20.0%", 20.0),
        ("Resp 90", 90.0),
        ("100%", 0.0),
        ("Thorax 3.0 B31f", None),
        ("CT 1.25mm Stnd", None),
        ("MIP 0-90%", None),
        ("4D average", None),
    ],
)
def test_the_phase_is_read_from_what_scanners_write(words, percent):
    header = Dataset()
    header.SeriesDescription = words

    assert percent_of(header) == percent
    assert is_average(header) == ("average" in words)


def test_the_attribute_for_it_goes_before_the_words():
    header = Dataset()
    header.SeriesDescription = "Resp 90%"
    header.NominalPercentageOfRespiratoryPhase = 40.0

    assert percent_of(header) == 40.0


def saved(folder, words, rows, frame="2.25.77"):
    """Write one phase: a block of water that begins at a row."""
    hu = np.full(SHAPE, -1000.0, np.float32)
    hu[:, rows : rows + 28, 10:54] = 30
    grid = Grid(shape=SHAPE, spacing=SPACING, origin=(-120, -90, 0))
    number = int(sum(map(ord, words)))
    for k, ds in enumerate(dicom.ct_series(Case(seed=number), hu, grid)):
        ds.StudyInstanceUID, ds.FrameOfReferenceUID = "2.25.5", frame
        ds.SeriesInstanceUID = f"2.25.{number}"
        ds.SeriesDescription = words
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number}.{k + 1}"
        folder.mkdir(exist_ok=True)
        ds.save_as(folder / f"{number}-{k}.dcm", enforce_file_format=True)


def test_a_4dct_is_contoured_phase_by_phase_and_the_union_lies_on_the_average(tmp_path):
    """A block that moves by 12 mm covers 12 mm more than itself."""
    for words, row in (("0%", 8), ("30%", 10), ("50%", 11), ("AVERAGE", 9), ("MIP 0-90%", 8)):
        saved(tmp_path / "in", words, row)

    main(["contour", "4d", str(tmp_path / "in"), str(tmp_path / "out"),
          "--set", 'structures=["External"]', "--set", "work_grid_mm=4"],
         standalone_mode=False)  # fmt: skip

    told = json.loads((tmp_path / "out/4d.json").read_text())
    assert told["phases"] == ["0", "30", "50"]
    assert told["reference"] == "average"
    moved = told["structures"]["External"]
    slab_cc = 44 * 20 * 4**3 / 1000
    assert moved["union_cc"] - moved["volume_cc"][0] == pytest.approx(3 * slab_cc, rel=0.05)
    assert moved["travel_mm"]["front_back"] == pytest.approx(12, abs=0.5)
    assert moved["travel_mm"]["left_right"] == 0
    written = pydicom.dcmread(tmp_path / "out/rtstruct-4d.dcm")
    (roi,) = read_structure_set(tmp_path / "out/rtstruct-4d.dcm").rois
    average = {p.stem for p in (tmp_path / "in").glob(f"{sum(map(ord, 'AVERAGE'))}-*.dcm")}
    assert roi.name == "External^4D"
    assert len({loop.image_uid for loop in roi.closed}) == len(average) == SHAPE[0]
    assert written.ApprovalStatus == "UNAPPROVED"
    assert "union of External" in written.StructureSetROISequence[0].ROIDescription


@pytest.mark.parametrize(
    ("phases", "words"),
    [
        ([("0%", "2.25.77"), ("50%", "2.25.77")], "has at least 3"),
        ([("0%", "2.25.77"), ("50%", "2.25.77"), ("90%", "2.25.78")], "2 frames of reference"),
        ([("0%", "2.25.77"), ("T 50", "2.25.77"), ("50%", "2.25.77")], "the same phase"),
    ],
    ids=["two", "frames", "twice"],
)
def test_what_is_no_4dct_is_refused(phases, words, tmp_path):
    for name, frame in phases:
        saved(tmp_path / "in", name, 8, frame)

    with pytest.raises(InputRejected, match=words):
        find_phases(sorted((tmp_path / "in").iterdir()))


def drawn(percent, lungs, tmp_path):
    """Return a phase whose lungs have so many voxels."""
    folder = tmp_path / "one"
    if not folder.exists():
        saved(folder, "0%", 8)
    mask = np.zeros(SHAPE, np.bool_)
    mask.reshape(-1)[:lungs] = True
    return Drawn(
        phase=Phase(series_instance_uid=str(percent), percent=percent, paths=()),
        volume=read_volume(sorted(folder.iterdir())),
        masks={"Lungs": mask} if lungs else {},
    )


@pytest.mark.parametrize(
    ("lungs", "chosen"),
    [
        ({0.0: 900, 30.0: 700, 50.0: 500}, 30.0),
        ({0.0: 900, 30.0: 0, 60.0: 500}, 60.0),
        ({0.0: 900, None: 100, 60.0: 500}, None),
    ],
    ids=["middle-ventilation", "no-lungs", "average"],
)
def test_the_reference_is_chosen_by_rule(lungs, chosen, tmp_path):
    one, why = reference([drawn(p, n, tmp_path) for p, n in lungs.items()])

    assert one.phase.percent == chosen
    assert why


@pytest.mark.devpack
def test_the_phases_of_a_real_4dct_are_recognized(devpack):
    """Philips, downsampled: six series that say their percentage in the description alone."""
    found = find_phases(sorted((devpack / "dev_4dct_light").rglob("*.dcm")))

    assert [p.percent for p in found.phases] == [0.0, 10.0, 30.0, 50.0, 70.0, 90.0]
    assert {len(p.paths) for p in found.phases} == {47}
    assert found.average is None
