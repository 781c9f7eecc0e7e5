"""Batches cut from the stored whole are PyG's own, field by field."""

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Subset
from torch_geometric.data import Batch, Data

from tasks.graph import MotifData
from tasks.graph.batches import GraphSet


def graphs(count, *, seed=0, **more):
    """Graphs of 1 to 6 nodes with every kind of attribute that counts nodes, edges, graphs, or nothing."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for number in range(count):
        nodes, edges = (int(torch.randint(low, 7, (), generator=generator)) for low in (1, 0))
        made.append(
            Data(
                x=torch.randn(nodes, 3, generator=generator),
                edge_index=torch.randint(nodes, (2, edges), generator=generator),
                edge_attr=torch.randn(edges, 2, generator=generator),
                num_nodes=nodes,
                y=torch.tensor([number % 3]),
                weight=number / 2,
                scalar=torch.tensor(float(number)),
                anchor_index=torch.randint(nodes, (1,), generator=generator),
                truth=torch.rand(nodes, generator=generator) < 0.5,
                id=f"graph-{number}",
                names=[str(node) for node in range(nodes)],
                **{key: value(nodes) for key, value in more.items()},
            )
        )
    return made


def assert_same(ours, theirs):
    """Equal in keys and their order, in values and types, and in what takes a batch apart again."""
    assert type(ours) is type(theirs)
    assert list(ours.to_dict()) == list(theirs.to_dict())
    assert ours.num_graphs == theirs.num_graphs
    mine, other = (
        {**one.to_dict(), "_num_nodes": one._store._num_nodes, "_slices": one._slice_dict, "_incs": one._inc_dict}
        for one in (ours, theirs)
    )
    assert_equal(mine, other)


def assert_equal(mine, other):
    assert type(mine) is type(other)
    if isinstance(mine, dict):
        assert list(mine) == list(other)
        for key in mine:
            assert_equal(mine[key], other[key])
    elif isinstance(mine, torch.Tensor):
        assert mine.dtype == other.dtype
        assert torch.equal(mine, other)
    else:
        assert mine == other


@settings(max_examples=40, deadline=None)
@given(numbers=st.lists(st.integers(0, 11), min_size=1, max_size=9), seed=st.integers(0, 3))
def test_a_batch_is_pygs_batch(numbers, seed):
    made = graphs(12, seed=seed)
    ours = GraphSet(made).__getitems__(numbers)
    assert_same(ours, Batch.from_data_list([made[number] for number in numbers]))
    for number, graph in zip(numbers, ours.to_data_list(), strict=True):
        assert graph.num_nodes == made[number].num_nodes
        assert torch.equal(graph.edge_index, made[number].edge_index)


def test_a_graph_comes_back_as_it_went_in():
    made = graphs(5)
    stored = GraphSet(made)
    assert len(stored) == 5
    for number in (0, 4, -1):
        for key, value in made[number].to_dict().items():
            kept = stored[number][key]
            if key in ("weight", "scalar"):  # PyG stores numbers as tensors of one element
                assert float(kept) == float(value)
            else:
                assert_equal(kept, value)
    with pytest.raises(IndexError):
        stored[5]


def test_what_has_no_index_arithmetic_is_left_to_pyg():
    more = {"adj": lambda nodes: torch.eye(nodes).to_sparse(), "levels": lambda nodes: {"a": torch.arange(nodes)}}
    made = graphs(4, **more)
    batch = GraphSet(made).__getitems__([2, 0])
    theirs = Batch.from_data_list([made[2], made[0]])
    assert torch.equal(batch.adj.to_dense(), theirs.adj.to_dense())
    assert torch.equal(batch.levels["a"], theirs.levels["a"])
    assert torch.equal(batch.edge_index, theirs.edge_index)


class Pairs(Data):
    """Two graphs in one, with increments of their own, as PyG's guide to batching has them."""

    def __inc__(self, key, value, *args, **kwargs):
        if key == "edge_index_t":
            return self.x_t.size(0)
        return super().__inc__(key, value, *args, **kwargs)

    def __cat_dim__(self, key, value, *args, **kwargs):
        return None if key == "whole" else super().__cat_dim__(key, value, *args, **kwargs)


def test_a_class_of_ones_own_says_how_it_is_batched():
    made = [
        Pairs(
            x=torch.randn(n, 1),
            edge_index=torch.tensor([[0], [n - 1]]),
            x_t=torch.randn(2 * n, 1),
            edge_index_t=torch.tensor([[0], [2 * n - 1]]),
            whole=torch.randn(2, 3),
        )
        for n in (2, 3, 5)
    ]
    ours, theirs = GraphSet(made).__getitems__([2, 0, 1]), Batch.from_data_list([made[2], made[0], made[1]])
    assert type(ours) is type(theirs)
    for key in theirs.to_dict():
        assert_equal(ours[key], theirs[key])


@pytest.mark.parametrize("workers", [0, 1])
def test_loaders_shuffle_divide_and_drop_as_with_lists(workers):
    made = graphs(11)
    part = [9, 2, 5, 7, 1, 3, 8]
    options = {"batch_size": 3, "shuffle": True, "drop_last": True, "num_workers": workers}
    ours = DataLoader(
        Subset(GraphSet(made), part),
        collate_fn=lambda batch: batch,
        generator=torch.Generator().manual_seed(1),
        **options,
    )
    theirs = DataLoader(
        [made[number] for number in part],
        collate_fn=Batch.from_data_list,
        generator=torch.Generator().manual_seed(1),
        **options,
    )
    batches = list(zip(ours, theirs, strict=True))
    assert len(batches) == 2
    for mine, other in batches:
        assert_same(mine, other)
        assert_same(pickle.loads(pickle.dumps(mine)), other)


def test_the_data_module_batches_this_way():
    data = MotifData(train=9, val=4, test=4, batch_size=4)
    data.setup()
    first = next(iter(data.test_dataloader()))
    theirs = Batch.from_data_list([data.datasets["test"][i] for i in range(4)]).to_dict()
    assert sorted(first.to_dict()) == sorted(theirs)
    for key, value in theirs.items():
        assert_equal(first.to_dict()[key], value)
    assert [len(batch) for batch in data.train_dataloader()] == [4, 4]  # a ninth alone has no variance
