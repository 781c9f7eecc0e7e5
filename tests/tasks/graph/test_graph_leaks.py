"""Graphs that are equal up to the order of their nodes, in two parts of a split, beside networkx' isomorphism test."""

import json

import networkx
import pytest
import torch
from lightning.pytorch import Trainer
from torch_geometric.data import Data
from torch_geometric.utils import to_networkx

from tasks.data.describe import describe
from tasks.data.problems import BadInput
from tasks.graph import GraphData, GraphTask
from tasks.graph.contents import graph_contents
from tasks.outputs.callback import Outputs


def random_graphs(count, nodes, seed=0, features=True):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        adjacency = torch.rand(nodes, nodes, generator=generator) < 0.5
        adjacency = (adjacency | adjacency.T).fill_diagonal_(False)
        x = torch.nn.functional.one_hot(torch.randint(2, (nodes,), generator=generator), 2).float()
        yield Data(x=x if features else None, edge_index=adjacency.nonzero().T, num_nodes=nodes)


def permuted(graph, seed):
    order = torch.randperm(graph.num_nodes, generator=torch.Generator().manual_seed(seed))
    edges = order[graph.edge_index]
    x = None if graph.x is None else graph.x[order.argsort()]
    shuffled = torch.randperm(edges.shape[1], generator=torch.Generator().manual_seed(seed))
    return Data(x=x, edge_index=edges[:, shuffled], num_nodes=graph.num_nodes, y=graph.y)


@pytest.mark.parametrize("features", [True, False])
def test_equal_contents_are_isomorphic_graphs(features):
    graphs = list(random_graphs(60, 4, features=features))  # so small that many are isomorphic
    contents = graph_contents(graphs)
    nx = [to_networkx(graph, node_attrs=["x"] if features else None) for graph in graphs]
    match = (lambda a, b: a["x"] == b["x"]) if features else None
    pairs = [(i, j) for i in range(60) for j in range(i)]
    equal = [contents[i] == contents[j] for i, j in pairs]
    assert equal == [networkx.is_isomorphic(nx[i], nx[j], node_match=match) for i, j in pairs]
    assert 10 < sum(equal) < len(pairs)


class Copied(GraphData):
    """Fifty graphs, and the first ten of them again with their nodes in another order; the last with another class."""

    def read(self, problems):
        self.classes = ["a", "b"]
        graphs = list(random_graphs(50, 12))
        for i, graph in enumerate(graphs):
            graph.y, graph.id = torch.tensor([i % 2]), f"g{i}"
        for i in range(10):
            graphs.append(permuted(graphs[i], i))
            graphs[-1].id = f"copy{i}"
        graphs[-1].y = 1 - graphs[-1].y
        return graphs


def test_permuted_copies_across_parts_are_named():
    twins = {f"g{i}" for i in range(10)} | {f"copy{i}" for i in range(10)}
    for fold in range(3):
        data = Copied(num_folds=5, fold=fold)
        data.setup()
        place = {sample.id: part for part in ("train", "val", "test") for sample in data.samples(part)}
        order = ("train", "val", "test").index
        expected = set()
        for i in range(10):
            first, second = sorted((f"g{i}", f"copy{i}"), key=lambda name: order(place[name]))
            if place[first] != place[second]:
                expected.add(second)
        assert data.leaked == expected
        assert expected <= twins
        dropped = Copied(num_folds=5, fold=fold, on_leak="drop")
        dropped.setup()
        assert dropped.leaked == set()
        assert len(dropped.datasets["test"]) == len(data.datasets["test"])
        left = {sample.id for part in ("train", "val", "test") for sample in dropped.samples(part)}
        gone = {name for names in dropped.dropped.values() for name in names}
        assert gone == set(place) - left
        assert gone
        said = [line for line in describe(dropped) if line.startswith("left out of ")]
        assert [line.split(":")[0] for line in said] == [
            f"left out of {part}, as a later part has their twins" for part in dropped.dropped
        ]


def test_what_was_left_out_stands_in_the_summary(tmp_path):
    data = Copied(num_folds=5, on_leak="drop")
    task = GraphTask(data.spec, hidden=4, layers=1)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    outputs = Outputs(maps=0, every=0, bootstrap=0)
    trainer = Trainer(max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, callbacks=[outputs], **quiet)
    trainer.fit(task, data)
    trainer.test(task, data)
    told = json.loads((tmp_path / "summary.json").read_text())["run"]
    assert told["dropped"] == data.dropped
    assert [line for line in told["data"] if line.startswith("left out of train")]


def test_data_for_a_model_keep_their_leaks_to_themselves_until_they_are_not_refused(caplog):
    caplog.set_level("INFO")
    first = Copied(num_folds=5)
    first.setup()
    assert caplog.text.count("not independent") == 1
    caplog.clear()
    asked = Copied(num_folds=5)
    asked.trained = first.training()
    asked.setup()
    assert "not independent" not in caplog.text
    asked.tell()
    asked.tell()
    assert caplog.text.count("not independent") == 1


def test_they_are_refused_if_asked_to():
    with pytest.raises(BadInput, match="problem") as caught:
        Copied(num_folds=5, on_leak="error").setup()
    assert "is in test, with the same content as" in str(caught.value)
