"""PyG's data sets, files and objects: targets in the shapes that they have, and what is understood of them."""

import gzip
import json
import math

import numpy as np
import pytest
import torch
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.datasets import FakeDataset
from torch_geometric.utils import coalesce, from_smiles
from undrawn import undrawn  # noqa: F401

from tasks.data.problems import BadInput
from tasks.graph import GraphTask, PyGData


def ring(nodes, y=None, **values):
    start = torch.arange(nodes)
    return Data(edge_index=torch.stack([start, (start + 1) % nodes]), num_nodes=nodes, y=y, **values)


def rings(targets, **values):
    return [ring(3 + number % 5, y, **values) for number, y in enumerate(targets)]


NAN = math.nan
SHAPES = {
    "float (1, 1) of 0 and 1": ([torch.tensor([[float(n % 2)]]) for n in range(20)], "binary", ["0", "1"]),
    "int (1, 1)": ([torch.tensor([[n % 2]]) for n in range(20)], "binary", ["0", "1"]),
    "int (1,)": ([torch.tensor([n % 3]) for n in range(20)], "multiclass", ["0", "1", "2"]),
    "int ()": ([torch.tensor(n % 3 - 1) for n in range(20)], "multiclass", ["-1", "0", "1"]),
    "numbers of Python": ([n % 2 for n in range(20)], "binary", ["0", "1"]),
    "float (1,)": ([torch.tensor([n / 7]) for n in range(20)], "regression", ["target 0"]),
    "float (1, 2) with NaN": (
        [torch.tensor([[n / 7, NAN if n % 3 == 0 else n / 5]]) for n in range(20)],
        "regression",
        ["target 0", "target 1"],
    ),
    "labels (1, 2) with NaN": (
        [torch.tensor([[float(n % 2), NAN if n % 3 == 0 else 1.0 - n % 2]]) for n in range(20)],
        "multilabel",
        ["target 0", "target 1"],
    ),
    "labels (2,)": ([torch.tensor([n % 2, n % 3 // 2]) for n in range(20)], "multilabel", ["target 0", "target 1"]),
    "bool (1, 2)": ([torch.tensor([[n % 2 == 0, n % 3 == 0]]) for n in range(20)], "multilabel", None),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_targets_are_understood_in_every_shape(shape):
    targets, kind, classes = SHAPES[shape]
    data = PyGData(rings(targets), num_folds=3)
    assert data.spec["kind"] == kind
    assert classes in (None, data.spec["classes"])
    known = {graph.id: graph.y for part in data.datasets.values() for graph in part}
    assert len(known) == 20
    for number, y in enumerate(targets, start=1):
        y = torch.as_tensor(y).reshape(-1).float()
        if kind in ("binary", "multiclass"):
            y = torch.tensor([data.spec["classes"].index(f"{float(y):g}")], dtype=torch.float)
        torch.testing.assert_close(known[f"graph-{number}"].reshape(-1).float(), y, equal_nan=True)


def test_what_was_understood_is_said(capsys, caplog):
    targets, _, _ = SHAPES["labels (1, 2) with NaN"]
    graphs = [ring(4, y, x=torch.zeros(4, 2, dtype=torch.long), edge_attr=torch.rand(4, 3)) for y in targets]
    with caplog.at_level("INFO"):
        PyGData(graphs, num_folds=3).setup()
    said = caplog.text + capsys.readouterr().err
    assert "understood: 20 graphs; 2 columns of whole numbers for nodes, 3 columns of numbers for edges; " in said
    assert "target: 2 labels of 0 and 1, 17.5 % missing" in said


def test_columns_names_and_task_are_as_asked():
    targets = [torch.tensor([[n / 7, float(n % 2), 3.0]]) for n in range(20)]
    one = PyGData(rings(targets), num_folds=3, target=1, names=["safe", "toxic"])
    assert (one.spec["kind"], one.spec["classes"]) == ("binary", ["safe", "toxic"])
    two = PyGData(rings(targets), num_folds=3, target=[1, 0])
    assert (two.spec["kind"], two.spec["classes"]) == ("regression", ["target 1", "target 0"])
    number = PyGData(rings(targets), num_folds=3, target=1, task="regression")
    assert number.spec["kind"] == "regression"
    with pytest.raises(BadInput, match=r"target: expected columns from 0 to 2, which y has, got \[3\]"):
        PyGData(rings(targets), target=3).setup()
    with pytest.raises(BadInput, match="task: expected zeros and ones in several columns of y for classification"):
        PyGData(rings(targets), task="classification").setup()
    with pytest.raises(BadInput, match="names: expected 2, of 0, 1, got 1; name each"):
        PyGData(rings(targets), target=1, names=["toxic"]).setup()


def test_a_target_for_each_node_is_none_for_the_graph():
    graphs = [ring(3 + n % 5, torch.zeros(3 + n % 5)) for n in range(20)]
    with pytest.raises(BadInput, match="expected 3 targets in y, as most graphs have, got 4; one y per graph"):
        PyGData(graphs).setup()


@pytest.mark.parametrize("shape", ["int (1,)", "int (1, 1)", "float (1,)"])
def test_graphs_without_a_target_are_to_be_predicted(shape):
    data = PyGData([*rings(SHAPES[shape][0]), ring(4), ring(5, torch.tensor([NAN]))], num_folds=3)
    data.setup()
    assert [sample.id for sample in data.samples("predict")] == ["graph-21", "graph-22"]


def plain(graph):
    return {key: graph[key] for key in ("x", "edge_index", "edge_attr", "y")}


@pytest.mark.parametrize("form", ["list", "stored", "collated"])
def test_files_give_the_graphs_back(tmp_path, form):
    graphs = [ring(3 + n % 4, torch.tensor([n / 7]), edge_attr=torch.rand(3 + n % 4, 2), x=torch.rand(3 + n % 4, 1))
              for n in range(20)]  # fmt: skip
    path = tmp_path / "graphs.pt"
    if form == "list":
        torch.save(graphs, path)
    elif form == "stored":
        InMemoryDataset.save(graphs, str(path))
    else:
        torch.save(InMemoryDataset.collate(graphs), path)
    for given, found in zip(graphs, PyGData(str(path)).graphs, strict=True):
        torch.testing.assert_close(plain(found), plain(given))


def test_a_file_runs_nothing(tmp_path):
    class Other:
        pass

    torch.save([np.random.default_rng], tmp_path / "code.pt")
    with pytest.raises(BadInput, match=r"code.pt: it is damaged, or holds other objects than PyG's Data"):
        PyGData(str(tmp_path / "code.pt")).setup()
    torch.save({"a": torch.ones(1)}, tmp_path / "dict.pt")
    with pytest.raises(BadInput, match=r"dict.pt: expected a list of Data objects, got dict"):
        PyGData(str(tmp_path / "dict.pt")).setup()
    with pytest.raises(BadInput, match="does not exist; give a file of Data objects"):
        PyGData(str(tmp_path / "none.pt")).setup()
    with pytest.raises(BadInput, match="expected PyG's Data objects, got int"):
        PyGData([1, 2]).setup()


def test_a_data_set_that_is_split_is_divided_so():
    class Split(list):
        def get_idx_split(self):
            return {"train": torch.arange(12), "valid": torch.arange(12, 15), "test": torch.arange(15, 20)}

    data = PyGData(Split(rings(SHAPES["int (1,)"][0])))
    assert data.folds == [0]
    data.setup()
    assert [graph.id for graph in data.datasets["val"]] == ["graph-13", "graph-14", "graph-15"]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") as file:
        file.writelines(",".join(map(str, row)) + "\n" for row in rows)


@pytest.fixture
def ogb(tmp_path):
    """A folder as OGB unpacks it: each bond once, one label missing."""
    folder = tmp_path / "ogbg_molset"
    smiles = ["C" * (1 + n % 4) + ["O", "N"][n % 2] for n in range(20)]
    graphs = [from_smiles(one) for one in smiles]
    raw = folder / "raw"
    write(raw / "num-node-list.csv.gz", [[graph.num_nodes] for graph in graphs])
    write(raw / "num-edge-list.csv.gz", [[graph.num_edges // 2] for graph in graphs])
    once = [graph.edge_index[0] < graph.edge_index[1] for graph in graphs]
    write(
        raw / "edge.csv.gz",
        [row for graph, own in zip(graphs, once, strict=True) for row in graph.edge_index.T[own].tolist()],
    )
    write(
        raw / "edge-feat.csv.gz",
        [row for graph, own in zip(graphs, once, strict=True) for row in graph.edge_attr[own].tolist()],
    )
    write(raw / "node-feat.csv.gz", [row for graph in graphs for row in graph.x.tolist()])
    write(raw / "graph-label.csv.gz", [[n % 2, "" if n == 3 else n % 3 // 2] for n in range(20)])
    write(folder / "mapping" / "mol.csv.gz", [["smiles", "mol_id"], *([one, n] for n, one in enumerate(smiles))])
    for part, numbers in (("train", range(12)), ("valid", range(12, 16)), ("test", range(16, 20))):
        write(folder / "split" / "scaffold" / f"{part}.csv.gz", [[number] for number in numbers])
    return folder, graphs


def test_ogbs_folder_is_read_with_its_split(ogb):
    folder, graphs = ogb
    data = PyGData(str(folder))
    assert data.folds == [0]
    for found, given in zip(data.graphs, graphs, strict=True):
        assert torch.equal(found.x, given.x)
        both = [coalesce(graph.edge_index, graph.edge_attr) for graph in (found, given)]
        assert all(torch.equal(one, other) for one, other in zip(*both, strict=True))
    assert data.spec["kind"] == "multilabel"
    assert {part: len(own) for part, own in data.datasets.items()} == {"train": 12, "val": 4, "test": 4}
    assert torch.cat([graph.y for graph in data.datasets["train"]]).isnan().sum() == 1


def test_tables_of_ogb_that_do_not_agree(ogb):
    folder, _ = ogb
    write(folder / "raw" / "node-feat.csv.gz", [[1, 2]])
    with pytest.raises(BadInput, match=r"expected tables of 20 graphs, .* but the features of nodes have 1 lines for"):
        PyGData(str(folder)).setup()
    (folder / "raw" / "edge.csv.gz").unlink()
    with pytest.raises(
        BadInput, match=r"expected OGB's tables, raw/edge.csv.gz do not exist; give the set's own folder"
    ):
        PyGData(str(folder)).setup()


def test_whole_numbers_of_nodes_and_edges_become_columns():
    graphs = [
        ring(4, torch.tensor([n % 2]), x=torch.tensor([6, 7, 8, 6 + n % 3]), edge_attr=torch.tensor([1, 2, 1, 1]))
        for n in range(20)
    ]
    data = PyGData(graphs, num_folds=3)
    assert (data.spec["channels"], data.spec["edge_features"]) == (3, 2)
    assert data.datasets["train"][0].edge_attr.tolist() == [[1, 0], [0, 1], [1, 0], [1, 0]]
    task = GraphTask(data.spec, conv="gine", hidden=8, layers=2)
    batch = next(iter(data.test_dataloader()))
    assert task(batch).shape == (batch.num_graphs, 1)


def test_the_command_line_builds_a_data_set_with_its_arguments(tmp_path, capsys):
    from tasks.__main__ import main

    torch.manual_seed(0)
    options = ["--data.dataset.num_graphs=30", "--data.dataset.avg_num_nodes=8", "--data.dataset.num_classes=2"]
    main(["fit", "--model=tasks.graph.GraphTask", "--data=tasks.graph.PyGData",
          "--data.dataset=torch_geometric.datasets.FakeDataset", *options, "--data.num_folds=3", "--model.hidden=8",
          f"--run.root={tmp_path}", "--trainer.max_epochs=2", "--outputs.maps=0", "--outputs.bootstrap=0",
          "--floors=false"])  # fmt: skip
    (summary,) = tmp_path.rglob("summary.json")
    assert json.loads(summary.read_text())["samples"] == 10
    assert FakeDataset.__name__ in (summary.parent / "config.yaml").read_text()
