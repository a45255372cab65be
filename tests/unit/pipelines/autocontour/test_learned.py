"""Organs of a network land where they are in the patient, whatever way the image lies."""

import itertools

import numpy as np
import pytest

from models.pack import Manifest
from models.window import WIDE_HU
from pipelines.api import InputRejected
from pipelines.autocontour import learned
from pipelines.autocontour.learned import find_organs, implausible, turn_of

HEAD, BACK, LEFT = np.eye(3)[2], np.eye(3)[1], np.eye(3)[0]


def manifest(**volume: tuple[float, float]) -> Manifest:
    outputs = [
        {"index": n, "name": name, "volume_ml": limits}
        for n, (name, limits) in enumerate(volume.items(), start=1)
    ]
    return Manifest.model_validate(
        {
            "schema_version": 1, "id": "test", "version": "1", "title": "t", "kind": "contour",
            "body_region": "head", "spacing_mm": (1.5, 3.3), "outputs": outputs,
            "frame": {
                "dimensions": 2, "voxel_mm": (2.5, 3.9, 3.9), "patch": (1, 80, 80),
                "field": (80, 80), "offsets": (-1, 0, 1),
            },
            "weights_licence": "x", "data": [], "intended_use": "", "contraindications": "",
            "metrics": {}, "training": {}, "files": [],
        }
    )  # fmt: skip


def head_and_left_are_different(batch: np.ndarray) -> np.ndarray:
    """Class 1 where it is bright in the canonical left half, class 2 in the right half."""
    low, high = WIDE_HU
    score = (((batch[:, -1] + 1) / 2 * (high - low) + low) - 400.0) / 20.0
    left = np.arange(score.shape[-1]) > (score.shape[-1] - 1) / 2
    nothing = np.full_like(score, -50.0)
    return np.stack(
        [np.zeros_like(score), np.where(left, score, nothing), np.where(left, nothing, score)],
        axis=1,
    ).astype(np.float32)


ORIENTATIONS = [
    pytest.param(order, signs, id=f"{order}{signs}")
    for order in ((0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1))
    for signs in itertools.product((1, -1), repeat=3)
]


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_left_stays_left_in_every_orientation(order, signs):
    """The same patient, stored along any axes in any direction."""
    shape, spacing = (24, 60, 60), (2.5, 3.0, 3.5)
    canonical = np.full(shape, -1024.0, np.float32)
    canonical[:, 8:52, 8:52] = 0.0
    canonical[8:14, 20:28, 38:46] = 1000.0  # at the patient's left
    canonical[14:20, 34:42, 14:20] = 1000.0  # at the patient's right
    axes = np.array([HEAD, BACK, LEFT])
    stored = np.transpose(canonical, order)[tuple(slice(None, None, s) for s in signs)]
    directions = axes[list(order)] * np.array(signs)[:, None]
    steps = tuple(spacing[a] for a in order)

    found = find_organs(
        np.ascontiguousarray(stored), stored > -500, steps, directions,
        (head_and_left_are_different,), manifest(Parotid_L=(0, 99), Parotid_R=(0, 99)),
    )  # fmt: skip

    found = found.fields
    for name, sign in (("Parotid_L", 1), ("Parotid_R", -1)):
        mask = found[name] > 0.5
        bright = stored > 500
        assert (mask & bright).sum() > 0.8 * mask.sum()
        where = np.argwhere(mask).mean(axis=0) - (np.array(stored.shape) - 1) / 2
        x = float(where * np.array(steps) @ directions[:, 0])  # patient left, mm
        assert x * sign > 15


def test_an_oblique_series_is_refused():
    angle = np.radians(30)
    tilted = np.array(
        [
            np.cos(angle) * HEAD + np.sin(angle) * BACK,
            np.cos(angle) * BACK - np.sin(angle) * HEAD,
            LEFT,
        ]
    )

    with pytest.raises(InputRejected, match="tilted by more than 20 degrees"):
        turn_of(tilted)


def test_missing_and_odd_sized_organs_are_named():
    field = np.zeros((10, 10, 10), np.float32)
    field[:5, :4, :5] = 1.0  # 100 voxels of 0.1 ml

    odd = implausible(
        {"Larynx": field, "Brainstem": field},
        0.1,
        manifest(Larynx=(5, 20), Brainstem=(20, 40), Parotid_L=(5, 50)),
    )

    assert odd == ("Brainstem", "Parotid_L")


def test_a_worker_loads_the_network_of_a_pack_once(monkeypatch):
    """The second case finds the model warm; a changed pack is another model."""
    loaded = []
    real = learned.load_members
    monkeypatch.setattr(learned, "load_members", lambda pack: loaded.append(pack) or real(pack))
    learned._loaded.cache_clear()

    first = learned.installed("headneck-openkbp")
    second = learned.installed("headneck-openkbp")

    assert len(loaded) == 1
    assert first[1] is second[1]
    assert first[0].sha256 == second[0].sha256


def foreign_manifest(members: int = 1) -> Manifest:
    """Return an imported network: a volume turned to RAS, all of the image, its own scaling."""
    told = manifest(Kidney_L=(0, 99), Kidney_R=(0, 99)).model_dump()
    told["frame"] = {
        "dimensions": 3, "voxel_mm": (3.0, 3.0, 3.0), "patch": (8, 16, 16), "field": None,
        "axes": ("H", "A", "R"), "scaling": {"clip_hu": (-200, 800), "subtract": 0, "divide": 100},
    }  # fmt: skip
    return Manifest.model_validate(told | {"body_region": "any", "members": members})


def left_is_where_columns_are_low(middle: int):
    """Return a network of whole volumes: class 1 left of the column `middle`, class 2 right."""

    def network(batch):
        bright = (batch[:, 0] - 4.0) * 20  # 400 HU
        low = np.arange(batch.shape[-1]) < middle
        nothing = np.full_like(bright, -50.0)
        classes = [np.zeros_like(bright), np.where(low, bright, nothing),
                   np.where(low, nothing, bright)]  # fmt: skip
        return np.stack(classes, axis=1).astype(np.float32)

    return network


@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
def test_a_network_trained_on_images_turned_to_ras_gets_them_so(signs):
    """Columns of RAS grow to the patient's right: what lies left has low columns."""
    canonical = np.full((8, 16, 16), -1000.0, np.float32)
    canonical[:, 2:14, 1:15] = 0.0
    canonical[2:6, 6:10, 11:14] = 1000.0  # at the patient's left
    canonical[2:6, 6:10, 2:5] = 1000.0  # at the patient's right
    stored = canonical[tuple(slice(None, None, s) for s in signs)]
    directions = np.array([HEAD, BACK, LEFT]) * np.array(signs)[:, None]

    found = find_organs(
        np.ascontiguousarray(stored), stored > -500, (3.0, 3.0, 3.0), directions,
        [left_is_where_columns_are_low(8)], foreign_manifest(),
    )  # fmt: skip

    assert set(found.fields) == {"Kidney_L", "Kidney_R"}
    assert found.agreement == {}
    for name, sign in (("Kidney_L", 1), ("Kidney_R", -1)):
        mask = found.fields[name] > 0.5
        assert (stored[mask] == 1000).all()
        assert mask.sum() == 4 * 4 * 3
        where = np.argwhere(mask).mean(axis=0) - 7.5
        assert float(where * 3.0 @ directions[:, 0]) * sign > 10


def test_the_agreement_of_two_trainings_is_their_dice():
    """One finds three columns of an organ, the other calls one of them the other side."""
    hu = np.full((8, 16, 16), 0.0, np.float32)
    hu[2:6, 6:10, 6:9] = 1000.0

    found = find_organs(
        hu, hu > -500, (3.0, 3.0, 3.0), np.array([HEAD, BACK, LEFT]),
        [left_is_where_columns_are_low(10), left_is_where_columns_are_low(9)],
        foreign_manifest(members=2),
    )  # fmt: skip

    assert found.agreement["Kidney_L"] == pytest.approx(2 * 2 / (3 + 2))
