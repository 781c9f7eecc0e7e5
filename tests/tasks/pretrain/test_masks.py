"""Boxes and balls cover about the share that is asked for, and are boxes and balls."""

import networkx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data.neighbours import nearest_first
from tasks.pretrain.masks import balls, boxes, onto, patches


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.floats(0.05, 0.95))
def test_boxes_cover_something_and_never_all(grid, share):
    torch.manual_seed(0)
    masks = boxes(4, grid, share)
    assert masks.shape == (4, *grid)
    cells = masks[0].numel()
    if cells > 1:
        assert masks.flatten(1).any(1).all()
        assert not masks.flatten(1).all(1).any()


@pytest.mark.parametrize("grid", [(40,), (16, 24), (8, 10, 12)])
@pytest.mark.parametrize("share", [0.25, 0.5])
def test_boxes_cover_the_share(grid, share):
    torch.manual_seed(0)
    covered = boxes(64, grid, share).flatten(1).float().mean(1)
    assert abs(float(covered.mean()) - share) < 0.08
    assert float(covered.std()) < 0.1


def test_a_small_share_is_one_box():
    """All that is covered lies within its own bounding box, which is full."""
    torch.manual_seed(0)
    for mask in boxes(20, (12, 12), 0.01):
        rows, columns = mask.nonzero().unbind(1)
        assert int(mask.sum()) == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)


def graphs():
    made = [networkx.path_graph(7), networkx.cycle_graph(9), networkx.star_graph(5), networkx.empty_graph(1)]
    return made, networkx.disjoint_union_all(made)


def tensors():
    made, union = graphs()
    edges = torch.tensor(list(union.edges)).T
    index = torch.arange(len(made)).repeat_interleave(torch.tensor([len(one) for one in made]))
    return torch.cat([edges, edges.flip(0)], 1), index, made


def test_ranks_are_by_distance_in_the_graph():
    edges, index, made = tensors()
    union = graphs()[1]
    torch.manual_seed(0)
    for _ in range(5):
        rank = nearest_first(edges, index, len(made))
        for graph in range(len(made)):
            members = (index == graph).nonzero().flatten().tolist()
            assert sorted(rank[members].tolist()) == list(range(len(members)))
            centre = members[int(rank[members].argmin())]
            distance = networkx.single_source_shortest_path_length(union, centre)
            order = sorted(members, key=lambda node: int(rank[node]))
            assert [distance[node] for node in order] == sorted(distance[node] for node in order)


def test_what_is_not_reached_comes_last():
    edges = torch.tensor([[0, 1], [1, 0]])  # 2 and 3 are alone
    for _ in range(5):
        rank = nearest_first(edges, torch.zeros(4, dtype=torch.long), 1, centres=torch.tensor([0]))
        assert rank[:2].tolist() == [0, 1]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_balls_cover_the_share_and_never_all(share):
    edges, index, made = tensors()
    covered = balls(edges, index, len(made), share)
    for graph, one in enumerate(made):
        own = int(covered[index == graph].sum())
        assert own == min(max(1, round(share * len(one))), len(one) - 1)
        nodes = (index == graph).nonzero().flatten()[covered[index == graph]].tolist()
        if nodes:
            assert networkx.is_connected(graphs()[1].subgraph(nodes))  # a ball in a connected graph is


def test_cells_and_patches_are_of_the_same_elements():
    """What `onto` hides of an input is what `patches` puts into the hidden cells."""
    torch.manual_seed(0)
    x, cell, grid = torch.rand(2, 3, 7, 9), (2, 3), (4, 3)
    mask = boxes(2, grid, 0.5)
    hidden = torch.where(onto(mask, (7, 9), cell)[:, None], -1.0, x)
    seen = patches(hidden, grid, cell)
    assert seen.shape == (2, *grid, 3 * 6)
    assert (seen[mask] <= 0).all()  # -1, or 0 where the grid goes beyond the input
    assert torch.equal(seen[~mask], patches(x, grid, cell)[~mask])
    assert float(patches(x, grid, cell).sum()) == pytest.approx(float(x.sum()), rel=1e-5)
