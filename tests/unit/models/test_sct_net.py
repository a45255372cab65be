"""The synthetic CT network: starts as the identity, never leaves its bounds, sees whole slices."""

import numpy as np
import pytest
import torch

from models.sct_infer import MARGIN_PX, body_box, correct, neighbours
from models.sct_net import SctNet, SctNetConfig, config_of
from models.training.evaluate_sct import as_network

TINY = SctNetConfig(channels=(8, 8, 8, 8), head=2, refine=4)


def _body(shape=(6, 70, 90)) -> np.ndarray:
    body = np.zeros(shape, np.bool_)
    body[:, 20:50, 30:64] = True
    return body


def test_an_untrained_network_is_the_identity():
    cbct = np.random.default_rng(1).normal(0, 300, (6, 70, 90)).astype(np.float32)

    made = correct(cbct, _body(), as_network(SctNet(TINY).eval()))

    assert made == pytest.approx(cbct, abs=1e-3)


@pytest.mark.parametrize(
    ("hu", "most"),
    [(40.0, 150.0), (-90.0, 150.0), (900.0, 600.0), (-900.0, 600.0)],
    ids=["muscle", "fat", "bone", "lung"],
)
def test_detail_stays_within_its_bound_whatever_the_weights(hu: float, most: float):
    """The smooth field is switched off; the refine head is driven to saturation."""
    torch.manual_seed(1)
    net = SctNet(TINY).eval()
    torch.nn.init.constant_(net.refine[2].bias, 50.0)
    image = torch.full((1, 5, 48, 48), hu / 1000)

    change = 1000 * (net(image) - image[:, 2:3]).detach().numpy()

    assert change.max() <= most + 10  # the bound opens smoothly: 8 HU of it at muscle
    assert change.max() > 0.9 * most


def test_the_field_stays_within_its_bound():
    net = SctNet(TINY).eval()
    torch.nn.init.constant_(net.field.bias, -50.0)
    image = torch.zeros((1, 5, 64, 64))

    change = 1000 * net(image).detach().numpy()

    assert change == pytest.approx(-400.0, abs=1)


def test_a_configuration_survives_json():
    assert config_of({"slices": 5, "channels": [8, 8, 8, 8], "head": 2, "refine": 4}) == TINY


def test_only_the_box_around_the_body_changes():
    cbct = np.zeros((3, 70, 90), np.float32)

    made = correct(cbct, _body((3, 70, 90)), lambda batch: batch[:, 2:3] + 0.1)

    rows, columns = body_box(_body((3, 70, 90)))
    assert (rows.start, columns.stop) == (20 - MARGIN_PX, 64 + MARGIN_PX)
    assert made[:, rows, columns] == pytest.approx(100, abs=0.01)
    assert np.count_nonzero(made) == made[:, rows, columns].size


def test_a_second_opinion_is_turned_back_and_may_skip_slices():
    random = np.random.default_rng(2)
    cbct = random.normal(0, 100, (9, 70, 90)).astype(np.float32)
    body = _body((9, 70, 90))

    first = correct(cbct, body, lambda batch: 2 * batch[:, 2:3])
    second = correct(cbct, body, lambda batch: 2 * batch[:, 2:3], step=4, flip=True)

    assert second == pytest.approx(first[::4], abs=1e-3)


def test_edge_slices_are_repeated():
    assert neighbours(10, 0, 5).tolist() == [0, 0, 0, 1, 2]
    assert neighbours(10, 9, 5).tolist() == [7, 8, 9, 9, 9]


def test_an_image_without_a_body_stays_as_it_is():
    cbct = np.ones((3, 32, 32), np.float32)

    assert correct(cbct, np.zeros(cbct.shape, np.bool_), lambda batch: batch[:, :1]) is not cbct
    assert (correct(cbct, np.zeros(cbct.shape, np.bool_), lambda b: b[:, :1]) == cbct).all()
