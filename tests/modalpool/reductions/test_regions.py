"""Cells that tile every size; regions, and the losses that keep them apart."""

import math

import pytest
import torch
from torch import nn

from modalpool import Pool
from modalpool.losses import region_losses
from modalpool.reductions import NAMES


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


@pytest.mark.parametrize("rule", ["max", "std", "sum", "logsumexp", "quantile"])
@pytest.mark.parametrize("form", ["dense", "mask", "weight", "lengths", "index", "chunks"])
def test_a_pyramid_of_any_rule_is_the_rule_of_every_cell(rule, form):
    """He et al. (2015) take the maximum."""
    if rule not in NAMES or (rule == "quantile" and form == "chunks"):
        pytest.skip("not here, or it does not merge")
    torch.manual_seed(0)
    x, coords = torch.randn(2, 3, 8, dtype=torch.float64), (torch.arange(8) + 0.5) / 8
    sets, there = {}, torch.ones(2, 8, dtype=torch.bool)
    if form == "mask":
        sets = {"mask": (there := torch.rand(2, 8) > 0.3)}
    elif form == "weight":
        sets = {"weight": (torch.rand(2, 8) > 0.3).double()}
        there = sets["weight"] > 0
    elif form == "lengths":
        sets, there = {"lengths": torch.tensor([8, 4])}, torch.arange(8) < torch.tensor([[8], [4]])
        coords = torch.stack([coords, (torch.arange(8) + 0.5) / 4])
    pool = Pool("b c [t]", "pyramid", levels=[[1], [2], [3]], rule=rule, empty_value=-5.0)
    if form == "index":
        flat = Pool("[n] c", pool.reduction, empty_value=-5.0)
        z = flat(x.movedim(1, 2).reshape(16, 3), index=torch.arange(16) // 8, coords=coords.repeat(2)[:, None].double())
    elif form == "chunks":
        place, state = coords[None, :, None].expand(2, 8, 1).double(), None
        for low, high in ((0, 3), (3, 8)):
            state = pool.update(state, x[..., low:high], coords=place[:, low:high])
        z = pool.finalize(state)
    else:
        z = pool(x, **sets)
    k = 0
    for cells in (1, 2, 3):
        for cell in range(cells):
            inside = there & ((coords * cells).floor().clamp(max=cells - 1) == cell)
            expected = Pool("b c [t]", rule, empty_value=-5.0)(x, mask=inside)
            torch.testing.assert_close(z[:, k], expected)
            k += 1


def test_a_pyramid_of_images_is_torchs_adaptive_maximum():
    x = torch.randn(2, 3, 8, 12, requires_grad=True)
    pool = Pool("b c [h w]", "pyramid", channels=3, levels=[1, 2, 4], rule="max")
    expected = torch.cat([torch.nn.functional.adaptive_max_pool2d(x, n).flatten(2).mT for n in (1, 2, 4)], 1)
    torch.testing.assert_close(pool(x), expected)
    slope = torch.randn_like(expected)
    torch.testing.assert_close(*(torch.autograd.grad(z, x, slope)[0] for z in (pool(x), expected)))
    z, w = pool(x, return_weights=True)
    torch.testing.assert_close((w * x[:, None]).sum((3, 4)), z)
    both = Pool("b c [h w]", "pyramid", channels=3, levels=[2], rule="std")
    assert (both.out_channels, both.vectors) == (3, 4)
    with pytest.raises(ValueError, match="rule: a cell takes a rule with one vector per set, got Pyramid"):
        Pool("b c [h w]", "pyramid", levels=[2], rule=Pool("b c [h w]", "pyramid").reduction)
