"""The rival of pooling: elements in their places against plain reshaping, and what it refuses."""

import pytest
import torch
from torch import nn
from toy import ToyData, ToyTask

from modalpool import Pool, contributions
from tasks.data.problems import BadInput
from tasks.task.flatten import Flatten, flatten_pool


def test_a_full_grid_is_reshaped_and_is_the_finest_pyramid():
    x = torch.randn(2, 3, 2, 4, 5)
    flat = flatten_pool("b c [d h w]", [2, 4, 5], 3)(x)
    assert torch.equal(flat, x.flatten(2).mT)
    assert torch.allclose(flat, Pool("b c [d h w]", "pyramid", levels=[[2, 4, 5]])(x))  # a cell for each element


def test_kept_axes_are_flattened_too_and_short_clips_end_in_zeros():
    x, frames = torch.randn(2, 3, 4, 5), torch.tensor([5, 2])
    mask = (torch.arange(5) < frames[:, None])[:, None]  # (B, 1, T)
    spoilt = x.masked_fill(~mask[:, None], torch.nan)
    expected = torch.zeros(2, 3, 4, 7)
    for i, count in enumerate(frames.tolist()):
        expected[i, :, :, :count] = x[i, :, :, :count]
    flat = flatten_pool("b c f [t]", [4, 7], 3)(spoilt, mask=mask)
    assert torch.equal(flat, expected.flatten(2).mT)


def test_nodes_stand_in_their_order_and_small_graphs_end_in_zeros():
    graphs = [torch.randn(count, 3) for count in (2, 0, 4, 1)]
    index = torch.repeat_interleave(torch.arange(4), torch.tensor([2, 0, 4, 1]))
    flat = Pool("[n] c", Flatten([5]))
    expected = torch.stack([nn.functional.pad(graph, (0, 0, 0, 5 - len(graph))) for graph in graphs])
    assert torch.equal(flat(torch.cat(graphs), index=index, dim_size=4), expected)
    mixed = torch.tensor([6, 2, 0, 3, 1, 4, 5])  # each graph's nodes in their order, graphs interleaved
    assert torch.equal(flat(torch.cat(graphs)[mixed], index=index[mixed], dim_size=4), expected)
    turned = torch.tensor([1, 0, 2, 3, 4, 5, 6])
    assert not torch.equal(flat(torch.cat(graphs)[turned], index=index, dim_size=4), expected)


@pytest.mark.parametrize(
    ("layout", "shape", "index"), [("b c f [t]", (2, 3, 4, 5), None), ("[n] c", (6, 3), [1, 0, 1, 1, 3, 3])]
)
def test_one_layer_behind_it_has_exact_maps(layout, shape, index):
    x, sizes = torch.randn(shape), [4, 5] if index is None else [3]
    sets = {} if index is None else {"index": torch.tensor(index), "dim_size": 4}
    pool = flatten_pool(layout, sizes, 3)
    head = nn.Sequential(nn.Flatten(1), nn.Linear(3 * torch.Size(sizes).numel(), 2))
    logits, maps, gap = contributions(pool, head, x, return_gap=True, **sets)
    assert torch.allclose(logits, head(pool(x, **sets)), atol=1e-6)
    assert gap.abs().max() < 1e-5
    sums = maps.flatten(2).sum(2) if index is None else torch.zeros(4, 2).index_add(0, sets["index"], maps)
    assert torch.allclose(sums + head[1].bias, logits, atol=1e-5)


@pytest.mark.parametrize(
    ("layout", "sizes", "shape", "sets", "message"),
    [
        ("b c [h w]", [4, 4], (1, 3, 4, 5), {}, "4 x 4 elements, got 4 x 5; .* bring the input to it, or pool"),
        ("b c [h w]", [4, 4], (1, 3, 4, 3), {}, "4 x 4 elements, got 4 x 3"),
        ("b c [t]", [4], (1, 3, 5), {"mask": torch.ones(1, 5, dtype=torch.bool)}, "at most 4 elements, got 5"),
        ("[n] c", [4], (5, 3), {"index": torch.zeros(5, dtype=torch.long)}, "at most 4 elements, got 5"),
    ],
)
def test_another_size_is_refused(layout, sizes, shape, sets, message):
    with pytest.raises(BadInput, match=f"flatten: expected {message}"):
        flatten_pool(layout, sizes, 3)(torch.zeros(shape), **sets)


def test_parts_of_an_input_are_refused():
    pool = flatten_pool("b [n] c", [4], 3)
    with pytest.raises(NotImplementedError, match="flatten: expected the whole input at once, got parts"):
        pool.merge(pool.update(None, torch.zeros(1, 4, 3)), pool.update(None, torch.zeros(1, 4, 3)))


def test_a_task_flattens_instead_of_pooling_and_knows_one_element_from_another():
    data = ToyData()
    data.setup()
    batch = next(iter(data.train_dataloader()))
    turned = batch | {"x": batch["x"].flip(1)}
    plain = ToyTask(data.spec).eval()
    linear = ToyTask(data.spec, flatten=[7]).eval()
    deep = ToyTask(data.spec, flatten=[7], flatten_layers=[16, 5], head_norm=True).eval()
    assert torch.allclose(plain(batch), plain(turned), atol=1e-6)
    assert not torch.allclose(linear(batch), linear(turned), atol=1e-3)
    assert sum(p.numel() for p in linear.head.parameters()) == 7 * 8 + 1
    assert sum(p.numel() for p in deep.head.parameters()) == (56 * 16 + 16) + (16 * 5 + 5) + (5 + 5) + (5 + 1)
    weight, bias = linear.head[-1][-1].weight, linear.head[-1][-1].bias
    assert torch.allclose(linear(batch), linear.encoder(batch["x"]).flatten(1) @ weight.mT + bias, atol=1e-5)
