"""The network gives a logit for each class and place, in two dimensions and in three."""

import pytest
import torch

from models.training.contour_recipe import DESIGNS, Recipe
from models.unet import UNet, UNetConfig, folded, unfolded


@pytest.mark.parametrize("mode", sorted(DESIGNS))
def test_every_design_answers_its_own_frame(mode):
    recipe = Recipe(mode=mode)
    frame = recipe.frame
    net = UNet(recipe.network(organs=3)).eval()
    size = frame.patch[1:] if mode == "2.5d" else (16, 32, 32)

    with torch.inference_mode():
        answer = net(torch.zeros(1, frame.channels, *size))

    assert answer.shape == (1, 4, *size)


def test_the_answer_at_a_place_does_not_depend_on_what_is_far_away():
    """Batch statistics are fixed, so windows can be blended without seams."""
    torch.manual_seed(0)
    net = UNet(UNetConfig(dimensions=2, inputs=2, classes=3, channels=(4, 8))).eval()
    image = torch.randn(1, 2, 64, 64)
    other = image.clone()
    other[..., 48:] = 5.0

    with torch.inference_mode():
        difference = (net(image) - net(other)).abs()

    assert difference[..., :24].max() == 0
    assert difference[..., 48:].max() > 0


def test_a_fold_puts_every_voxel_of_a_block_into_a_channel_and_back():
    image = torch.arange(2 * 3 * 4 * 6 * 8.0).reshape(2, 3, 4, 6, 8)

    blocks = folded(image, (1, 2, 4))

    assert blocks.shape == (2, 24, 4, 3, 2)
    assert set(blocks[0, :8, 1, 2, 1].tolist()) == set(image[0, 0, 1, 4:6, 4:8].flatten().tolist())
    assert torch.equal(unfolded(blocks, (1, 2, 4)), image)


def test_a_folded_network_answers_for_the_place_that_it_was_shown():
    """What lies one block further is answered one block further."""
    torch.manual_seed(0)
    net = UNet(UNetConfig(dimensions=2, inputs=1, classes=2, channels=(4, 8), fold=(2, 2))).eval()
    image = torch.zeros(1, 1, 48, 48)
    image[..., 20:23, 21:25] = torch.randn(3, 4)

    with torch.inference_mode():
        here = net(image)
        there = net(image.roll((4, 8), dims=(2, 3)))

    assert here.shape == (1, 2, 48, 48)
    assert torch.allclose(there[..., 16:36, 20:40], here[..., 12:32, 12:32], atol=1e-6)
    assert (here[..., 20:23, 21:25] - here[..., :3, :4]).abs().max() > 1e-4
