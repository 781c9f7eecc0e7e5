"""Edge features: read as PyG reads them, from files to the network, and nothing else decides where only they tell."""

import csv

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.datasets import TUDataset
from toy import ROOT
from undrawn import undrawn  # noqa: F401

from tasks.__main__ import main
from tasks.data.problems import BadInput, Problems
from tasks.graph import BondData, GraphData, GraphTask, TUData
from tasks.graph.colours import kinds_of, weisfeiler_leman
from tasks.graph.contents import graph_contents
from tasks.graph.networks import GINE, WITH_EDGES
from tasks.graph.raw import read_tu
from tasks.graph.task import keep_pairs


@pytest.fixture
def bonds():
    data = BondData(train=16, val=4, test=4)
    data.setup()
    return data


@pytest.fixture
def edged(small_graphs):
    """Graphs whose arcs, one way or both, have a label and two numbers."""

    def make(count=24, seed=0):
        rng, graphs = np.random.default_rng(seed), small_graphs(count, seed)
        for number, graph in enumerate(graphs):
            graph["edges"] = sorted({(i, j) for i, j in graph["edges"] if i <= j or rng.integers(2)})
            # Labels 1 to 3 without a gap: PyG has a column for every label in the range.
            graph["edge_labels"] = [
                1 + (k if number < 3 else int(rng.integers(3))) % 3 for k in range(len(graph["edges"]))
            ]
            graph["edge_attributes"] = rng.normal(3, 2, size=(len(graph["edges"]), 2)).round(3).tolist()
        return graphs

    return make


def make(data, **options):
    torch.manual_seed(0)
    return GraphTask(data.spec, **{"hidden": 8, "layers": 2, **options}).double().eval()


def double(batch):
    batch = batch.clone()
    batch.x, batch.edge_attr = batch.x.double(), batch.edge_attr.double()
    return batch


@pytest.mark.parametrize("left_out", [(), ("edge_labels",), ("edge_attributes",)], ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_tu_folders_are_read_as_pyg_reads_them(write_tu, edged, left_out, seed):
    graphs = [{key: value for key, value in graph.items() if key not in left_out} for graph in edged(seed=seed)]
    root = write_tu(graphs)
    found = read_tu(root, "SMALL", Problems("SMALL"))
    assert found.edge_labels == ([] if "edge_labels" in left_out else [1, 2, 3])
    one_way = 0
    for ours, theirs in zip(found.graphs, TUDataset(root, "SMALL", use_edge_attr=True), strict=True):
        assert torch.equal(ours.edge_index, theirs.edge_index)
        torch.testing.assert_close(ours.edge_attr, theirs.edge_attr.reshape(ours.edge_attr.shape))
        arcs = set(map(tuple, ours.edge_index.t().tolist()))
        one_way += sum((j, i) not in arcs for i, j in arcs)
    assert one_way > 10  # directed graphs stay so


def test_of_repeated_arcs_the_first_counts(write_tu, edged):
    graphs = edged(6)
    graphs[0] |= {"edges": [(1, 0), (0, 1), (1, 0), (2, 2)], "edge_labels": [3, 2, 1, 1]}
    graphs[0]["edge_attributes"] = [[1.0, 0.5], [2.0, 0.5], [3.0, 0.5], [4.0, 0.5]]
    first = read_tu(write_tu(graphs), "SMALL", Problems("SMALL")).graphs[0]
    assert first.edge_index.tolist() == [[0, 1], [1, 0]]
    assert first.edge_attr.tolist() == [[2.0, 0.5, 0, 1, 0], [1.0, 0.5, 0, 0, 1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda graph: graph["edge_labels"].pop(),
            "SMALL_edge_labels.txt: expected [0-9]+ lines, one per arc as in SMALL_A",
        ),
        (
            lambda graph: graph["edge_labels"].__setitem__(0, "x"),
            "SMALL-4: SMALL_edge_labels.txt line .*one integer, got 'x'",
        ),
        (
            lambda graph: graph["edge_attributes"].__setitem__(0, [1.0, float("inf")]),
            "SMALL-4: SMALL_edge_attributes.txt line .*expected finite numbers",
        ),
    ],
)
def test_what_is_wrong_with_edges_is_said(write_tu, edged, change, message):
    graphs = edged()
    change(graphs[3])
    with pytest.raises(BadInput, match=message):
        TUData(str(write_tu(graphs)), "SMALL", num_folds=2).setup()


def test_labels_of_edges_are_matched_by_value_in_another_folder(write_tu, edged, tmp_path):
    data = TUData(str(write_tu(edged())), "SMALL", num_folds=3)
    task = GraphTask(data.spec, conv="gine", hidden=8, layers=2).eval()
    assert data.spec["edge_features"] == 5
    graph = task.read(f"{data.root}/SMALL-7")[0]
    known = {graph.id: graph for part in data.datasets.values() for graph in part}
    torch.testing.assert_close(graph.edge_attr, known["SMALL-7"].edge_attr)
    (one,) = edged(1)
    arcs = len(one["edges"])
    write_tu([{**one, "edge_labels": [2] * arcs}], root=tmp_path, name="OTHER")
    assert task.read(f"{tmp_path}/OTHER-1")[0].edge_attr[:, 2:].tolist() == [[0, 1, 0]] * arcs
    write_tu([{**one, "edge_labels": [7] * arcs}], root=tmp_path, name="ODD")
    with pytest.raises(BadInput, match="ODD-1: expected the edge labels of the training, 1, 2, 3, got 7"):
        task.read(f"{tmp_path}/ODD-1")
    write_tu([{key: value for key, value in one.items() if "edge_" not in key}], root=tmp_path, name="BARE")
    with pytest.raises(BadInput, match="BARE-1: expected 5 features per edge"):
        task.read(f"{tmp_path}/BARE-1")


def test_graphs_of_ones_own_are_checked():
    ends = torch.tensor([[0, 1], [1, 2]])

    class Own(GraphData):
        def read(self, problems):
            self.classes = ["a", "b"]
            graphs = [
                Data(edge_index=ends, edge_attr=torch.ones(2), y=torch.tensor([n % 2]), num_nodes=3) for n in range(8)
            ]
            graphs[1].edge_attr = torch.ones(2, 3)
            graphs[2].edge_attr = torch.ones(1)
            graphs[3].edge_attr = torch.tensor([1.0, float("nan")])
            graphs[4].edge_attr = None
            return graphs

    with pytest.raises(BadInput) as error:
        Own().setup()
    for line in (
        "graph-2: expected 1 features per edge, as most graphs have, got 3",
        "graph-3: expected 2 rows in edge_attr, one per edge, got 1",
        "graph-4: NaN or inf in the features of edge 1; correct them",
        "graph-5: expected 1 features per edge, as most graphs have, got none",
    ):
        assert line in str(error.value)


def test_gine_is_its_formula():
    """Hu et al. 2020 in a loop: x_i' = MLP((1 + eps) x_i + sum over j of relu(x_j + W e_ji + b))."""
    torch.manual_seed(0)
    network = GINE(4, 4, num_layers=1, edge_dim=3).double()
    x, edge_attr = torch.randn(5, 4).double(), torch.randn(7, 3).double()
    edge_index = torch.tensor([[0, 1, 2, 3, 4, 1, 2], [1, 2, 0, 1, 1, 0, 4]])
    conv = network.convs[0]
    sums = x.clone()
    for (j, i), edge in zip(edge_index.t().tolist(), edge_attr, strict=True):
        sums[i] += (x[j] + conv.lin.weight @ edge + conv.lin.bias).relu()
    torch.testing.assert_close(network(x, edge_index, edge_attr=edge_attr), conv.nn(sums))


@pytest.mark.parametrize("norm", ["batch_norm", None])
@pytest.mark.parametrize("conv", WITH_EDGES)
def test_networks_read_edges_and_no_batch_mate_s(bonds, conv, norm):
    task = make(bonds, conv=conv, norm=norm, reduction="attention")
    batch = double(bonds.collate(bonds.datasets["train"]))
    together = task(batch)
    alone = torch.cat([task(Batch.from_data_list([batch[number]])) for number in range(16)])
    torch.testing.assert_close(together, alone)
    order = torch.randperm(batch.num_edges)
    moved = batch.clone()
    moved.edge_index, moved.edge_attr = batch.edge_index[:, order], batch.edge_attr[order]
    torch.testing.assert_close(task(moved), together)
    moved.edge_attr = batch.edge_attr.flip(1)  # single bonds become double ones
    assert torch.isclose(task(moved), together).sum() < 4
    task.train().loss(task(batch), task.target(batch)).backward()
    untrained = [name for name, weight in task.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert [name for name in untrained if "att" not in name and "bias" not in name] == []


@pytest.mark.parametrize("conv", ["gin", *WITH_EDGES])
def test_arcs_point_one_way(bonds, conv):
    task = make(bonds, conv=conv)
    batch = double(bonds.collate(bonds.datasets["train"]))
    half = batch.edge_index[0] < batch.edge_index[1]
    batch.edge_index, batch.edge_attr = batch.edge_index[:, half], batch.edge_attr[half]
    turned = batch.clone()
    turned.edge_index = batch.edge_index.flip(0)
    assert torch.isclose(task(batch), task(turned)).sum() < 4


def test_edges_are_standardised_as_in_training(write_tu, edged):
    root = write_tu(edged())
    data = TUData(str(root), "SMALL", num_folds=3)
    data.setup()
    raw = {graph.id: graph.edge_attr for graph in read_tu(root, "SMALL", Problems("SMALL")).graphs}
    known = torch.cat([raw[graph.id] for graph in data.datasets["train"]])
    mean, std = known[:, :2].mean(0), known[:, :2].std(0, correction=0)
    for graph in data.datasets["test"]:
        torch.testing.assert_close(graph.edge_attr[:, :2], (raw[graph.id][:, :2] - mean) / std)
        assert torch.equal(graph.edge_attr[:, 2:], raw[graph.id][:, 2:])


def test_dropped_and_hidden_edges_take_their_features_with_them(bonds):
    task = make(bonds, conv="gine", drop_edges=0.5, norm=None)
    batch = double(bonds.collate(bonds.datasets["train"]))
    torch.manual_seed(1)
    dropped = task.train()(batch)
    torch.manual_seed(1)
    kept = keep_pairs(batch.edge_index, batch.num_nodes, 0.5)
    left = batch.clone()
    left.edge_index, left.edge_attr = batch.edge_index[:, kept], batch.edge_attr[kept]
    torch.testing.assert_close(task.eval()(left), dropped)
    hidden = task.to_inputs(
        torch.zeros(batch.num_nodes, dtype=torch.bool).index_fill(0, torch.tensor([0]), True), batch
    )
    there = (batch.edge_index != 0).all(0)
    assert torch.equal(task.hide(batch, hidden).edge_attr, batch.edge_attr[there])


@pytest.mark.parametrize("coarsen", ["topk", "sag"])
def test_coarsened_graphs_keep_features_of_their_edges(bonds, coarsen):
    task = make(bonds, conv="gine", coarsen=coarsen, layers=3)
    batch = double(bonds.collate(bonds.datasets["train"]))
    expected = task(batch)
    alone = torch.cat([task(Batch.from_data_list([batch[number]])) for number in range(16)])
    torch.testing.assert_close(alone, expected)
    batch.edge_attr = batch.edge_attr.flip(1)
    assert torch.isclose(task(batch), expected).sum() < 4
    with pytest.raises(ValueError, match="expected coarsen topk or sag with a network that reads edge features"):
        GraphTask(bonds.spec, conv="gatv2", coarsen="asap")


def test_networks_without_edges_say_so(bonds):
    with pytest.raises(ValueError, match="expected edge features for conv gine, got graphs without; choose gin, pna"):
        GraphTask({**bonds.spec, "edge_features": 0}, conv="gine")
    assert GraphTask(bonds.spec, conv="gatv2").reads_edges
    assert not GraphTask(bonds.spec, conv="gin").reads_edges
    assert not GraphTask({**bonds.spec, "edge_features": 0}, conv="gatv2").reads_edges


def test_graphs_that_differ_in_their_bonds_only_are_two(bonds):
    graphs = [graph.clone() for graph in bonds.datasets["train"]]
    plain = [Data(edge_index=graph.edge_index, num_nodes=graph.num_nodes) for graph in graphs]
    same = Data(
        edge_index=graphs[0].edge_index.flip(1), edge_attr=graphs[0].edge_attr.flip(0), num_nodes=graphs[0].num_nodes
    )
    other = Data(edge_index=graphs[0].edge_index, edge_attr=graphs[0].edge_attr.flip(1), num_nodes=graphs[0].num_nodes)
    for graph in (same, other):
        graph.x = graphs[0].x
    contents = graph_contents([graphs[0], same, other])
    assert contents[0] == contents[1] != contents[2]
    assert len(set(graph_contents(plain))) == len(plain)


def test_colours_of_bonds():
    """By hand: on a path of four nodes the ends differ once one end's bond is double, and not before."""
    path = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
    alike = kinds_of(torch.tensor([[1.0, 0]] * 6))
    assert len(set(alike.tolist())) == 1
    double = kinds_of(torch.tensor([[0, 1.0]] * 2 + [[1.0, 0]] * 4))
    labels = torch.ones(4, 1)
    assert [len(set(colours.tolist())) for colours in weisfeiler_leman(labels, path, 1, alike)] == [1, 2]
    assert [len(set(colours.tolist())) for colours in weisfeiler_leman(labels, path, 1, double)] == [1, 4]


@pytest.mark.parametrize("conv", ["gine", "gin"])
def test_where_only_bonds_tell_they_are_learned(tmp_path, monkeypatch, conv):
    told = []
    monkeypatch.setattr("tasks.graph.task.rank_zero_info", told.append)
    monkeypatch.setattr("sys.argv", ["tasks"])
    flags = [
        "--data.train=400",
        "--data.val=60",
        "--data.test=100",
        f"--trainer.max_epochs={8 if conv == 'gine' else 2}",
    ]
    quiet = ["--trainer.enable_progress_bar=false", "--outputs.maps=0", "--outputs.bootstrap=0", "--outputs.every=0"]
    config = str(ROOT / "configs" / "graph" / "bonds.yaml")
    main(["fit", "-c", config, "--run.root", str(tmp_path), "--floors=false", *flags, *quiet, f"--model.conv={conv}"])
    with (tmp_path / "graph" / "bonds" / "version_0" / "predictions.csv").open() as file:
        right = [row["target"] == row["prediction"] for row in csv.DictReader(file)]
    if conv == "gine":
        assert sum(right) >= 98  # of 100; all of them after the config's 20 epochs
        assert told == []
    else:
        assert sum(right) < 70
        assert told == [f"The 2 features of edges are not read; --model.conv {', '.join(WITH_EDGES)} would"]
