"""The walks of docs/graph.md, by its own commands: a table of SMILES, and a list of `Data` with edge features."""

import csv
import json
import re
import shlex

import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from toy import ROOT
from undrawn import unchosen, undrawn  # noqa: F401

from tasks.__main__ import main

CHAINS = [f"{'C' * n}{end}" for n in range(1, 15) for end in ("", "O", "N", "Cl", "=O")]
QUICK = [
    "--data.num_folds=3",
    "--model.hidden=8",
    "--trainer.max_epochs=3",
    "--outputs.maps=2",
    "--outputs.bootstrap=5",
]


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands(heading):
    """The words of each command in the first block below a heading, with the config where it is."""
    page = (ROOT / "docs" / "graph.md").read_text(encoding="utf-8")
    block = re.search(rf"## {heading}\n.*?```\n(.*?)```", page, flags=re.DOTALL)[1]
    lines = [line.partition(" # ")[0] for line in block.splitlines()]
    return [[word.replace("configs/", f"{ROOT}/configs/") for word in shlex.split(line)[3:]] for line in lines]


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_of_molecules(work, capsys):
    """Fit, look at the report, explain molecules; then predict a table without targets."""
    rows = [f"{smiles},{smiles.count('C') / 2 - 1.3 * smiles.count('O')}" for smiles in CHAINS]
    (work / "solubility.csv").write_text("\n".join(["smiles,logS", *rows]) + "\n")
    (work / "new.csv").write_text("name,smiles,price,on stock\nfirst,CCCCS,7.5,1\nsecond,CCBr,8.5,0\n")
    fit, look, explain, predict = commands("Molecules")
    run = work / "runs" / "graph" / "molecules" / "version_0"

    main([*fit, *QUICK])
    assert f"Look at: {look[0]}" in capsys.readouterr().out
    assert (work / look[0]).is_file()
    assert "rmse" in json.loads((run / "summary.json").read_text())["test"]

    main(explain)
    said = capsys.readouterr().out
    assert said.startswith("CCO\nprediction ")
    first = table(run / "explained_0" / "predictions.csv")[0]
    assert (first["id"], first["target logS"]) == ("CCO", "")
    assert [row["name"] for row in table(run / "explained_0" / "CCO_map.csv")] == ["C", "C", "O"]
    with pytest.raises(SystemExit, match=r"these inputs cannot be used:\n  C1CC: does not parse as SMILES"):
        main([*explain[: explain.index("--input") + 1], "C1CC", "(", "CO"])

    main([*predict, "--model.hidden=8"])
    (found,) = [path for path in work.rglob("version_*/predictions.csv") if path.parent != run]
    assert [(row["id"], row["smiles"], row["target logS"], row["part"]) for row in table(found)] == [
        ("first", "CCCCS", "", "predict"),
        ("second", "CCBr", "", "predict"),
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
    fit, embed, *_ = commands("Graphs that PyG has")
    main([*fit, *QUICK])
    main([*embed, "--data.num_folds=3", "--format=npz"])
    found = np.load(work / "runs" / "graph" / "pyg" / "version_0" / "embeddings.npz")
    assert found["vector"].shape == (45, 8)
    assert set(found["target"].tolist()) == {"0", "1", "2"}


def test_a_model_of_other_graphs_reads_no_table(work):
    ends = torch.tensor([[0, 1], [1, 2]])
    torch.save(
        [Data(x=torch.rand(3, 2), edge_index=ends, y=torch.tensor([n % 2])) for n in range(20)], work / "graphs.pt"
    )
    same = ["--model=tasks.graph.GraphTask", "--model.hidden=8"]
    main(["fit", *same, "--data=tasks.graph.PyGData", "--data.dataset=graphs.pt", "--floors=false", *QUICK])
    (work / "new.csv").write_text("smiles\nCCO\n")
    with pytest.raises(SystemExit, match="expected a model that was trained on molecules"):
        main(["predict", *same, "--data=tasks.graph.MoleculeData", "--data.root=new.csv"])


def test_labels_with_gaps_go_through_everything(work):
    """Loss, metrics, intervals, floors, maps, mistakes, tables, page: none of them minds what is not known."""
    rows = [
        f"{one},{n % 2},{'' if n % 3 == 0 else int('O' in one)},{'' if n % 4 else 1}" for n, one in enumerate(CHAINS)
    ]
    (work / "assays.csv").write_text("\n".join(["smiles,a,b,c", *rows]) + "\n")
    same = ["-c", f"{ROOT}/configs/graph/molecules.yaml", "--data.root=assays.csv", "--data.num_folds=3"]
    main(["fit", *same, "--model.balance=true", "--permutations=5", *QUICK])
    run = work / "runs" / "graph" / "molecules" / "version_0"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["kind"] == "multilabel"
    found = table(run / "predictions.csv")
    cells = {row["smiles"]: [row[f"target {name}"] for name in "abc"] for row in found}
    expected = {row.split(",")[0]: row.split(",")[1:] for row in rows}
    assert all(cells[one] == expected[one] for one in cells)
    known = [sum(row[f"target {name}"] != "" for row in found) for name in "abc"]
    assert [summary["per_class"][name]["samples"] for name in "abc"] == known
    assert summary["per_class"]["c"]["auroc"] is None  # all that are known are 1
    both = [summary["per_class"][name]["auroc"] for name in "ab"]
    assert np.mean(both) == pytest.approx(summary["test"]["auroc"]["value"])
    floors = {row["floor"]: row for row in table(run / "floors.csv")}
    assert float(floors["forest, fingerprints"]["auroc"]) > 0.5
    assert "By class" in (run / "report.html").read_text()
    main(["embed", *same, "--model.hidden=8", "--ckpt_path=best", "--format=npz"])
    vectors = np.load(run / "embeddings.npz")
    assert np.isnan(vectors["target c"]).sum() == sum(row.endswith(",") for row in rows)
