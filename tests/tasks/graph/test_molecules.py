"""Tables of SMILES: what is understood of them, what is wrong with them, and the graphs that they become."""

import gzip
import itertools
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rdkit.Chem import MolFromSmiles
from rdkit.Chem.Descriptors import CalcMolDescriptors
from torch_geometric.data import Data
from torch_geometric.utils import from_smiles

from tasks.data.problems import BadInput
from tasks.graph import GraphTask, MoleculeData, PyGData
from tasks.graph.chemistry import descriptors, fingerprint, scaffold_split
from tasks.graph.features import column_values, one_hot, own_columns
from tasks.graph.single import read_one
from tasks.task import estimators, floors

ALKANES = ["C" * n for n in range(1, 11)]
ALCOHOLS = [f"{chain}O" for chain in ALKANES]
AMINES = [f"{chain}N" for chain in ALKANES]
MANY = [*ALKANES, *ALCOHOLS, *AMINES]


@pytest.fixture
def table(tmp_path):
    """Write a CSV of columns; returns its path."""

    def write(name="set.csv", **columns):
        path = tmp_path / name
        rows = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")
        return str(path)

    return write


def graphs_of(data):
    return {graph.id: graph for part in data.datasets.values() for graph in part}


def test_graphs_are_those_of_from_smiles(table):
    """One-hot of the values that occur gives the whole numbers back."""
    data = MoleculeData(table(smiles=MANY, y=np.linspace(0, 3, 30)), num_folds=3)
    data.setup()
    for graph in graphs_of(data).values():
        peer = from_smiles(graph.smiles)
        assert torch.equal(graph.edge_index, peer.edge_index)
        values = data.spec["features"]["nodes"]
        columns = torch.split(graph.x, [len(known) for known in values], 1)
        for column, known, expected in zip(columns, values, peer.x.T, strict=True):
            assert (column @ torch.tensor(known, dtype=torch.float)).tolist() == expected.tolist()
        assert graph.edge_attr.shape == (peer.num_edges, data.spec["edge_features"])
        assert graph.names == ["C"] * graph.smiles.count("C") + [one for one in graph.smiles if one != "C"]
    assert data.spec["kind"] == "regression"
    assert data.spec["classes"] == ["y"]


def test_a_value_that_no_training_graph_has_is_no_column():
    values = column_values(torch.tensor([[6, 0], [8, 0]]))
    assert values == [[6, 8], [0]]
    assert one_hot(torch.tensor([[9, 0], [8, 1]]), values).tolist() == [[0, 0, 1], [0, 1, 0]]
    assert column_values(torch.arange(500)[:, None]) == [None]
    assert one_hot(torch.tensor([[7]]), [None]).tolist() == [[7.0]]


@pytest.mark.parametrize(
    ("columns", "kind", "classes", "said"),
    [
        ({"toxic": [0, 1] * 15}, "binary", ["0", "1"], "target toxic (one class)"),
        ({"kind": ["yes", "no"] * 15}, "binary", ["no", "yes"], "target kind (one class)"),
        ({"solubility": np.linspace(-3, 1, 30)}, "regression", ["solubility"], "target solubility (numbers)"),
        ({"grade": [1, 2, 3] * 10}, "multiclass", ["1", "2", "3"], "target grade (one class)"),
        ({"a": [0, 1] * 15, "b": ["", 1, 0] * 10}, "multilabel", ["a", "b"], "target a, b (2 labels of 0 and 1)"),
        ({"u": np.arange(30) / 7, "v": np.arange(30) / 9}, "regression", ["u", "v"], "target u, v (numbers)"),
        ({"id": range(30), "toxic": [0, 1] * 15}, "binary", ["0", "1"], "toxic (one class), names from column id"),
    ],
)
def test_columns_are_understood(table, columns, kind, classes, said):
    data = MoleculeData(table(SMILES=MANY, **columns), num_folds=3)
    assert data.spec["kind"] == kind
    assert data.spec["classes"] == classes
    assert data.understood.said.startswith("understood: SMILES in column SMILES; ")
    assert said in data.understood.said


def test_columns_that_leave_it_open_are_asked_for(table):
    with pytest.raises(BadInput, match=r"targets of one kind.*got a \(0 and 1\), b \(numbers\).*--data.target COLUMN"):
        MoleculeData(table(smiles=MANY, a=[0, 1] * 15, b=np.arange(30) / 7)).setup()
    with pytest.raises(BadInput, match=r"expected a column called smiles, got molecule_x, a; name them, --data.smiles"):
        MoleculeData(table(molecule_x=MANY, a=[0, 1] * 15)).setup()
    with pytest.raises(BadInput, match=r"expected the columns c, got smiles, a"):
        MoleculeData(table(smiles=MANY, a=[0, 1] * 15), target="c").setup()
    with pytest.raises(BadInput, match="expected a column to predict, got none"):
        MoleculeData(table(smiles=MANY)).setup()


def test_rows_that_do_not_parse_are_named_all_at_once(table):
    smiles = [*MANY, "C1CC", "C(C)(C)(C)(C)C", "", "CO"]
    path = table(smiles=smiles, a=[*[0, 1] * 15, 0, 1, 0, 2], b=[*[1, 0] * 15, 0, 1, 0, 1])
    with pytest.raises(BadInput) as caught:
        MoleculeData(path, target=["a", "b"], task=None).setup()
    assert "targets of one kind" in str(caught.value)  # 2 is no label
    path = table(smiles=smiles[:-1], a=[*[0, 1] * 15, 0, 1, 0], b=[*[1, 0] * 15, 0, 1, 0])
    with pytest.raises(BadInput) as caught:
        MoleculeData(path).setup()
    said = str(caught.value)
    assert "3 problems found" in said
    assert "set.csv row 31 (C1CC): does not parse as SMILES (SMILES Parse Error: unclosed ring" in said
    assert "row 32 (C(C)(C)(C)(C)C): does not parse as SMILES (Explicit valence for atom # 0 C, 5" in said
    assert "row 33: column smiles is empty; fill it in or delete the row" in said
    data = MoleculeData(path, on_bad="skip", num_folds=3)
    with pytest.warns(UserWarning, match="3 of 33 samples left out"):
        data.setup()
    assert len(graphs_of(data)) == 30


def test_missing_labels_count_for_nothing(table):
    a = [["", 0, 1][n % 3] for n in range(30)]
    data = MoleculeData(table(smiles=MANY, a=a, b=[0, 1] * 15), num_folds=3)
    train = torch.cat([graph.y for graph in data.datasets["train"]] if data.spec else [])
    assert data.spec["known_counts"] == (~train.isnan()).sum(0).tolist()
    assert data.spec["class_counts"] == (train == 1).sum(0).tolist()
    values = MoleculeData(table(smiles=MANY, u=[one if one else "" for one in range(30)], v=np.arange(30) / 7))
    train = torch.cat([graph.y for graph in values.datasets["train"]] if values.spec else []).double().numpy()
    np.testing.assert_allclose(values.spec["target_mean"], np.nanmean(train, 0), rtol=1e-6)
    np.testing.assert_allclose(values.spec["target_std"], np.nanstd(train, 0), rtol=1e-6)


@pytest.mark.parametrize("y", [np.linspace(0, 1, 30), [0, 1] * 15, ["a", "b", "c"] * 10])
def test_rows_without_a_target_are_to_be_predicted(table, y):
    data = MoleculeData(table(smiles=[*MANY, "CCF"], y=[*y, ""]), num_folds=3)
    data.setup()
    (batch,) = data.loader(data.still("predict"), False)
    assert batch.y.isnan().all()
    assert [sample.id for sample in data.samples("predict")] == ["set-31"]
    assert data.datasets["predict"][0].x.shape[1] == data.spec["channels"]


def test_floors_are_forests_on_fingerprints_and_descriptors(table, monkeypatch):
    """Equal molecules have equal ones, whatever their spelling."""
    monkeypatch.setattr(estimators, "TREES", 5)
    data = MoleculeData(table(smiles=MANY, y=[len(one) for one in MANY]), num_folds=3, task="regression")
    task = GraphTask(data.spec, hidden=4, layers=1)
    told = task.floors(next(iter(data.test_dataloader())))
    assert [len(one) for one in told["forest, fingerprints"]] == [2048] * 10
    assert len({len(one) for one in told["forest, descriptors"]}) == 1
    assert np.array_equal(fingerprint("OCC"), fingerprint("CCO"))
    np.testing.assert_allclose(descriptors("OCC"), descriptors("CCO"))
    assert descriptors("CCO")[list(CalcMolDescriptors(MolFromSmiles("CCO"))).index("MolWt")] == pytest.approx(46.069)
    rows = {row["floor"]: row for row in floors.measure_floors(task, data)}
    assert rows["forest, descriptors"]["rmse"] < rows["mean"]["rmse"] / 2
    assert "forest, descriptors" not in {row["floor"] for row in floors.measure_floors(task, data, forests=False)}


def test_descriptors_are_features_of_every_atom(table):
    """Standardised by the training molecules; an explained molecule and one to predict get the same."""
    path = table(smiles=MANY, y=[len(one) for one in MANY])
    data = MoleculeData(path, num_folds=3, task="regression", descriptors=True)
    told = data.spec["features"]["descriptors"]
    plain = MoleculeData(path, num_folds=3, task="regression").spec
    assert data.spec["channels"] == plain["channels"] + len(told["columns"])
    assert own_columns(data.spec) == len(told["columns"])
    values = np.stack([descriptors(graph.smiles)[told["columns"]] for graph in data.datasets["train"]])
    expected = ((values - values.mean(0)) / values.std(0)).clip(-4, 4)
    for row, graph in zip(expected, data.datasets["train"], strict=True):
        np.testing.assert_allclose(graph.x[:, plain["channels"] :], np.tile(row, (graph.num_nodes, 1)), atol=1e-5)
    task = GraphTask(data.spec, hidden=4, layers=1).eval()
    known = data.datasets["test"][0]
    torch.testing.assert_close(task.read(known.smiles)[0].x, known.x)
    pairs = [Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2, y=torch.tensor([n % 2])) for n in range(20)]
    rings = PyGData(pairs, num_folds=3, descriptors=True)
    with pytest.raises(BadInput, match="descriptors: expected molecules with smiles, got other graphs"):
        rings.setup()


def test_what_needs_rdkit_says_how_to_get_it(table, monkeypatch):
    spec = MoleculeData(table(smiles=MANY, y=np.arange(30) / 7), num_folds=3).spec
    monkeypatch.setitem(sys.modules, "rdkit", None)
    monkeypatch.delitem(sys.modules, "tasks.graph.chemistry")
    advice = r"needs rdkit \(.*\): run pip install -c constraints.txt -e '.\[chem,train\]'"
    with pytest.raises(ImportError, match=f"MoleculeData {advice}"):
        MoleculeData("set.csv")
    with pytest.raises(BadInput, match=f"CCO: tasks.graph.chemistry {advice}"):
        read_one("CCO", spec)


def test_parquet_is_a_table_too(tmp_path, monkeypatch):
    """Read by pyarrow where it is installed; else it says so."""
    (tmp_path / "set.parquet").write_bytes(b"PAR1")
    parquet = SimpleNamespace(read_table=lambda path: SimpleNamespace(to_pylist=lambda: [{"smiles": "CCO", "y": 1.5}]))
    fake = SimpleNamespace(ArrowInvalid=ValueError, parquet=parquet)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: fake)
    monkeypatch.setitem(sys.modules, "pyarrow", fake)
    assert MoleculeData(str(tmp_path / "set.parquet")).understood.targets == ["y"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"Parquet needs pyarrow: run pip install pyarrow, or save it as .csv"):
        MoleculeData(str(tmp_path / "set.parquet")).setup()


def test_a_packed_table(tmp_path):
    with gzip.open(tmp_path / "set.csv.gz", "wt") as file:
        file.write("smiles,y\nCCO,1.5\nCC,2.5\n")
    data = MoleculeData(str(tmp_path / "set.csv.gz"))
    assert [row["smiles"] for row in data.table] == ["CCO", "CC"]


def test_scaffolds_are_in_one_part():
    """Of groups of one size the last one comes first, as the floors of MoleculeNet's files were measured."""
    rings = ["c1ccccc1", "C1CCCCC1", "c1ccncc1", "C1CCOC1", "c1ccsc1"]
    smiles = [ring + "C" * n for n in range(4) for ring in rings]
    parts = scaffold_split(smiles)
    assert sorted(itertools.chain(*parts.values())) == list(range(20))
    assert {number % 5 for number in parts["test"]} == {0}
    assert len(parts["train"]) == 16
    assert not {number % 5 for number in parts["train"]} & {number % 5 for number in parts["test"]}


def test_splits_come_from_a_column_or_a_file(table, tmp_path):
    part = ["train"] * 20 + ["valid"] * 4 + ["test"] * 6
    path = table(smiles=MANY, y=np.arange(30) / 7, split=part)
    data = MoleculeData(path)
    assert data.folds == [0]
    data.setup()
    assert [len(data.datasets[one]) for one in ("train", "val", "test")] == [20, 4, 6]
    drawn = MoleculeData(path, split="random", num_folds=3)
    assert drawn.folds == [0, 1, 2]
    drawn.setup()
    assert len(drawn.datasets["test"]) == 10

    folds = [{"train": list(range(10, 30)), "test": ["set-1", "set-2"]}, {"train": [0, 1], "val": [2], "test": [3]}]
    (tmp_path / "splits.json").write_text(json.dumps(folds))
    given = MoleculeData(path, splits=str(tmp_path / "splits.json"))
    assert given.folds == [0, 1]
    given.setup()
    assert [graph.id for graph in given.datasets["test"]] == ["set-1", "set-2"]
    assert len(given.datasets["train"]) + len(given.datasets["val"]) == 20
    second = MoleculeData(path, splits=str(tmp_path / "splits.json"), fold=1)
    second.setup()
    assert [[graph.id for graph in second.datasets[one]] for one in ("train", "val", "test")] == [
        ["set-1", "set-2"],
        ["set-3"],
        ["set-4"],
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"train": [0], "tests": [1]}', "expected lists train, val and test, got train, tests"),
        ("[]", "expected at least one split, got an empty list"),
        ("{", "not valid JSON"),
        ('{"train": [0, 99], "test": [1]}', "no sample 99; numbers count from 0"),
        ('{"train": [0, 1], "test": [1]}', "1 is in train, too; leave it in one of them"),
        ('{"train": [0, 1, 2, 3], "test": ["set-9999"]}', "no sample 'set-9999'"),
    ],
)
def test_splits_that_are_none(table, tmp_path, content, message):
    (tmp_path / "splits.json").write_text(content)
    with pytest.raises(BadInput, match=message):
        MoleculeData(table(smiles=MANY, y=np.arange(30) / 7), splits=str(tmp_path / "splits.json")).setup()


def test_no_split_of_that_name(table):
    path = table(smiles=MANY, y=np.arange(30) / 7)
    with pytest.raises(BadInput, match="expected the columns scafold, got smiles, y"):
        MoleculeData(path, split="scafold").setup()
    with pytest.raises(BadInput, match="expected random or scaffold where samples have no class, got stratified"):
        MoleculeData(path, split="stratified").setup()
