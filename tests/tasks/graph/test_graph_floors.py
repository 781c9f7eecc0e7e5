"""What graphs' floors are told: Weisfeiler and Leman against nested tuples and PyG, counts against networkx."""

from collections import Counter

import networkx
import numpy as np
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.nn import WLConv

from tasks.__main__ import main
from tasks.graph.colours import weisfeiler_leman
from tasks.graph.floors import graph_floors


def random_graphs(number=20, labels=3, seed=0):
    """Undirected graphs, some with nodes on their own, one-hot labels, and their networkx form."""
    rng = np.random.default_rng(seed)
    graphs = [
        networkx.gnp_random_graph(int(rng.integers(1, 9)), 0.35, seed=int(rng.integers(1000))) for _ in range(number)
    ]
    data = []
    for graph in graphs:
        arcs = (
            torch.tensor([arc for a, b in graph.edges for arc in ((a, b), (b, a))], dtype=torch.long).reshape(-1, 2).T
        )
        x = torch.eye(labels)[torch.from_numpy(rng.integers(labels, size=len(graph)))]
        data.append(Data(x=x, edge_index=arcs, num_nodes=len(graph)))
    return graphs, data


def told(data):
    batch = Batch.from_data_list(data)
    return graph_floors(batch.x, torch.ones(batch.num_nodes, 0), batch.edge_index, batch.ptr)


def kernel(histograms):
    """How alike graphs are, which no renaming of colours changes."""
    return [
        [sum(one[word] * other[word] for word in one if word in other) for other in histograms] for one in histograms
    ]


def test_the_histogram_is_that_of_colours_spelled_out():
    graphs, data = random_graphs()
    histograms = []
    for graph, one in zip(graphs, data, strict=True):
        colours = {node: int(one.x[node].argmax()) for node in graph}
        found = Counter()
        for level in range(4):
            found.update((level, repr(colour)) for colour in colours.values())
            colours = {
                node: (colours[node], sorted((colours[other] for other in graph[node]), key=repr)) for node in graph
            }
        histograms.append(found)
    ours = told(data)["Weisfeiler-Leman"]
    assert kernel(ours) == kernel(histograms)
    assert [sorted(one.values()) for one in ours] == [sorted(one.values()) for one in histograms]


def test_each_round_divides_nodes_as_pygs_layer_does():
    batch = Batch.from_data_list(random_graphs(seed=1)[1])
    expected = batch.x.argmax(1)
    for ours in weisfeiler_leman(batch.x, batch.edge_index, 3):
        pairs = set(zip(ours.tolist(), expected.tolist(), strict=True))
        assert len(pairs) == len(set(ours.tolist())) == len(set(expected.tolist()))  # one to one
        expected = WLConv()(expected, batch.edge_index)


def test_a_graph_is_told_the_same_in_any_batch_and_any_order_of_its_nodes():
    _, data = random_graphs(seed=2)
    alone = [told([one]) for one in data]
    together = told(data)
    order = [torch.from_numpy(np.random.default_rng(i).permutation(one.num_nodes)) for i, one in enumerate(data)]
    moved = told([
        Data(x=one.x[new], edge_index=new.argsort()[one.edge_index], num_nodes=one.num_nodes)
        for one, new in zip(data, order, strict=True)
    ])  # fmt: skip
    for name, expected in together.items():
        assert [one[name][0] for one in alone] == expected == moved[name]


def test_degrees_and_labels_are_counted():
    graphs, data = random_graphs(seed=3)
    found = told(data)
    for graph, degrees, labels, one in zip(graphs, found["degrees"], found["node labels"], data, strict=True):
        assert degrees == {value: count for value, count in enumerate(networkx.degree_histogram(graph)) if count}
        assert sorted(labels.values()) == sorted(Counter(one.x.argmax(1).tolist()).values())


def test_numbers_of_nodes_give_means_and_deviations():
    ptr, numbers = torch.tensor([0, 3, 5]), torch.randn(5, 2)
    found = graph_floors(torch.ones(5, 0), numbers, torch.zeros(2, 0, dtype=torch.long), ptr)["mean+std of features"]
    for part, one in zip((numbers[:3].numpy(), numbers[3:].numpy()), found, strict=True):
        np.testing.assert_allclose(one, [*part.mean(0), *part.std(0)], atol=1e-6)


def test_labels_of_nodes_that_are_the_class_are_found_and_counted_alone(tmp_path, write_tu, small_graphs, capsys):
    graphs = small_graphs(60)
    for graph in graphs:  # the class is whether any node has the label 5, which no single node's attributes say
        graph["label"] = int(5 in graph["node_labels"])
    root = write_tu(graphs)
    flags = ["--model=tasks.graph.GraphTask", "--data=tasks.graph.TUData", f"--data.root={root}", "--data.name=SMALL"]
    main(["floors", *flags, "--data.num_folds=3", f"--run.root={tmp_path / 'runs'}"])
    said = capsys.readouterr().out
    lines = {line[:24].strip(): line.split() for line in said.splitlines()}
    assert float(lines["node labels"][2]) > 0.9 > float(lines["majority"][1])
    assert {"degrees", "Weisfeiler-Leman", "mean+std of features"} <= set(lines)
    assert (tmp_path / "runs/run/floors_0/floors.csv").read_text().count("node labels") == 3
