"""The motifs are where truth says, and nothing but their wiring tells the classes apart."""

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.graph import MotifData, motif_graph
from tasks.graph.generated import MOTIFS


def to_networkx(edge_index, nodes=None):
    graph = nx.Graph()
    graph.add_edges_from(edge_index.t().tolist())
    return graph if nodes is None else graph.subgraph(nodes)


@settings(max_examples=60, deadline=None)
@given(motif=st.sampled_from(list(MOTIFS)), nodes=st.integers(3, 30), share=st.floats(0, 1), seed=st.integers(0, 10**6))
def test_the_motif_is_where_truth_says(motif, nodes, share, seed):
    extra = int(share * min(10, (nodes - 1) * (nodes - 2) // 2))
    edge_index, truth = motif_graph(motif, nodes=nodes, extra=extra, rng=np.random.default_rng(seed))
    whole = to_networkx(edge_index)
    inside = truth.nonzero().flatten().tolist()
    expected = nx.house_graph() if motif == "house" else nx.complete_bipartite_graph(2, 3)
    assert nx.is_isomorphic(whole.subgraph(inside), expected)
    assert nx.is_connected(whole)
    assert whole.number_of_nodes() == nodes + 5 == len(truth)
    assert 2 * whole.number_of_edges() == edge_index.shape[1] == 2 * (nodes - 1 + extra + 6 + 1)
    assert sum(1 for i, j in whole.edges if truth[i] != truth[j]) == 1
    assert torch.equal(edge_index.flip(0).unique(dim=1), edge_index.unique(dim=1))


@settings(max_examples=60, deadline=None)
@given(nodes=st.integers(3, 30), seed=st.integers(0, 10**6))
def test_the_class_changes_no_degree(nodes, seed):
    """Size and degree of every node stay the same when only the motif changes: no count gives the class away."""
    degrees = []
    for motif in MOTIFS:
        edge_index, truth = motif_graph(motif, nodes=nodes, extra=1, rng=np.random.default_rng(seed))
        degrees.append(sorted(zip(edge_index[0].bincount().tolist(), truth.tolist(), strict=True)))
    assert degrees[0] == degrees[1]


def test_node_counts_are_at_chance():
    """A logistic regression on the graphs' sizes and degree histograms learns nothing."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    data = MotifData(train=600, val=2, test=600)
    data.setup()

    def table(part):
        rows = [[*graph.x.sum(0).tolist(), graph.num_nodes, graph.num_edges] for graph in data.datasets[part]]
        return np.array(rows), np.array([int(graph.y) for graph in data.datasets[part]])

    x, y = table("train")
    scaler = StandardScaler().fit(x)
    accuracy = (
        LogisticRegression(max_iter=1000)
        .fit(scaler.transform(x), y)
        .score(scaler.transform(table("test")[0]), table("test")[1])
    )
    assert abs(accuracy - 0.5) < 0.08  # four standard deviations of a coin thrown 600 times


def test_deterministic_and_without_shared_graphs():
    def load(**options):
        data = MotifData(train=20, val=10, test=10, **options)
        data.setup()
        return data.datasets

    first, again, other = load(), load(), load(seed=1)
    for part in first:
        for a, b in zip(first[part], again[part], strict=True):
            assert torch.equal(a.edge_index, b.edge_index)
            assert torch.equal(a.truth, b.truth)
        assert [int(graph.y) for graph in first[part]] == [0, 1] * (len(first[part]) // 2)
    assert any(not torch.equal(a.edge_index, b.edge_index) for a, b in zip(first["train"], other["train"], strict=True))
    hashes = [
        nx.weisfeiler_lehman_graph_hash(to_networkx(graph.edge_index)) for part in first.values() for graph in part
    ]
    assert len(set(hashes)) == 40
    assert MotifData().folds == [0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(
            {"motif": "star", "nodes": 5, "extra": 0}, "expected motif square or house, got 'star'", id="motif"
        ),
        pytest.param(
            {"motif": "house", "nodes": 2, "extra": 0},
            r"expected nodes >= 3 and 0 <= extra <= 0, got 2 and 0",
            id="nodes",
        ),
        pytest.param(
            {"motif": "house", "nodes": 5, "extra": 7},
            r"expected nodes >= 3 and 0 <= extra <= 6, got 5 and 7",
            id="extra",
        ),
    ],
)
def test_impossible_graphs(options, message):
    with pytest.raises(ValueError, match=message):
        motif_graph(**options, rng=np.random.default_rng(0))
