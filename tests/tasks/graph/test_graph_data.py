"""Graphs of any source: checks, features, folds and the spec."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data

from tasks.data.problems import BadInput, Problems
from tasks.graph import GraphData, TUData
from tasks.graph.checks import check_graphs
from tasks.graph.features import feature_scale, node_features


def ring(nodes, label=0, **values):
    start = torch.arange(nodes)
    arcs = torch.stack([start, (start + 1) % nodes])
    return Data(edge_index=torch.cat([arcs, arcs.flip(0)], 1), y=torch.tensor([label]), num_nodes=nodes, **values)


class Given(GraphData):
    """Data of graphs given by a test."""

    def __init__(self, graphs, classes=("a", "b"), **kwargs):
        super().__init__(**kwargs)
        self.graphs, self.classes = graphs, list(classes)

    def read(self, problems):
        return self.graphs


def rings(count=40, **values):
    return [ring(3 + number % 7, number % 2, **values) for number in range(count)]


@settings(max_examples=25, deadline=None)
@given(
    labels=st.lists(st.integers(0, 2), min_size=30, max_size=90),
    folds=st.integers(2, 5),
    val=st.sampled_from([0.1, 0.2, 0.34]),
    seed=st.integers(0, 9),
)
def test_folds_divide_the_graphs(labels, folds, val, seed):
    """Every graph is tested once; parts never share a graph; classes keep their shares to one graph a class."""
    labels = [0, 1, 2] * 5 + labels
    graphs = [ring(3, label) for label in labels]
    tested = []
    for fold in range(folds):
        data = Given(graphs, "abc", num_folds=folds, fold=fold, val=val, seed=seed)
        data.setup()
        parts = {name: [graph.id for graph in part] for name, part in data.datasets.items()}
        assert sorted(itertools.chain(*parts.values())) == sorted(f"graph-{n}" for n in range(1, len(graphs) + 1))
        tested += parts["test"]
        for label in range(3):
            share = sum(int(graph.y) == label for graph in data.datasets["test"])
            assert abs(share - labels.count(label) / folds) <= 1
        assert data.spec["class_counts"] == [
            sum(int(g.y) == label for g in data.datasets["train"]) for label in range(3)
        ]
    assert sorted(tested) == sorted(f"graph-{n}" for n in range(1, len(graphs) + 1))
    assert data.folds == list(range(folds))


def test_degrees_are_counted_once_per_neighbour(write_tu):
    """As in IMDB's files, every arc stands there twice."""
    star = {"nodes": 4, "edges": [(0, i) for i in (1, 2, 3)] * 2 + [(i, 0) for i in (1, 2, 3)] * 2}
    line = {"nodes": 2, "edges": [(0, 1), (1, 0)] * 2}
    graphs = [
        {**shape, "label": k % 2, "node_labels": [], "node_attributes": []} for k in range(8) for shape in (star, line)
    ]
    root = write_tu(graphs, labels=False, attributes=False)
    data = TUData(str(root), "SMALL", num_folds=2)
    data.setup()
    assert data.spec["channels"] == 65
    x = next(graph.x for part in data.datasets.values() for graph in part if graph.num_nodes == 4)
    assert x.argmax(1).tolist() == [3, 1, 1, 1]
    assert x.sum(1).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("labels", "attributes", "degrees", "channels"),
    [
        pytest.param(True, True, None, 3 + 2, id="both"),
        pytest.param(True, False, None, 3, id="labels"),
        pytest.param(False, True, None, 2, id="attributes"),
        pytest.param(False, False, None, 65, id="neither"),
        pytest.param(False, False, 4, 5, id="neither, to 4"),
        pytest.param(False, False, 0, 1, id="constant"),
        pytest.param(True, True, 4, 3 + 2 + 5, id="all"),
    ],
)
def test_features(write_tu, small_graphs, labels, attributes, degrees, channels):
    root = write_tu(small_graphs(), labels=labels, attributes=attributes)
    data = TUData(str(root), "SMALL", num_folds=2, degrees=degrees)
    assert data.spec["channels"] == channels
    assert data.datasets["train"][0].x.shape[1] == channels


def test_size_is_the_log_of_the_number_of_nodes():
    graph = Data(x=torch.ones(5, 2), edge_index=torch.empty(2, 0, dtype=torch.long))
    x = node_features(graph, 0, size=True)
    assert x.shape == (5, 3)
    torch.testing.assert_close(x[:, 2], torch.full((5,), 5.0).log())


def test_degrees_end_in_or_more():
    star = Data(edge_index=torch.tensor([[1, 2, 3], [0, 0, 0]]), num_nodes=4)
    assert node_features(star, 2).tolist() == [[0, 0, 1], [1, 0, 0], [1, 0, 0], [1, 0, 0]]


def test_scale_leaves_flags_alone():
    x = torch.tensor([[1.0, 0.0, 10.0, 3.0], [0.0, 0.0, 20.0, 3.0], [1.0, 1.0, 60.0, 3.0]])
    scale = feature_scale([Data(x=x[:1]), Data(x=x[1:])])
    assert scale["feature_mean"] == pytest.approx([0, 0, 30, 0])
    assert scale["feature_std"] == pytest.approx([1, 1, float(x[:, 2].std(correction=0)), 1])


def test_scale_is_of_the_training_part_only():
    graphs = rings()
    for number, graph in enumerate(graphs):
        graph.x = torch.full((graph.num_nodes, 1), float(number))
    data = Given(graphs, num_folds=4)
    nodes = torch.cat([graph.x for graph in data.spec and data.datasets["train"]])
    assert data.spec["feature_mean"] == pytest.approx([float(nodes.mean())])


def broken(**values):
    graph = ring(5)
    for name, value in values.items():
        graph[name] = value
    return graph


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        pytest.param(
            Data(edge_index=torch.empty(2, 0, dtype=torch.long), y=torch.tensor([0]), num_nodes=0),
            "has no nodes",
            id="empty",
        ),
        pytest.param(
            broken(edge_index=torch.tensor([[0], [5]])), "edge to node 5; expected nodes from 0 to 4", id="outside"
        ),
        pytest.param(
            broken(edge_index=torch.tensor([[-1], [0]])), "edge to node -1; expected nodes from 0 to 4", id="negative"
        ),
        pytest.param(
            broken(edge_index=torch.zeros(3, 2)),
            r"expected edge_index of shape \(2, E\), got \(3, 2\)",
            id="edge_index",
        ),
        pytest.param(broken(edge_index=None), r"expected edge_index of shape \(2, E\), got None", id="no edges"),
        pytest.param(
            broken(x=torch.ones(5, 3)), "expected 2 features per node, as most graphs have, got 3", id="width"
        ),
        pytest.param(broken(), "expected 2 features per node, as most graphs have, got none", id="no features"),
        pytest.param(
            broken(x=torch.tensor([[1.0, 1.0]] * 4 + [[1.0, float("nan")]])),
            "NaN or inf in the features of node 4",
            id="NaN",
        ),
        pytest.param(
            broken(x=torch.ones(5, 2), y=None),
            r"expected a class from 0 to 1 in y, shape \(1,\), got None",
            id="target",
        ),
        pytest.param(
            broken(x=torch.ones(5, 2), y=torch.tensor([2])),
            r"expected a class from 0 to 1 in y, shape \(1,\), got \[2\]",
            id="unknown class",
        ),
        pytest.param(
            broken(x=torch.ones(5, 2), y=torch.tensor([[0]])),
            r"expected a class from 0 to 1 in y, shape \(1,\), got \[\[0\]\]",
            id="shape of y",
        ),
        pytest.param(
            broken(x=torch.ones(5, 2), y=torch.tensor([[0.5, float("inf")]])),
            r"expected 2 finite targets in y, shape \(1, 2\), got \[\[0.5, inf\]\]",
            id="inf target",
        ),
    ],
)
def test_bad_graphs_are_named_and_left_out(graph, message):
    graphs = rings(20)
    for good in graphs:
        good.x = torch.ones(good.num_nodes, 2)
    graph.id = "the bad one"
    with pytest.raises(BadInput, match=f"the bad one: {message}"):
        Given([*graphs, graph], num_folds=2).setup()
    data = Given([*graphs, graph], num_folds=2, on_bad="skip")
    with pytest.warns(UserWarning, match=rf"1 of 21 samples left out\n  the bad one: {message}"):
        data.setup()
    assert sum(map(len, data.datasets.values())) == 20


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(Given([]), "graphs: expected at least one, got none", id="no graphs"),
        pytest.param(Given(rings(), ["a"]), r"classes: expected at least two, got \['a'\]", id="one class"),
        pytest.param(
            Given(rings(), num_folds=21),
            "num_folds: expected at most 20, the size of the largest class, got 21",
            id="folds",
        ),
        pytest.param(Given(rings(), ["a", "b", "c"]), "class c: has no training sample", id="empty class"),
    ],
)
def test_what_cannot_be_skipped(data, message):
    data.on_bad = "skip"
    with pytest.raises(BadInput, match=message):
        data.setup()


def test_the_users_graphs_are_not_changed():
    graphs = rings()
    Given(graphs, num_folds=2).setup()
    assert all("id" not in graph and graph.x is None for graph in graphs)
    assert [graph.id for graph in check_graphs(graphs, 2, Problems("rings"))][:2] == ["graph-1", "graph-2"]
