"""TU folders are read as PyG reads them, and what is wrong in one is reported at once, by file and line."""

import itertools
import os
import re

import numpy as np
import pytest
import torch
from torch_geometric.datasets import TUDataset

from tasks.data.problems import BadInput, Problems
from tasks.graph import TUData
from tasks.graph.raw import read_tu


def edit(root, key, change, name="SMALL"):
    path = root / name / "raw" / f"{name}_{key}.txt"
    lines = path.read_text().splitlines()
    change(lines)
    path.write_text("\n".join(lines) + "\n")


def put(line, text):
    return lambda lines: lines.__setitem__(line - 1, text)


def everything(data):
    return sorted(itertools.chain(*data.datasets.values()), key=lambda graph: int(graph.id.split("-")[1]))


@pytest.mark.parametrize("labels", [True, False], ids=["labels", "no labels"])
@pytest.mark.parametrize("attributes", [True, False], ids=["attributes", "no attributes"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_reads_what_pyg_reads(write_tu, small_graphs, labels, attributes, seed):
    root = write_tu(small_graphs(seed=seed), labels=labels, attributes=attributes)
    graphs, classes, *_ = read_tu(root, "SMALL", Problems("SMALL"))
    expected = TUDataset(root, "SMALL", use_node_attr=True)
    assert classes == ["-1", "1", "5"]
    assert len(graphs) == len(expected) == 24
    for ours, theirs in zip(graphs, expected, strict=True):
        assert torch.equal(ours.edge_index, theirs.edge_index)
        assert torch.equal(ours.y, theirs.y)
        assert ours.num_nodes == theirs.num_nodes
        assert (ours.x is None) == (not labels and not attributes)
        if ours.x is not None:
            torch.testing.assert_close(ours.x, theirs.x)


@pytest.mark.parametrize("name", ["MUTAG", "PROTEINS", "NCI1", "IMDB-BINARY"])
@pytest.mark.slow
def test_reads_real_data_as_pyg_does(shared_data, tmp_path, name):
    import tarfile

    with tarfile.open(shared_data / "graph" / f"{name}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    graphs, *_ = read_tu(tmp_path, name, Problems(name))
    for ours, theirs in zip(graphs, TUDataset(tmp_path, name, use_node_attr=True), strict=True):
        assert torch.equal(ours.edge_index, theirs.edge_index)
        assert torch.equal(ours.y, theirs.y)
        assert theirs.x is None or torch.equal(ours.x, theirs.x)


def test_order_of_nodes_and_labels_with_gaps(write_tu, small_graphs):
    """The nodes of a graph need not stand together, and a label of a million is one column."""
    graphs = small_graphs(6)
    root = write_tu(graphs)
    before, *_ = read_tu(root, "SMALL", Problems("SMALL"))
    total = sum(graph["nodes"] for graph in graphs)
    order = np.random.default_rng(0).permutation(total)  # line k of the new file is line order[k] of the old
    for key in ("graph_indicator", "node_labels", "node_attributes"):
        edit(root, key, lambda lines: lines.__setitem__(slice(None), [lines[k] for k in order]))
    new = np.empty(total, dtype=int)
    new[order] = np.arange(total)
    edit(
        root,
        "A",
        lambda lines: lines.__setitem__(
            slice(None), [", ".join(str(new[int(cell) - 1] + 1) for cell in line.split(",")) for line in lines]
        ),
    )
    edit(root, "node_labels", lambda lines: lines.__setitem__(slice(None), [{"5": "1000000"}.get(x, x) for x in lines]))
    after, *_ = read_tu(root, "SMALL", Problems("SMALL"))
    for a, b in zip(before, after, strict=True):
        assert a.x.shape == b.x.shape
        assert sorted(a.x.tolist()) == sorted(b.x.tolist())
        ends = [sorted((g.x[i].tolist(), g.x[j].tolist()) for i, j in g.edge_index.t().tolist()) for g in (a, b)]
        assert ends[0] == ends[1]


# What is done to a good folder, the line of the report it must give, and whether leaving graphs out repairs it.
BAD = [
    pytest.param(
        "node_attributes",
        put(2, "nan, 1.0"),
        "SMALL-1: SMALL_node_attributes.txt line 2: expected finite",
        True,
        id="NaN",
    ),
    pytest.param(
        "node_attributes",
        put(2, "0.5, -inf"),
        "SMALL-1: SMALL_node_attributes.txt line 2: expected finite",
        True,
        id="inf",
    ),
    pytest.param(
        "node_attributes",
        put(3, "0.5"),
        "SMALL-1: SMALL_node_attributes.txt line 3: expected 2 numbers with commas between, got '0.5'",
        True,
        id="columns",
    ),
    pytest.param(
        "node_labels",
        put(1, "carbon"),
        "SMALL-1: SMALL_node_labels.txt line 1: expected one integer, got 'carbon'",
        True,
        id="word",
    ),
    pytest.param(
        "node_labels",
        put(1, "1.5"),
        "SMALL-1: SMALL_node_labels.txt line 1: expected one integer, got '1.5'",
        True,
        id="fraction",
    ),
    pytest.param(
        "graph_labels",
        put(4, "?"),
        "SMALL-4: SMALL_graph_labels.txt line 4: expected one integer, got '?'",
        True,
        id="label",
    ),
    pytest.param("A", put(1, "1, 999999"), "SMALL-1: SMALL_A.txt line 1: expected nodes from 1 to", True, id="outside"),
    pytest.param(
        "A", put(1, "0, 1"), "SMALL-1: SMALL_A.txt line 1: expected nodes from 1 to .* got 0", True, id="zero"
    ),
    pytest.param(
        "A",
        put(1, "1, 4"),
        "SMALL-2: SMALL_A.txt line 1: arc from graph 1 to graph 2; expected both ends in one",
        True,
        id="bridge",
    ),
    pytest.param(
        "graph_labels",
        lambda lines: lines.append("1"),
        "SMALL-25: has no nodes; give it some in SMALL_graph_indicator.txt",
        True,
        id="no nodes",
    ),
    pytest.param(
        "A",
        put(2, "1; 2"),
        "SMALL_A.txt line 2: expected 2 integers with commas between, got '1; 2'; correct",
        False,
        id="arc",
    ),
    pytest.param(
        "A", put(2, "-5, 999999"), "SMALL_A.txt line 2: expected nodes from 1 to .* got -5", False, id="lost arc"
    ),
    pytest.param(
        "graph_indicator",
        put(2, "x"),
        "SMALL_graph_indicator.txt line 2: expected one integer, got 'x'",
        False,
        id="owner",
    ),
    pytest.param(
        "graph_indicator",
        put(1, "99"),
        "SMALL_graph_indicator.txt line 1: expected a graph from 1 to 24, .* got 99",
        False,
        id="unknown graph",
    ),
    pytest.param(
        "node_labels",
        lambda lines: lines.pop(),
        r"SMALL_node_labels.txt: expected \d+ lines, one per node as in SMALL_graph_ind",
        False,
        id="count",
    ),
    pytest.param("graph_labels", lambda lines: lines.clear(), "SMALL_graph_labels.txt: is empty", False, id="empty"),
]


@pytest.mark.parametrize(("key", "change", "message", "skippable"), BAD)
def test_names_file_and_line(write_tu, small_graphs, key, change, message, skippable):
    root = write_tu(small_graphs())
    edit(root, key, change)
    with pytest.raises(BadInput, match=message):
        TUData(str(root), "SMALL", num_folds=2).setup()
    data = TUData(str(root), "SMALL", num_folds=2, on_bad="skip")
    if not skippable:
        with pytest.raises(BadInput, match=message):
            data.setup()
        return
    with pytest.warns(UserWarning, match=message) as caught:
        data.setup()
    left_out = int(re.search(r"(\d) of (24|25) samples left out", str(caught[0].message))[1])
    assert left_out == (2 if "bridge" in message or "graph 1 to graph 2" in message else 1)
    graphs = everything(data)
    assert len(graphs) in (24 - left_out, 25 - left_out)
    assert re.match(r"[A-Z]+-\d+", message)[0] not in [graph.id for graph in graphs]
    assert all(torch.isfinite(graph.x).all() for graph in graphs)


def test_one_report_holds_everything(write_tu, small_graphs):
    root = write_tu(small_graphs())
    edit(root, "node_labels", put(1, "x"))
    edit(root, "graph_labels", put(5, "y"))
    edit(root, "node_attributes", put(30, "nan, nan"))
    edit(root, "graph_labels", put(2, "7"))  # the only graph of its class
    with pytest.raises(BadInput) as caught:
        TUData(str(root), "SMALL", num_folds=2).setup()
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("raw: 4 problems found")
    assert "class 7: has no training sample; add some, or remove the class" in lines[1]
    assert [line.split(":")[1].strip() for line in lines[2:5]] == [
        "SMALL_graph_labels.txt line 5",
        "SMALL_node_labels.txt line 1",
        "SMALL_node_attributes.txt line 30",
    ]
    assert "--data.on_bad skip" in lines[5]


def test_a_class_that_loses_its_graphs_is_missed(write_tu, small_graphs):
    root = write_tu(small_graphs())
    edit(root, "graph_labels", put(2, "7"))
    edit(root, "A", put(1, "1, 4"))  # an arc between the graphs 1 and 2
    with pytest.raises(BadInput, match=r"(?s)class 7: has no training sample.*they cannot be skipped"):
        TUData(str(root), "SMALL", num_folds=2, on_bad="skip").setup()


def test_missing_files_are_all_named(write_tu, small_graphs):
    root = write_tu(small_graphs())
    raw = root / "SMALL" / "raw"
    (raw / "SMALL_A.txt").unlink()
    (raw / "SMALL_graph_labels.txt").unlink()
    with pytest.raises(
        BadInput, match=r"(?s)SMALL_A.txt: does not exist; expected it in .*SMALL_graph_labels.txt: does"
    ):
        TUData(str(root), "SMALL").setup()
    with pytest.raises(BadInput, match=r"OTHER.raw: does not exist; expected the TU layout, OTHER/raw/OTHER_A.txt"):
        TUData(str(root), "OTHER").setup()


def test_writes_nothing_beside_the_data(write_tu, small_graphs):
    root = write_tu(small_graphs())
    before = sorted(root.rglob("*"))
    for path in before:
        path.chmod(0o555)
    try:
        TUData(str(root), "SMALL", num_folds=2).setup()
        assert sorted(root.rglob("*")) == before
    finally:
        for path in before:
            path.chmod(0o755)
    assert os.listdir(root / "SMALL") == ["raw"]


def test_regression_reads_graph_attributes(write_tu, small_graphs):
    root = write_tu(small_graphs(10))
    values = np.random.default_rng(0).normal(5, 2, size=(10, 2)).round(4)
    text = "\n".join(f"{a}, {b}" for a, b in values)
    (root / "SMALL" / "raw" / "SMALL_graph_attributes.txt").write_text(text)
    data = TUData(str(root), "SMALL", num_folds=5, regression=True)
    assert data.spec["kind"] == "regression"
    assert data.spec["classes"] == ["attribute 1", "attribute 2"]
    assert everything(data)[3].y.tolist() == [pytest.approx(values[3].tolist())]
    train = values[[int(graph.id.split("-")[1]) - 1 for graph in data.datasets["train"]]]
    assert data.spec["target_mean"] == pytest.approx(train.mean(0).tolist(), rel=1e-5)
    assert data.spec["target_std"] == pytest.approx(train.std(0).tolist(), rel=1e-5)
