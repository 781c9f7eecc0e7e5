"""The graph task: every network, exact maps, pictures, and the command line from text files to a run folder."""

import csv
import re
from pathlib import Path

import matplotlib.image
import pytest
import torch
from torch_geometric.data import Batch, Data
from undrawn import drawn, unchosen, undrawn  # noqa: F401

from tasks.__main__ import main
from tasks.graph import GraphTask, MotifData
from tasks.graph.pictures import draw_graph, node_positions

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "graph"


@pytest.fixture(scope="module")
def motifs():
    data = MotifData(train=12, val=4, test=4)
    data.setup()
    return data


def make(data, **options):
    torch.manual_seed(0)
    return GraphTask({**data.spec, **options.pop("spec", {})}, **{"hidden": 8, "layers": 2, **options})


@pytest.mark.parametrize("conv", ["gin", "gcn", "sage", "gat", "pna", "gatv2", "transformer"])
@pytest.mark.parametrize("jk", ["cat", "last", "max", "lstm", None])
def test_networks_train_all_their_weights(motifs, conv, jk):
    task = make(motifs, conv=conv, jk=jk)
    batch = motifs.collate(motifs.datasets["train"])
    logits = task(batch)
    assert logits.shape == (12, 1)
    task.loss(logits, task.target(batch)).backward()
    untrained = [name for name, weight in task.named_parameters() if weight.grad is None or not weight.grad.any()]
    # GAT's attention and the LSTM's attention ignore what all candidates share.
    assert [name for name in untrained if "att" not in name and "bias" not in name] == []


@pytest.mark.parametrize("norm", ["batch_norm", "layer_norm", None])
@pytest.mark.parametrize("conv", ["gin", "gcn", "sage", "gat", "pna"])
def test_a_graph_does_not_depend_on_its_batch_mates_or_its_numbering(motifs, norm, conv):
    task = make(motifs, norm=norm, conv=conv, reduction="attention").eval()
    graphs = motifs.datasets["train"]
    together = task(Batch.from_data_list(graphs))
    alone = torch.cat([task(Batch.from_data_list([graph])) for graph in graphs])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    renumbered = []
    for graph in graphs:
        order = torch.randperm(graph.num_nodes)
        place = order.argsort()
        renumbered.append(graph.clone())
        renumbered[-1].x, renumbered[-1].edge_index = graph.x[order], place[graph.edge_index]
    torch.testing.assert_close(task(Batch.from_data_list(renumbered)), together, atol=1e-5, rtol=1e-5)


def test_options_reach_the_pool_and_the_network(motifs):
    task = make(motifs, conv="sage", hidden=12, layers=3, dropout=0.25, reduction="attention", heads=4)
    assert "heads=4" in str(task.pool)
    assert len(task.encoder.convs) == 3
    assert task.encoder.dropout.p == 0.25
    assert task.encode(motifs.collate(motifs.datasets["val"]))[0].shape[1] == 12
    with pytest.raises(ValueError, match=r"expected conv gin, gcn, sage, .*, nnconv, got 'mlp'; choose one of them"):
        make(motifs, conv="mlp")


def test_features_are_standardised_as_in_training(motifs):
    """Shifted and stretched features, with the spec's numbers for it, give the same result."""
    scale = {"feature_mean": [3.0] * 9, "feature_std": [2.0] * 9}
    batch = motifs.collate(motifs.datasets["test"])
    expected = make(motifs).eval()(batch)
    moved = batch.clone()
    moved.x = batch.x * 2 + 3
    torch.testing.assert_close(make(motifs, spec=scale).eval()(moved), expected)


def test_one_node_alone_can_be_trained_on(motifs):
    graph = motifs.datasets["train"][0].clone()
    graph.x, graph.edge_index, graph.num_nodes = graph.x[:1], torch.empty(2, 0, dtype=torch.long), 1
    task = make(motifs).train()
    loss = task.loss(task(Batch.from_data_list([graph])), graph.y)
    loss.backward()
    assert torch.isfinite(loss)


@pytest.mark.parametrize("reduction", ["mean", "sum", "max", "attention"])
def test_maps_add_up_to_the_logit(motifs, reduction):
    task = make(motifs, reduction=reduction).double().eval()
    batch = motifs.collate(motifs.datasets["train"])
    batch.x = batch.x.double()
    predictions, maps = task.explain(batch)
    sums = torch.stack([nodes.sum(0) for nodes in maps.split(batch.ptr.diff().tolist())])
    torch.testing.assert_close(
        (sums + task.head[-1].bias).sigmoid()[:, 0], predictions[:, 1].double(), atol=1e-6, rtol=0
    )


def test_picture_shows_signs_and_truth(tmp_path, drawn):  # noqa: F811
    """Red for above zero, blue for below, a black ring around truth: looked up in the picture's pixels."""
    edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])

    def pixels(values, truth):
        path = draw_graph(edge_index, torch.tensor(values), tmp_path / "g.png", title="t", truth=torch.tensor(truth))
        picture = matplotlib.image.imread(path)[:, :640, :3]  # without the colour bar
        red = (picture[..., 0] > picture[..., 2] + 0.2).sum()
        blue = (picture[..., 2] > picture[..., 0] + 0.2).sum()
        return int(red), int(blue), int((picture.max(2) < 0.1).sum())

    red, blue, plain = pixels([2.0, 0.0, 0.0], [False] * 3)
    assert red > 100
    assert blue == 0
    red, blue, ringed = pixels([0.0, 0.0, -2.0], [False, True, False])
    assert blue > 100
    assert red == 0
    assert ringed > plain + 100
    assert pixels([0.0, 0.0, 0.0], [False] * 3)[:2] == (0, 0)


def test_pictures_refuse_several_maps(tmp_path):
    with pytest.raises(
        ValueError, match=r"expected one value per node, shape \(N,\), got \(3, 2\); choose one output's map"
    ):
        draw_graph(torch.empty(2, 0, dtype=torch.long), torch.ones(3, 2), tmp_path / "g.png", title="t")


@pytest.mark.parametrize("nodes", [1, 2, 30, 200], ids=str)
@pytest.mark.parametrize("connected", [True, False], ids=["ring", "no edges"])
def test_positions_are_finite_distinct_and_repeatable(nodes, connected):
    start = torch.arange(nodes)
    edge_index = torch.stack([start, (start + 1) % nodes]) if connected else torch.empty(2, 0, dtype=torch.long)
    places = node_positions(edge_index, nodes)
    assert places.shape == (nodes, 2)
    assert len({tuple(place) for place in places.round(6).tolist()}) == nodes
    assert (places == node_positions(edge_index, nodes)).all()


def test_command_line_trains_on_text_files(write_tu, small_graphs, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["tasks"])
    root = write_tu([{**graph, "label": int(graph["label"] > 0)} for graph in small_graphs(40)])
    run = tmp_path / "runs" / "graph" / "mutag" / "version_0"
    flags = [f"--data.root={root}", "--data.name=SMALL", "--data.num_folds=4", f"--run.root={tmp_path / 'runs'}"]
    quick = [
        "--trainer.max_epochs=1",
        "--trainer.enable_progress_bar=false",
        "--outputs.maps=2",
        "--outputs.mistakes=0",
        "--outputs.bootstrap=5",
        "--floors=false",
    ]
    main(["fit", "-c", str(CONFIGS / "mutag.yaml"), *flags, *quick, "--model.reduction=attention", "--model.heads=4"])
    with (run / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    assert list(rows[0]) == ["id", "target", "prediction", "p(0)", "p(1)", "part", "fold", "group"]
    assert all(row["id"].startswith("SMALL-") for row in rows)
    assert len(list((run / "maps").glob("SMALL-*.png"))) == 2
    again = GraphTask.load_from_checkpoint(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert "heads=4" in str(again.pool)


def small_data(kind, write_tu, small_graphs, folder):
    """Flags that put small data of one's own in the place of a config's."""
    if kind == "MoleculeData":
        pytest.importorskip("rdkit")
        (folder / "table.csv").write_text("smiles,y\n" + "".join(f"{'C' * n}O,{n}.5\n" for n in range(1, 21)))
        return [f"--data.root={folder / 'table.csv'}", "--data.target=y", "--data.split=random"]
    if kind == "PyGData":
        ring = torch.tensor([[0, 1, 2], [1, 2, 0]])
        graphs = [Data(x=torch.randn(3, 2), edge_index=ring, edge_attr=torch.rand(3, 2), y=n % 2) for n in range(20)]
        torch.save(graphs, folder / "graphs.pt")
        return [f"--data.dataset={folder / 'graphs.pt'}"]
    if kind == "TUData":
        return [f"--data.root={write_tu(small_graphs())}", "--data.name=SMALL", "--data.num_folds=2"]
    return ["--data.train=8", "--data.val=4", "--data.test=4"]


WHOLE = {
    path: kind[1].rpartition(".")[2]
    for path in sorted(CONFIGS.glob("*.yaml"))
    if (kind := re.search(r"^data:\n  class_path: (\S+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE))
}


def test_all_configs_but_the_overlays_name_their_data():
    assert {path.stem for path in CONFIGS.glob("*.yaml")} - {path.stem for path in WHOLE} == {"match", "pretrain"}


@pytest.mark.parametrize("config", WHOLE, ids=lambda path: path.stem)
def test_configs_run(config, write_tu, small_graphs, tmp_path, monkeypatch):
    """Every config builds its own model and runs one batch, on small data."""
    monkeypatch.setattr("sys.argv", ["tasks"])
    flags = [
        "--trainer.fast_dev_run=true",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
    ]
    flags += small_data(WHOLE[config], write_tu, small_graphs, tmp_path)
    main(["fit", "-c", str(config), f"--run.root={tmp_path / 'runs'}", *flags])


def test_example_runs(tmp_path, monkeypatch, drawn):  # noqa: F811
    import runpy

    example = CONFIGS.parents[1] / "examples" / "graph.py"
    accuracy, hits = runpy.run_path(str(example))["main"](
        train=400, test=100, epochs=8, picture=str(tmp_path / "graph.png")
    )
    assert accuracy > 0.6  # after a few seconds; chance is 0.5
    assert hits > 0.3  # five nodes of 27
    assert (tmp_path / "graph.png").stat().st_size > 10_000


OWN = '''
import torch
from torch_geometric.data import Data
from tasks.graph import GraphData

class Circuits(GraphData):
    """Circuits."""

    def read(self, problems):
        self.classes = ["works", "fails"]
        ends = torch.tensor([[0, 1], [1, 2]])
        labels = [torch.tensor([number % 2]) for number in range(20)]
        return [Data(x=torch.randn(3, 2), edge_index=ends, y=y, id=f"circuit {i}") for i, y in enumerate(labels)]
'''


def test_graphs_of_ones_own_from_the_command_line(tmp_path, monkeypatch):
    """As docs/graph.md says: a class with `read`, named on the command line."""
    (tmp_path / "circuits.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.argv", ["tasks"])
    flags = ["--data=circuits.Circuits", "--data.num_folds=5", "--run.root", str(tmp_path), "--outputs.bootstrap=2"]
    main(
        [
            "fit",
            "-c",
            str(CONFIGS / "motifs.yaml"),
            *flags,
            "--trainer.max_epochs=1",
            "--trainer.enable_progress_bar=false",
        ]
    )
    maps = sorted(path.name for path in (tmp_path / "graph" / "motifs" / "version_0" / "maps").glob("*.png"))
    assert len(maps) == 4
    assert all(name.startswith("circuit_") for name in maps)


def test_page_for_users_of_pyg(motifs):
    """The first example of docs/graph.md runs, and does what it says."""
    page = (CONFIGS.parents[1] / "docs" / "graph.md").read_text()
    code = page.split("```python\n")[1].split("```")[0].replace("GIN(7,", "GIN(9,")
    names = {"torch": torch, "batch": motifs.collate(motifs.datasets["train"])}
    exec(code, names)
    first = names["maps"][: names["batch"].ptr[1]].sum(0) + names["head"].bias
    torch.testing.assert_close(first, names["logits"][0])
