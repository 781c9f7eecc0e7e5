"""Truth, maps and rivals stand at the nodes of their own graph, and what is hidden says nothing."""

import pytest
import torch

from tasks.graph import GraphTask, MotifData


@pytest.fixture(scope="module")
def data():
    made = MotifData(train=6, val=2, test=7, batch_size=7)
    made.setup()
    return made


@pytest.fixture
def batch(data):
    return next(iter(data.test_dataloader()))


def network(data, **options):
    torch.manual_seed(0)
    return GraphTask(data.spec, hidden=8, layers=2, **options).eval()


def test_every_graph_has_its_own_truth_map_and_degrees(data, batch):
    task = network(data)
    graphs = data.datasets["test"]
    _, maps = task.explain(batch)
    columns = [task.truth(batch), task.sample_maps(batch), task.rival_maps(batch)["degree"]]
    for i, (graph, truth, one, degrees) in enumerate(zip(graphs, *columns, strict=True)):
        assert torch.equal(truth, graph.truth)
        # The one output speaks for the second class, and less speaks for the first.
        sign = 1 if int(graph.y) else -1
        torch.testing.assert_close(one, sign * maps[batch.ptr[i] : batch.ptr[i + 1], 0])
        neighbours = [int((graph.edge_index[0] == node).sum()) for node in range(graph.num_nodes)]
        assert degrees.tolist() == neighbours


def test_graphs_without_known_nodes_have_no_truth(data, batch):
    del batch.truth
    assert network(data).truth(batch) is None


def test_hiding_nothing_changes_nothing(data, batch):
    task = network(data)
    nothing = [one & False for one in task.truth(batch)]
    torch.testing.assert_close(task(task.hide(batch, nothing)), task(batch))


def test_hidden_nodes_are_single_nodes_with_mean_features(data, batch):
    """So that graphs of which everything is hidden cannot be told apart, and only theirs change."""
    task = network(data)
    hidden = [one | (i == 2) for i, one in enumerate(x & False for x in task.truth(batch))]
    before, logits = task(batch), task(task.hide(batch, hidden))
    others = [i for i in range(len(hidden)) if i != 2]
    torch.testing.assert_close(logits[others], before[others])
    assert not torch.allclose(logits[2], before[2])
    blank = task(task.hide(batch, [one | True for one in hidden]))
    torch.testing.assert_close(blank, blank[:1].expand_as(blank))


def test_hiding_the_motif_leaves_the_rest_as_it_was(data, batch):
    task = network(data)
    gone = task.hide(batch, task.truth(batch))
    assert gone.num_nodes == batch.num_nodes
    kept = ~batch.truth[batch.edge_index].any(0)
    assert torch.equal(gone.edge_index, batch.edge_index[:, kept])
    assert torch.equal(gone.x[~batch.truth], batch.x[~batch.truth])
    torch.testing.assert_close(gone.x[batch.truth], task.feature_mean.expand(int(batch.truth.sum()), -1))
