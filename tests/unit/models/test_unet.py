"""The network gives a logit for each class and place, in two dimensions and in three."""

import pytest
import torch

from models.training.contour_recipe import DESIGNS, Recipe
from models.unet import UNet, UNetConfig


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
