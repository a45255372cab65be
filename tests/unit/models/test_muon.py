"""The orthogonal steps of the convolution kernels."""

import pytest
import torch

from models.training.contour_recipe import Recipe
from models.training.contour_task import kernels_of
from models.training.muon import LIKE_ADAM, Muon, orthogonal
from models.unet import UNet


@pytest.mark.parametrize("shape", [(16, 200), (200, 16), (32, 32)])
def test_every_direction_of_a_step_is_about_as_long(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    matrix[0] *= 20  # one direction rules the gradient

    lengths = torch.linalg.svdvals(orthogonal(matrix))

    assert lengths.max() < 1.3
    assert lengths.median() > 0.6


def test_a_step_is_as_large_as_one_of_adam():
    weight = torch.nn.Parameter(torch.zeros(32, 8, 3, 3))
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))

    Muon([weight], lr=0.01).step()

    assert weight.square().mean().sqrt().item() == pytest.approx(0.01 * LIKE_ADAM, rel=0.2)
    assert (weight * weight.grad).sum() < 0  # downhill


def test_it_finds_a_least_squares_solution_that_is_badly_scaled():
    random = torch.Generator().manual_seed(1)
    given = torch.randn(256, 6, generator=random) * torch.tensor([10.0, 3, 1, 1, 0.5, 0.3])
    truth = torch.randn(4, 6, generator=random)
    weight = torch.nn.Parameter(torch.zeros(4, 6))
    optimizer = Muon([weight], lr=0.1)

    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 300)
        optimizer.zero_grad()
        (given @ (weight - truth).T).square().mean().backward()
        optimizer.step()

    assert (weight - truth).abs().max() < 0.05


def test_kernels_take_it_and_the_head_and_norms_do_not():
    net = UNet(Recipe(mode="3d").network(7))

    kernels, others = kernels_of(net)

    assert len(kernels) + len(others) == len(list(net.parameters()))
    assert all(kernel.dim() == 5 for kernel in kernels)
    assert any(other is net.head.weight for other in others)
    assert sum(other.dim() > 1 for other in others) == 1
