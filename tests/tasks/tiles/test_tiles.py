"""Tiles give what one pass gives: fields of view beside those by hand, features and vectors beside the whole's."""

import itertools

import pytest
import torch
from monai.networks.nets import BasicUNet
from torch import nn

from modalpool import Pool
from tasks.tiles import Parts, View, cut, field_of_view
from tasks.volume.encoders import build_encoder


def call(net, x):
    return net(x)


def by_hand(layers):
    """(stride, what a cell sees) of convolutions (kernel, stride), by the recurrence of Araujo et al. 2019."""
    sees, step = 1, 1
    for kernel, stride in layers:
        sees, step = sees + (kernel - 1) * step, step * stride
    return step, sees


@pytest.mark.parametrize(
    "layers", [[(3, 1)], [(3, 2), (3, 2), (3, 1)], [(5, 1), (3, 2)], [(1, 1)], [(7, 3), (3, 2)]], ids=str
)
def test_the_view_of_convolutions_is_that_of_the_recurrence(layers):
    net = nn.Sequential(*(nn.Conv1d(1, 1, k, stride=s, padding=k // 2) for k, s in layers))
    step, sees = by_hand(layers)
    view = field_of_view(net, call, (1, 1, 16), -1, largest=512)
    assert (view.period, view.cells, view.whole) == (step, 1, False)
    # Blocks begin at the cell's centre: what is behind it within the block is not counted as seen.
    assert view.before == sees // 2
    assert view.after == max(sees // 2 - step + 1, 0)


def test_dead_units_and_maxima_do_not_narrow_the_view():
    net = nn.Sequential(
        nn.Conv1d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool1d(3, 2, padding=1), nn.Conv1d(4, 1, 3, padding=1)
    )
    alive = field_of_view(net, call, (1, 1, 16), -1, largest=256)
    for weight in net.parameters():
        weight.data.fill_(-1.0)  # nothing of the input passes
    assert field_of_view(net, call, (1, 1, 16), -1, largest=256) == alive == View(2, 1, 4, 3)
    assert bool((net[0].weight == -1).all())


@pytest.mark.parametrize(
    "norm", [nn.InstanceNorm1d(4), nn.GroupNorm(2, 4), nn.AdaptiveAvgPool1d(8)], ids=lambda norm: type(norm).__name__
)
def test_who_looks_at_everything_is_found_out(norm):
    net = nn.Sequential(nn.Conv1d(1, 4, 3, padding=1), norm)
    if isinstance(norm, nn.AdaptiveAvgPool1d):
        with pytest.raises(ValueError, match="expected evenly spaced cells, more of them for a longer"):
            field_of_view(net, call, (1, 1, 16), -1, largest=128)
        return
    assert field_of_view(net, call, (1, 1, 16), -1, largest=128) == View(1, 1, 0, 0, whole=True)


def test_a_u_net_has_a_longer_period_than_stride():
    net = BasicUNet(1, 1, 1, (2, 2, 2, 2, 2, 2), norm="batch")
    view = field_of_view(net, call, (1, 1, 64), -1, largest=1024)
    assert (view.period, view.cells, view.whole) == (16, 16, False)


@pytest.mark.parametrize(
    ("name", "options"), [("plain", {"levels": 2}), ("resnet10", {"width": 4}), ("plain", {"levels": 1})]
)
@pytest.mark.parametrize("sizes", [(70, 45, 52), (33, 64, 40)])
def test_features_of_tiles_are_those_of_a_volume(name, options, sizes):
    torch.manual_seed(0)
    net = build_encoder(name, **options).network.eval()
    for module in net.modules():  # statistics that are not 0 and 1
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    if name == "resnet10" and sizes[0] == 70:
        pytest.skip("one shape of what takes long")
    views = [field_of_view(net, call, (1, 1, 16, 16, 64), -1, largest=512)] * 3
    image = torch.randn(1, 1, *sizes)
    with torch.no_grad():
        whole = net(image)
        parts = Parts(
            cut(sizes, whole.shape[2:], (24, 24, 24), views),
            lambda read: net(image[(..., *read)]),
            tuple(whole.shape[2:]),
        )
        torch.testing.assert_close(parts.features(), whole, rtol=1e-4, atol=1e-5)
        assert len(parts.tiles) > 4
        pool = Pool("b c [d h w]", "max", channels=whole.shape[1])
        torch.testing.assert_close(parts.pooled(pool), pool(whole), rtol=1e-4, atol=1e-5)


REDUCTIONS = {
    "mean": {}, "sum": {}, "max": {}, "std": {}, "power": {}, "softmax": {}, "logsumexp": {}, "quantile": {},
    "attention": {"heads": 2}, "pyramid": {"levels": [1, 2]}, "topk": {"k": 5}, "topk share": {"k": 0.1},
    "attention by place": {"grid": 3}, "regions": {"regions": 3},
}  # fmt: skip


@pytest.mark.parametrize("layout", ["b c f [t]", "b c [f] t", "b c [f t]"])
@pytest.mark.parametrize("rule", REDUCTIONS)
def test_vectors_of_chunks_are_those_of_one_pass(layout, rule):
    """Over the axis that is cut, beside it, and over both, whatever the rule."""
    torch.manual_seed(0)
    net = nn.Conv2d(1, 8, 3, padding=1, stride=(1, 2))
    x = torch.randn(1, 1, 7, 101)
    options = dict(REDUCTIONS[rule])
    if rule in ("attention by place", "pyramid"):
        axes = len(layout.split("[")[1].split("]")[0].split())
        options = {"grid": [3] * axes} if rule == "attention by place" else options
    name = {"attention by place": "attention", "topk share": "topk"}.get(rule, rule)
    pool = Pool(layout, name, channels=8, **options).eval()
    view = field_of_view(net, call, (1, 1, 7, 16), -1, largest=128)
    with torch.no_grad():
        whole = net(x)
        cells = whole.shape[-1]
        parts = Parts(cut([101], [cells], [20], [view]), lambda read: net(x[(..., *read)]), (cells,))
        torch.testing.assert_close(parts.pooled(pool), pool(whole), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("whole", "size"), list(itertools.product([2, 7, 16, 50, 63], [1, 5, 16, 100])))
def test_every_cell_is_answered_for_once(whole, size):
    view = View(4, 2, 5, 3)
    cells = whole // 2
    seen = torch.zeros(cells)
    for tile in cut([whole], [cells], [size], [view]):
        (read,), (keep,), (at,) = tile
        seen[at] += 1
        assert read.start % view.period == 0
        assert 0 <= read.start < read.stop <= whole
        assert at.stop - at.start == keep.stop - keep.start
        assert read.start * 2 // 4 + keep.start == at.start  # the same cells
        block = at.start // 2 * 4
        assert read.start <= max(block - 5, 0)
    assert bool((seen == 1).all())


def test_a_tile_has_a_size():
    with pytest.raises(ValueError, match="tile: expected a positive size, got 0"):
        cut([10], [10], [0], [View(1, 1, 0, 0)])
