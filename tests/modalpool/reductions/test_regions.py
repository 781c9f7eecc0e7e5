"""Cells that tile every size; regions, and the losses that keep them apart."""

import math

import pytest
import torch
from torch import nn

from modalpool import Pool
from modalpool.losses import region_losses


def test_pyramid_cells_tile_every_size():
    for size in range(1, 14):
        for cells in (1, 2, 3, 4, 7):
            pool = Pool("b c [t]", "pyramid", levels=[cells], empty_value=0.0)
            _, w = pool(torch.ones(1, 1, size), return_weights=True)
            assert ((w[0, :, 0] > 0).sum(0) == 1).all()  # every element in exactly one cell
            if size % cells == 0:
                x = torch.randn(1, 2, size)
                torch.testing.assert_close(pool(x), nn.functional.adaptive_avg_pool1d(x, cells).mT)


def test_pyramid_of_a_volume_is_adaptive_pooling_where_it_divides():
    x = torch.randn(2, 3, 4, 8, 12)
    expected = nn.functional.adaptive_avg_pool3d(x, (2, 4, 3)).flatten(2).mT
    torch.testing.assert_close(Pool("b c [d h w]", "pyramid", levels=[[2, 4, 3]])(x), expected)


def test_regions_sum_to_one_everywhere_and_their_losses_know_collapse():
    pool = Pool("b c [t]", "regions", channels=3, regions=3)
    content = pool.reduction.scores.content
    x = torch.eye(3).repeat(2, 1, 2)  # six elements, two of each kind
    arranged = pool.arrange(x)
    assignment = pool.reduction.assign(arranged.elements, arranged.sets)
    torch.testing.assert_close(assignment.sum(-1), torch.ones(2, 6))
    mask = torch.tensor([True, False, False, True, False, False]).expand(2, 6)
    most = math.log(3)
    for weight, bias, entropy, balance, alone in (
        (torch.zeros(3, 3), torch.zeros(3), most, 0.0, 0.0),  # undecided
        (torch.zeros(3, 3), torch.tensor([200.0, 0.0, 0.0]), 0.0, most, most),  # collapsed
        (200 * torch.eye(3), torch.zeros(3), 0.0, 0.0, most),  # one region each; under the mask only one kind is left
    ):
        with torch.no_grad():
            content.weight.copy_(weight)
            content.bias.copy_(bias)
        losses = region_losses(pool, x)
        assert losses.entropy.item() == pytest.approx(entropy, abs=1e-6)
        assert losses.balance.item() == pytest.approx(balance, abs=1e-6)
        assert region_losses(pool, x, mask=mask).balance.item() == pytest.approx(alone, abs=1e-6)
    with pytest.raises(TypeError, match="pool: expected the reduction 'regions', got Mean"):
        region_losses(Pool("b c [t]"), x)
