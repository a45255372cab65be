"""Images side by side: the fields of a checkerboard, and that each picture shows its images."""

from pathlib import Path

import numpy as np
from matplotlib.image import imread

from pipelines.report.boards import board, checkerboards, planes_of, spectra
from pipelines.report.figures import Scan

SHAPE = (12, 64, 80)


def _scan(hu: float) -> Scan:
    return Scan(hu=np.full(SHAPE, hu, np.float32), spacing=(3.0, 1.0, 1.0))


def test_fields_alternate_and_the_first_image_is_upper_left() -> None:
    fields = board((64, 80))

    assert fields[0, 0]
    assert not fields[0, 8]
    assert fields[8, 8]
    assert not fields[8, 0]
    assert abs(fields.mean() - 0.5) < 0.01


def test_a_checkerboard_shows_both_images_and_equal_ones_without_fields(tmp_path: Path) -> None:
    dark, bright = _scan(-900), _scan(300)

    mixed = imread(checkerboards(tmp_path / "a.png", [("both", dark, bright)]))
    same = imread(checkerboards(tmp_path / "b.png", [("both", bright, bright)]))

    middle = (slice(180, 320), slice(150, 310), 0)
    assert np.std(mixed[middle]) > 0.3
    assert np.std(same[middle]) < 0.01


def test_every_image_has_a_row_of_three_planes(tmp_path: Path) -> None:
    one = imread(planes_of(tmp_path / "1.png", [("a", _scan(0))]))
    three = imread(planes_of(tmp_path / "3.png", [("a", _scan(0))] * 3))

    assert three.shape[0] - one.shape[0] == 500
    assert three.shape[1] == one.shape[1]


def test_the_same_spectra_give_the_same_bytes(tmp_path: Path) -> None:
    frequency = np.linspace(0, 0.5, 8)
    curves = [("CBCT", frequency, np.exp(-frequency))]

    first = spectra(tmp_path / "a.png", curves).read_bytes()

    assert spectra(tmp_path / "b.png", curves).read_bytes() == first
