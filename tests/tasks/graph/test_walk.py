"""The walks of docs/graph.md: a table of SMILES, and a list of `Data` with edge features, through the commands."""

import csv
import json

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from tasks.__main__ import main

CHAINS = [f"{'C' * n}{end}" for n in range(1, 15) for end in ("", "O", "N", "Cl", "=O")]


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_of_molecules(work, capsys):
    """Fit, report, explain one molecule; then predict a table without targets."""
    rows = [f"{smiles},{smiles.count('C') - 2 * smiles.count('O')}" for smiles in CHAINS]
    (work / "solubility.csv").write_text("\n".join(["smiles,logS", *rows]) + "\n")
    own = [
        "--data.num_folds=3",
        "--model.hidden=8",
        "--trainer.max_epochs=3",
        "--outputs.maps=2",
        "--outputs.bootstrap=5",
    ]
    main(["fit", "--model=tasks.graph.GraphTask", "--data=tasks.graph.MoleculeData", "--data.root=solubility.csv",
          "--model.conv=gine", "--data.task=regression", "--run.name=solubility", *own])  # fmt: skip
    run = work / "runs" / "solubility" / "version_0"
    assert "Look at: runs/solubility/version_0/report.html" in capsys.readouterr().out
    assert (run / "report.html").is_file()
    assert "rmse" in json.loads((run / "summary.json").read_text())["test"]

    main(["explain", "--run.name=solubility", "--input", "CCO", "c1ccccc1"])
    said = capsys.readouterr().out
    assert said.startswith("CCO\nprediction ")
    first = table(run / "explained_0" / "predictions.csv")[0]
    assert first["id"] == "CCO"
    assert first["target logS"] == ""
    nodes = table(run / "explained_0" / "CCO_map.csv")
    assert [row["name"] for row in nodes] == ["C", "C", "O"]
    with pytest.raises(SystemExit, match=r"these inputs cannot be used:\n  C1CC: does not parse as SMILES"):
        main(["explain", "--run.name=solubility", "--input", "C1CC", "(", "CO"])

    (work / "new.csv").write_text("name,smiles\nfirst,CCCCS\nsecond,CCBr\n")
    main(["predict", "--model=tasks.graph.GraphTask", "--data=tasks.graph.MoleculeData", "--data.root=new.csv",
          "--ckpt_path=best", "--run.name=solubility", "--trainer.logger=true"])  # fmt: skip
    (found,) = [path for path in work.rglob("version_*/predictions.csv") if path.parent != run]
    assert [(row["id"], row["target logS"], row["part"]) for row in table(found)] == [
        ("first", "", "predict"),
        ("second", "", "predict"),
    ]


def test_a_list_of_graphs_with_edge_features(work):
    """Fit, then a vector for every graph."""
    start = torch.arange(6)
    ring = torch.stack([torch.cat([start, (start + 1) % 6]), torch.cat([(start + 1) % 6, start])])
    graphs = []
    for number in range(45):
        bonds = torch.randint(1 + number % 3, (6,), generator=torch.Generator().manual_seed(number))
        graphs.append(Data(edge_index=ring, edge_attr=bonds.repeat(2), y=torch.tensor([number % 3]), num_nodes=6))
    torch.save(graphs, work / "graphs.pt")
    same = ["--model=tasks.graph.GraphTask", "--data=tasks.graph.PyGData", "--data.dataset=graphs.pt",
            "--model.conv=gine", "--data.num_folds=3", "--model.hidden=8"]  # fmt: skip
    main(["fit", *same, "--trainer.max_epochs=2", "--outputs.maps=0", "--outputs.bootstrap=0", "--floors=false"])
    main(["embed", *same, "--ckpt_path=best", "--format=npz"])
    found = np.load(work / "runs" / "run" / "version_0" / "embeddings.npz")
    assert found["vector"].shape == (45, 8)
    assert set(found["target"].tolist()) == {"0", "1", "2"}


def test_a_model_of_other_graphs_reads_no_table(work):
    graphs = [
        Data(x=torch.rand(3, 2), edge_index=torch.tensor([[0, 1], [1, 2]]), y=torch.tensor([n % 2])) for n in range(20)
    ]
    torch.save(graphs, work / "graphs.pt")
    main(["fit", "--model=tasks.graph.GraphTask", "--data=tasks.graph.PyGData", "--data.dataset=graphs.pt",
          "--data.num_folds=3", "--model.hidden=8", "--trainer.max_epochs=1", "--outputs.maps=0",
          "--outputs.bootstrap=0", "--floors=false"])  # fmt: skip
    (work / "new.csv").write_text("smiles\nCCO\n")
    with pytest.raises(SystemExit, match="expected a model that was trained on molecules"):
        main(["predict", "--model=tasks.graph.GraphTask", "--data=tasks.graph.MoleculeData", "--data.root=new.csv"])
