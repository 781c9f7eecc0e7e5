"""PyG's transforms by name: what they add becomes features, nodes that they append are not pooled."""

import csv

import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.transforms import VirtualNode
from undrawn import unchosen, undrawn  # noqa: F401

from tasks.data.problems import BadInput, Problems
from tasks.graph import BondData, GraphTask, TUData
from tasks.graph.transforms import describe_transforms, real, transformed
from tasks.outputs.gallery import Gallery

T = "torch_geometric.transforms"


def bonds(*transform, **options):
    data = BondData(train=12, val=4, test=4, transform=list(transform), **options)
    data.setup()
    return data


def test_eigenvectors_of_the_laplacian_are_features_and_the_same_again():
    """Of I - D^-1/2 A D^-1/2 by numpy, to their signs."""
    laplacian = {"class_path": f"{T}.AddLaplacianEigenvectorPE", "init_args": {"k": 3, "is_undirected": True}}
    data, plain = bonds(laplacian), bonds()
    assert data.spec["channels"] == plain.spec["channels"] + 3
    for graph, before in zip(data.datasets["test"], plain.datasets["test"], strict=True):
        assert torch.equal(graph.x[:, :-3], before.x)
        a = np.zeros((graph.num_nodes, graph.num_nodes))
        a[tuple(graph.edge_index.numpy())] = 1
        scale = a.sum(1) ** -0.5
        values, vectors = np.linalg.eigh(np.eye(len(a)) - scale[:, None] * a * scale)
        apart = np.flatnonzero(np.diff(values)[:3] > 1e-6)  # of equal values the vectors are not unique
        for column in set(apart) & set(apart + 1):
            ours, theirs = graph.x[:, column - 4].double().numpy(), vectors[:, column]
            assert abs(abs(ours @ theirs) - 1) < 1e-5
    again = bonds(laplacian)
    assert all(
        torch.equal(one.x, two.x) for one, two in zip(data.datasets["train"], again.datasets["train"], strict=True)
    )


def test_random_numbers_go_on_as_if_none_were_drawn():
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    expected = torch.rand(2), np.random.rand(2)  # noqa: NPY002
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    bonds({"class_path": f"{T}.AddLaplacianEigenvectorPE", "init_args": {"k": 2}})
    assert torch.equal(torch.rand(2), expected[0])
    assert (np.random.rand(2) == expected[1]).all()  # noqa: NPY002


def test_columns_that_are_written_into_x_stand_behind_the_kinds():
    """Whole numbers stay kinds, one-hot, where a transform would have made floats of them."""
    ring = torch.stack([torch.arange(5), torch.arange(5).roll(1)])
    graph = Data(x=torch.tensor([[6], [7], [6], [8], [6]]), edge_index=ring, id="a")
    found = transformed([graph], describe_transforms(f"{T}.Constant", {"value": 2.0}), Problems("p"))[0]
    assert found.x.dtype == torch.long
    assert found.x.tolist() == graph.x.tolist()
    assert found.encodings.tolist() == [[2.0]] * 5
    assert "encodings" not in graph


def test_a_virtual_node_passes_messages_on_and_is_not_pooled():
    data = bonds(f"{T}.VirtualNode")
    torch.manual_seed(0)
    task = GraphTask(data.spec, conv="gine", hidden=8, layers=3, reduction="attention").double().eval()
    batch = data.collate(data.datasets["train"])
    batch.x, batch.edge_attr = batch.x.double(), batch.edge_attr.double()
    assert int(batch.virtual.sum()) == 12
    assert batch.edge_attr[(batch.virtual[batch.edge_index]).any(0)].eq(0).all()
    logits, maps = task(batch), task.explain(batch)[1]
    assert maps[batch.virtual].eq(0).all()
    sums = torch.stack([nodes.sum(0) for nodes in maps.split(batch.ptr.diff().tolist())])
    torch.testing.assert_close(sums + task.head[-1].bias, logits)
    x, sets = task.encode(batch)
    moved = x.clone()
    moved[batch.virtual] += 5
    assert torch.equal(task.pool(moved, **sets), task.pool(x, **sets))  # not read
    far = batch.clone()
    first = int(batch.ptr[1]) - 1  # the first graph's virtual node
    far.x[first] += 1
    assert not torch.isclose(task(far)[0], logits[0])  # heard
    assert torch.isclose(task(far)[1:], logits[1:]).all()


def test_colours_do_not_see_it():
    """Through a virtual node every node would be everyone's neighbour."""
    data, plain = bonds(f"{T}.VirtualNode", colours=2, degrees=0), bonds(colours=2, degrees=0)
    assert set(plain.spec["colours"]["names"]) <= set(data.spec["colours"]["names"])
    assert len(data.spec["colours"]["names"]) - len(plain.spec["colours"]["names"]) <= 3  # its own


def test_it_is_as_pyg_makes_it():
    data, plain = bonds(f"{T}.VirtualNode", degrees=0), bonds(degrees=0)
    for graph, before in zip(data.datasets["train"], plain.datasets["train"], strict=True):
        expected = VirtualNode()(Data(edge_index=before.edge_index, num_nodes=before.num_nodes))
        assert torch.equal(graph.edge_index, expected.edge_index)
        assert graph.num_nodes == expected.num_nodes
        assert real(graph)[0].num_nodes == before.num_nodes
        assert torch.equal(real(graph)[0].edge_index, before.edge_index)
        assert graph.truth[:-1].tolist() == before.truth.tolist()
        assert not graph.truth[-1]


@pytest.mark.parametrize("coarsen", [None, "topk"])
def test_pictures_tables_and_floors_are_of_the_graph_s_own_nodes(tmp_path, coarsen):
    data, plain = bonds(f"{T}.VirtualNode"), bonds()
    task = GraphTask(data.spec, hidden=8, layers=2, coarsen=coarsen).eval()
    batch = data.collate([data.datasets["test"][number] for number in range(2)])
    for entry, graph in zip(Gallery(tmp_path).add(task, batch, limit=2), plain.datasets["test"], strict=False):
        with entry.files[0].open() as file:
            assert len(list(csv.DictReader(file))) == graph.num_nodes
    rivals = task.rival_maps(batch)["degree"]
    assert rivals[0][-1] == 0
    ours = task.floors(batch)["Weisfeiler-Leman, edges"]
    own = GraphTask(plain.spec, hidden=8, layers=2)
    theirs = own.floors(plain.collate([plain.datasets["test"][number] for number in range(2)]))
    assert [sorted(one.values()) for one in ours] == [sorted(one.values()) for one in theirs["Weisfeiler-Leman, edges"]]


def test_one_graph_of_a_folder_is_transformed_like_the_training_s(write_tu, small_graphs):
    root = write_tu(small_graphs())
    several = [{"class_path": f"{T}.AddRandomWalkPE", "init_args": {"walk_length": 4}}, f"{T}.VirtualNode"]
    data = TUData(str(root), "SMALL", num_folds=3, transform=several)
    task = GraphTask(data.spec, hidden=8, layers=2).eval()
    known = {graph.id: graph for part in data.datasets.values() for graph in part}
    for number in (1, 9):
        graph = task.read(f"{root}/SMALL-{number}")[0]
        expected = known[f"SMALL-{number}"]
        torch.testing.assert_close(graph.x, expected.x)
        assert torch.equal(graph.edge_index, expected.edge_index)
        assert torch.equal(graph.virtual, expected.virtual)


def test_a_molecule_with_a_virtual_node_is_drawn_by_rdkit(tmp_path):
    pytest.importorskip("rdkit")
    from tasks.graph import MoleculeData

    table = tmp_path / "m.csv"
    table.write_text("smiles,y\n" + "".join(f"{'C' * count}O,{count}.5\n" for count in range(1, 21)))
    data = MoleculeData(str(table), num_folds=4, transform=f"{T}.VirtualNode")
    task = GraphTask(data.spec, hidden=8, layers=2).eval()
    entries = Gallery(tmp_path / "maps").add(task, data.collate([data.datasets["test"][0]]), limit=1)
    assert entries[0].picture.suffix == ".svg"
    assert task.read("CCO")[0].num_nodes == 4


def test_graphs_that_a_transform_fails_on_are_named(write_tu, small_graphs):
    graphs = small_graphs()
    too_small = [
        f"SMALL-{number + 1}: AddLaplacianEigenvectorPE: " for number, one in enumerate(graphs) if one["nodes"] < 4
    ]
    options = {"transform": f"{T}.AddLaplacianEigenvectorPE", "transform_args": {"k": 3}}
    with pytest.raises(BadInput) as error:
        TUData(str(write_tu(graphs)), "SMALL", num_folds=2, **options).setup()
    assert too_small
    assert all(line in str(error.value) for line in too_small)
    data = TUData(str(write_tu(graphs)), "SMALL", num_folds=2, on_bad="skip", **options)
    with pytest.warns(UserWarning, match="samples left out"):
        data.setup()
    assert sum(len(part) for part in data.datasets.values()) == 24 - len(too_small)


@pytest.mark.parametrize(
    ("transform", "arguments", "message"),
    [
        (f"{T}.Nothing", None, "transform torch_geometric.transforms.Nothing: expected the path of a class"),
        (f"{T}.AddRandomWalkPE", None, "transform torch_geometric.transforms.AddRandomWalkPE: .*walk_length"),
        ([f"{T}.VirtualNode", f"{T}.ToUndirected"], {"k": 3}, "transform_args are for one transform, got 2"),
        ([{"path": "x"}], None, "transform: expected class_path and init_args, got path"),
    ],
)
def test_what_is_no_transform_is_said(transform, arguments, message):
    with pytest.raises(BadInput, match=message):
        describe_transforms(transform, arguments)


def test_the_command_line_takes_them_and_a_checkpoint_knows_them(tmp_path, monkeypatch):
    from toy import ROOT

    from tasks.__main__ import main

    monkeypatch.setattr("sys.argv", ["tasks"])
    config = ["-c", str(ROOT / "configs" / "graph" / "bonds.yaml"), "--run.root", str(tmp_path)]
    small = ["--data.train=24", "--data.val=8", "--data.test=8", "--trainer.max_epochs=1", "--floors=false"]
    quiet = ["--trainer.enable_progress_bar=false", "--outputs.maps=0", "--outputs.bootstrap=0", "--outputs.every=0"]
    given = [f"--data.transform={T}.AddRandomWalkPE", "--data.transform_args.walk_length=5"]
    main(["fit", *config, *small, *quiet, *given])
    task = GraphTask.load_from_checkpoint(tmp_path / "graph/bonds/version_0/checkpoints/best.ckpt", weights_only=True)
    assert task.spec["transforms"] == [{"path": f"{T}.AddRandomWalkPE", "arguments": {"walk_length": 5}}]
    assert task.spec["channels"] == 9 + 5
    main(["test", *config, *small, *quiet])  # without saying them again
