"""One graph of a TU folder: the features of the training, whatever folder it comes from; its picture and its values."""

import csv

import pytest
import torch
from torch_geometric.data import Batch, Data

from tasks.data.problems import BadInput
from tasks.graph import GraphTask, TUData
from tasks.graph.single import read_graph
from tasks.outputs.gallery import Gallery


@pytest.fixture
def data(write_tu, small_graphs):
    root = write_tu(small_graphs())
    (root / "SMALL" / "raw" / "README.txt").write_text(
        "Classes:\n\n  3  no\n\nNode labels:\n\n  3  C\n  4  N\n\nEdge labels:\n\n  5  single\n"
    )
    made = TUData(str(root), "SMALL", num_folds=3, degrees=5, size=True)
    made.setup()
    return made


@pytest.fixture
def task(data):
    torch.manual_seed(0)
    return GraphTask(data.spec, hidden=8, layers=2).eval()


def test_a_graph_alone_is_the_graph_of_the_data(data, task):
    known = {graph.id: graph for part in data.datasets.values() for graph in part}
    for number in (1, 7, 24):
        graph = task.read(f"{data.root}/SMALL-{number}")[0]
        expected = known[f"SMALL-{number}"]
        torch.testing.assert_close(graph.x, expected.x)
        assert torch.equal(graph.edge_index, expected.edge_index)
        assert torch.equal(graph.y, expected.y)


def test_labels_are_matched_by_value_in_another_folder(data, task, write_tu, small_graphs, tmp_path):
    """The other folder has the label 4 and no other, and a class that the training does not know."""
    (one,) = small_graphs(1)
    one = {**one, "node_labels": [4] * one["nodes"], "label": 9}
    write_tu([one], root=tmp_path / "other", name="OTHER")
    graph = task.read(f"{tmp_path}/other/OTHER-1")[0]
    assert graph.x.shape[1] == data.spec["channels"]
    assert graph.x[:, 2:5].tolist() == [[0.0, 1.0, 0.0]] * one["nodes"]  # after two attributes: the labels 3, 4, 5
    assert task.node_names(graph) == ["N"] * one["nodes"]
    assert torch.isnan(graph.y).all()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{root}/SMALL-25", "SMALL-25: expected a graph from 1 to 24, got 25; correct the number"),
        ("{root}/SMALL-0", "expected a graph from 1 to 24, got 0"),
        ("{root}/SMALL", "expected a folder and a graph's name in predictions.csv, such as data/MUTAG-17"),
        ("{root}/17", "expected a folder and a graph's name in predictions.csv"),
        ("{root}/NONE-1", r"raw: does not exist; expected the TU layout, NONE/raw/NONE_A.txt"),
        ("{root}/ODD-1", "ODD-1: expected the node labels of the training, 3, 4, 5, got 8; give a graph with the same"),
        ("{root}/BARE-1", "expected 12 features per node, as the model was trained with, got 10"),
        ("{root}/HURT-2", "HURT-2: HURT_node_attributes.txt line .*NaN or inf"),
    ],
)
def test_what_cannot_be_read_is_said(data, task, write_tu, small_graphs, source, message):
    (one,) = small_graphs(1)
    write_tu([{**one, "node_labels": [8] * one["nodes"]}], name="ODD")
    write_tu([one], name="BARE", attributes=False)
    hurt = {**one, "node_attributes": [[float("nan"), 1.0]] * one["nodes"]}
    write_tu([one, hurt], name="HURT")
    with pytest.raises(BadInput, match=message):
        task.read(source.format(root=data.root))


def test_models_of_other_data_say_so():
    with pytest.raises(BadInput, match="a-1: the model was not trained on a TU folder"):
        read_graph("a-1", {"kind": "binary", "reading": None})


def test_values_of_the_nodes_are_written_with_their_names(data, task, tmp_path):
    batch = task.read(f"{data.root}/SMALL-3")
    (entry,) = Gallery(tmp_path / "maps").add(task, batch, limit=1)
    (path,) = entry.files
    assert path.name == "SMALL-3_map.csv"
    with path.open() as file:
        rows = list(csv.DictReader(file))
    names = [{"3": "C", "4": "N", "5": "5"}[str(3 + column)] for column in batch.x[:, 2:5].argmax(1).tolist()]
    assert [row["name"] for row in rows] == names
    assert [row["node"] for row in rows] == [str(node) for node in range(batch.num_nodes)]
    predictions, maps = task.explain(batch)
    expected = maps[:, int(predictions[0].argmax())]
    assert [float(row["value"]) for row in rows] == pytest.approx(expected.tolist(), rel=1e-5)
    assert entry.picture.stat().st_size > 10_000


def test_a_molecule_s_smiles_is_in_its_title(data, task, tmp_path, monkeypatch):
    graph = read_graph(f"{data.root}/SMALL-3", data.spec)
    graph.smiles = "CCO"
    told = {}
    monkeypatch.setattr("tasks.graph.pictures.draw_graph", lambda *_, **words: told.update(words))
    Gallery(tmp_path).add(task, Batch.from_data_list([graph]), limit=1)
    assert told["title"].startswith("SMALL-3\ntarget ")
    assert told["title"].endswith("\nCCO")


def test_nodes_have_their_graph_s_own_names_or_none(task):
    edges = torch.tensor([[0], [1]])
    assert task.node_names(Batch.from_data_list([Data(edge_index=edges, names=["a", "b"])])[0]) == ["a", "b"]
    task.spec["reading"] = None
    assert task.node_names(Data(edge_index=edges)) is None
