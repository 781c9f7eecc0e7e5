"""Blocks against MONAI, PyG, torch's own layers with the same weights, and what they promise about sizes and masks."""

import pytest
import torch
from every import close
from torch import nn

from modalpool import Pool
from modalpool.blocks import ASPP, PyramidHead, SqueezeExcite


def squeeze_excite(layout, channels=8, ratio=2, **options):
    torch.manual_seed(0)
    return SqueezeExcite(Pool(layout, channels=channels, **options), channels=channels, ratio=ratio)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_squeeze_excite_equals_monai(dims):
    monai = pytest.importorskip("monai.networks.blocks")
    layer = monai.ChannelSELayer(dims, 8, r=2)
    block = squeeze_excite("b c [...]")
    for own, theirs in zip(block.excite, layer.fc, strict=True):
        own.load_state_dict(theirs.state_dict())
    x = torch.randn(3, 8, *(5, 4, 6)[:dims])
    close(block(x), layer(x), ulp=16)


def test_squeeze_excite_rescales_each_node_by_its_own_graph():
    block = squeeze_excite("[n] c")
    x, index = torch.randn(7, 8), torch.tensor([1, 0, 1, 2, 0, 1, 2])
    y = block(x, index=index)
    for graph in range(3):
        own = x[index == graph]
        close(y[index == graph], own * block.excite(own.mean(0)), ulp=16)


def test_squeeze_excite_of_a_kept_axis_has_a_gate_for_each_position():
    block = squeeze_excite("b c f [t]")
    x = torch.randn(2, 8, 3, 10)
    y = block(x, lengths=torch.tensor([10, 4]))
    gate = block.excite(x[1, :, 2, :4].mean(-1))
    close(y[1, :, 2, :4], x[1, :, 2, :4] * gate[:, None], ulp=16)


def test_squeeze_excite_does_not_see_the_padding():
    block = squeeze_excite("b [n] c", reduction="attention")
    x, mask = torch.randn(2, 6, 8), torch.arange(6) < torch.tensor([[4], [6]])
    poisoned = torch.where(mask[..., None], x, torch.nan).requires_grad_()
    y = block(poisoned, mask=mask)
    assert torch.equal(y[mask], block(x, mask=mask)[mask])
    assert (y[~mask] == 0).all()
    y.sum().backward()
    assert all(p.grad.isfinite().all() for p in block.parameters())


def test_squeeze_excite_refuses_what_it_cannot_give_back():
    with pytest.raises(ValueError, match="needs a pool without a k axis"):
        SqueezeExcite(Pool("b [n] c", "regions", channels=8), channels=8)
    with pytest.raises(ValueError, match="turns 8 channels into 16"):
        SqueezeExcite(Pool("b [n] c", ["mean", "max"], channels=8), channels=8)
    with pytest.raises(ValueError, match="8 channels leave nothing at ratio 16; expected at most 8"):
        SqueezeExcite(Pool("b [n] c"), channels=8)


@pytest.mark.parametrize(("layout", "grid"), [("b c [t]", (9,)), ("b c [h w]", (7, 9)), ("b c [d h w]", (5, 7, 6))])
def test_aspp_is_its_branches(layout, grid):
    """Each branch computed with torch's functional convolutions from the block's own weights."""
    torch.manual_seed(0)
    block = ASPP(Pool(layout), channels=4, out_channels=3, rates=(1, 2)).eval()
    x = torch.randn(2, 4, *grid)
    convolve = (nn.functional.conv1d, nn.functional.conv2d, nn.functional.conv3d)[len(grid) - 1]

    def normed(y, sequence):
        norm = sequence[1]
        return (y / (1 + norm.eps) ** 0.5).relu()  # running mean 0, variance 1

    parts = [normed(convolve(x, block.near[0].weight), block.near)]
    for rate, layer in zip((1, 2), block.atrous, strict=True):
        parts.append(normed(convolve(x, layer[0].weight, padding=rate, dilation=rate), layer))
    z = x.flatten(2).mean(2) @ block.image[0].weight.T + block.image[0].bias
    parts.append(z.relu().reshape(2, 3, *[1] * len(grid)).expand(2, 3, *grid))
    last = block.project[0]
    close(block(x), normed(convolve(torch.cat(parts, 1), last[0].weight), last), ulp=256)


def test_aspp_trains_on_a_batch_of_one_element():
    """Where the usual form raises: 'Expected more than 1 value per channel when training'."""
    block = ASPP(Pool("b c [h w]"), channels=4, out_channels=3, rates=(1,)).train()
    y = block(torch.randn(1, 4, 6, 6))
    y.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())


def test_aspp_every_element_sees_the_whole_set_only_through_the_pool():
    block = ASPP(Pool("b c [h w]"), channels=1, out_channels=4, rates=(1,)).eval()
    nn.init.ones_(block.image[0].bias)  # no ReLU of the branch is off
    nn.init.ones_(block.project[0][0].weight)
    x = torch.randn(1, 1, 16, 16, requires_grad=True)
    (slope,) = torch.autograd.grad(block(x)[0, :, 0, 0].sum(), x)
    assert slope[0, 0, 15, 15] != 0  # far outside the kernels' reach
    assert slope[0, 0, 8:, 8:].unique().numel() == 1  # every far element counts the same: a mean


def test_aspp_without_its_image_pooling_is_the_other_branches():
    """As if the branch said nothing: its columns of the projection are taken away."""
    torch.manual_seed(0)
    whole = ASPP(Pool("b c [h w]", "attention", channels=2), channels=2, out_channels=3, rates=(1, 2)).eval()
    block = ASPP(Pool("b c [h w]"), channels=2, out_channels=3, rates=(1, 2), image_pooling=False).eval()
    kept = {name: value for name, value in whole.state_dict().items() if not name.startswith(("pool", "image"))}
    kept["project.0.0.weight"] = kept["project.0.0.weight"][:, :9]
    block.load_state_dict(kept)
    nn.init.zeros_(whole.project[0][0].weight.data[:, 9:])
    x = torch.randn(2, 2, 8, 8)
    close(block(x), whole(x), ulp=64)
    slope = torch.autograd.functional.jacobian(lambda x: block(x)[0, :, 0, 0].sum(), x)
    assert slope[0, :, 3:, 3:].eq(0).all()  # nothing reaches further than the largest rate


@pytest.mark.parametrize("image_pooling", [True, False])
def test_aspp_does_not_see_outside_the_mask(image_pooling):
    options = {"channels": 2, "out_channels": 3, "rates": (1, 2), "image_pooling": image_pooling}
    block = ASPP(Pool("b c [h w]"), **options).eval()
    x, mask = torch.randn(1, 2, 6, 6), torch.zeros(1, 6, 6, dtype=torch.bool)
    mask[:, :4, :5] = True
    y = block(torch.where(mask[:, None], x, torch.nan), mask=mask)
    assert y.isfinite().all()
    assert (y[~mask[:, None].expand_as(y)] == 0).all()
    assert torch.equal(y, block(x, mask=mask))


def test_aspp_says_when_a_rate_reaches_beyond_the_grid():
    block = ASPP(Pool("b c [h w]"), channels=2, out_channels=3, rates=(2, 8)).eval()
    with pytest.warns(UserWarning, match=r"rate 8 reaches beyond the whole grid \(6, 8\).*use rates below 8"):
        block(torch.randn(1, 2, 6, 8))


@pytest.mark.parametrize("layout", ["b [h w] c", "b c h [w]", "[n] c", "b c [d h w t]"])
def test_aspp_refuses_other_layouts(layout):
    with pytest.raises(ValueError, match=r"ASPP needs a channels-first layout .* like 'b c \[h w\]', got"):
        ASPP(Pool(layout), channels=2, out_channels=2)


def test_pyramid_head_equals_torchs_adaptive_pools_where_cells_tile():
    torch.manual_seed(0)
    head = PyramidHead("b c [h w]", channels=4, outputs=3, levels=[1, 2, 4])
    x = torch.randn(2, 4, 8, 12)
    cells = [nn.functional.adaptive_avg_pool2d(x, n).flatten(2).transpose(1, 2) for n in (1, 2, 4)]
    close(head(x), head.linear(torch.cat(cells, 1).flatten(1)), ulp=64)


def test_pyramid_head_takes_ragged_sets():
    head = PyramidHead("[n] c", channels=4, outputs=3, levels=[1, 2])
    x = torch.randn(6, 4)
    logits = head(x, ptr=torch.tensor([0, 4, 6]))
    close(logits[0], head.linear(torch.cat([x[:4].mean(0), x[:2].mean(0), x[2:4].mean(0)])), ulp=16)


def test_pyramid_head_refuses_kept_axes():
    with pytest.raises(ValueError, match="pools every position"):
        PyramidHead("b c f [t]", channels=4, outputs=3)
