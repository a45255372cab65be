"""Pictures: upright, to scale, repeatable, marked as drafts."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.report.figures import Curve, Overlay, Scan, compare, dvh_plot, three_planes
from pipelines.report.plane import Plane
from tests import factories


def scan(position: str = "HFS") -> Scan:
    grid = factories.ct_grid(position=position)
    return Scan(
        hu=factories.hu_at(grid.positions()),
        spacing=grid.spacing,
        row_direction=grid.row_direction,
        column_direction=grid.column_direction,
    )


def plane_of(image: Scan, axis: int) -> Plane:
    return Plane(image.directions, image.spacing, axis)


@pytest.mark.parametrize("position", ["HFS", "HFP", "FFS", "FFP"])
@pytest.mark.parametrize(
    ("axis", "edges"),
    [
        pytest.param(0, "APRL", id="axial: anterior up, patient left to the right"),
        pytest.param(1, "HFRL", id="coronal: head up"),
        pytest.param(2, "HFAP", id="sagittal: head up, anterior to the left"),
    ],
)
def test_planes_stand_upright_whatever_way_the_patient_lay(
    position: str, axis: int, edges: str
) -> None:
    plane = plane_of(scan(position), axis)

    assert "".join(plane.edges[e] for e in ("top", "bottom", "left", "right")) == edges


@pytest.mark.parametrize("position", ["HFS", "HFP", "FFS", "FFP"])
def test_every_position_shows_the_same_axial_picture(position: str) -> None:
    """The marker is right and anterior: upper left quarter of the picture."""
    turned = scan(position)
    grid = factories.ct_grid(position=position)
    k = int(np.argwhere(turned.hu > 1500)[0][0])

    picture = plane_of(turned, 0).take(turned.hu, k)

    row, column = np.argwhere(picture > 1500).mean(axis=0)
    assert row < grid.shape[1] / 2
    assert column < grid.shape[2] / 2


def test_a_pixel_is_as_high_as_it_is_in_the_patient() -> None:
    plane = plane_of(Scan(hu=np.zeros((4, 8, 8)), spacing=(3.0, 1.0, 2.0)), 1)

    assert plane.aspect == pytest.approx(1.5)


def test_the_same_arrays_give_the_same_bytes(tmp_path: Path) -> None:
    mask = np.asarray(scan().hu > 300)
    paths = [
        three_planes(scan(), tmp_path / name, overlays=[Overlay(name="Bones", mask=mask)])
        for name in ("a.png", "b.png")
    ]

    first, second = (p.read_bytes() for p in paths)
    assert first == second
    assert first.startswith(b"\x89PNG")


def test_a_comparison_is_drawn_with_and_without_a_truth(tmp_path: Path) -> None:
    image = scan()

    with_truth = compare(tmp_path / "a.png", cbct=image, sct=image, truth=image)
    without = compare(tmp_path / "b.png", cbct=image, sct=image)

    assert with_truth.stat().st_size > 0
    assert without.stat().st_size > 0


def test_empty_structures_and_no_curves_still_draw(tmp_path: Path) -> None:
    empty = np.zeros(scan().hu.shape, bool)

    three_planes(scan(), tmp_path / "a.png", overlays=[Overlay(name="none", mask=empty)])
    dvh_plot(tmp_path / "b.png", [])
    dvh_plot(
        tmp_path / "c.png",
        [Curve(name="PTV", dose_gy=np.array([0.0, 60]), volume_percent=np.array([100.0, 0]))],
        points={"V20": (20.0, 50.0)},
    )

    assert {p.name for p in tmp_path.iterdir()} == {"a.png", "b.png", "c.png"}
