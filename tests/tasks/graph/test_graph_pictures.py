"""Pictures: large graphs laid out rightly, molecules as RDKit draws them, edges and nodes by their names."""

import re
from xml.etree import ElementTree

import matplotlib.image
import networkx
import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from tasks.data.problems import BadInput
from tasks.graph import BondData, GraphTask, TUData
from tasks.graph.layout import node_positions
from tasks.graph.names import Kinds, edge_kinds, node_names, one_way, read_names, symbol
from tasks.graph.pictures import draw_graph
from tasks.outputs.gallery import Gallery


def arcs(graph):
    return torch.tensor(list(graph.edges)).reshape(-1, 2).t()


LARGE = {
    "grid": networkx.convert_node_labels_to_integers(networkx.grid_2d_graph(20, 15)),
    "near": networkx.random_geometric_graph(700, 0.07, seed=1),
    "tree": networkx.random_labeled_tree(1500, seed=1),
    "star": networkx.star_graph(400),
    "hubs": networkx.barabasi_albert_graph(2000, 2, seed=1),
    "none": networkx.empty_graph(300),
    "pairs": networkx.Graph([(2 * k, 2 * k + 1) for k in range(100)]),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_graphs_have_distinct_places_that_are_the_same_again(name):
    graph = LARGE[name]
    places = node_positions(arcs(graph), len(graph))
    assert places.shape == (len(graph), 2)
    assert np.isfinite(places).all()
    assert len({tuple(place) for place in places.round(6).tolist()}) == len(graph)
    assert (places == node_positions(arcs(graph), len(graph))).all()


@pytest.mark.parametrize(("name", "least"), [("grid", 0.95), ("near", 0.9), ("tree", 0.8)])
def test_places_are_as_far_apart_as_there_are_edges_between(name, least):
    graph = LARGE[name]
    graph = graph.subgraph(max(networkx.connected_components(graph), key=len))
    graph = networkx.convert_node_labels_to_integers(graph)
    places = node_positions(arcs(graph), len(graph))
    steps = networkx.single_source_shortest_path_length(graph, 0)
    far = np.array([steps[node] for node in range(len(graph))])
    assert np.corrcoef(far, np.linalg.norm(places - places[0], axis=1))[0, 1] > least
    first, second = arcs(graph).numpy()
    assert 0.5 < np.median(np.linalg.norm(places[first] - places[second], axis=1)) < 2


def test_parts_stand_side_by_side():
    """Three paths and single nodes, whose boxes do not overlap."""
    graph = networkx.disjoint_union_all([networkx.path_graph(count) for count in (120, 60, 30, 1, 1)])
    places = node_positions(arcs(graph), len(graph))
    boxes = [(places[list(part)].min(0), places[list(part)].max(0)) for part in networkx.connected_components(graph)]
    for one, (low, high) in enumerate(boxes):
        for lowest, highest in boxes[one + 1 :]:
            assert ((low > highest) | (lowest > high)).any()


def test_of_large_graphs_the_strongest_are_named(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr("matplotlib.axes.Axes.annotate", lambda self, text, place, **_: told.append(text))
    values = torch.zeros(200)
    values[[7, 50]] = torch.tensor([-3.0, 2.0])
    ring = torch.stack([torch.arange(200), torch.arange(200).roll(1)])
    draw_graph(ring, values, tmp_path / "a.png", title="t")
    draw_graph(ring, values, tmp_path / "b.png", title="t", names=["C"] * 200)
    assert told == ["7", "50", "C 7", "C 50"]


def test_edges_look_like_what_they_are(tmp_path):
    """A triple bond has more ink than a single one, and kinds that are no bonds stand in a legend."""
    line = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])

    def ink(kind, names, edge_index=line):
        kinds = Kinds(torch.full((edge_index.shape[1],), kind), names)
        path = draw_graph(edge_index, torch.zeros(3), tmp_path / "g.png", title="", kinds=kinds)
        picture = matplotlib.image.imread(path)[:, :640, :3]
        return int((picture < 0.75).sum()), int((picture[-50:] < 0.75).sum())

    bonds = ["single", "double", "triple"]
    single, double, triple = (ink(kind, bonds)[0] for kind in range(3))
    assert single < double < triple
    assert ink(1, bonds)[1] == 0
    assert ink(1, ["calls", "reads"])[1] > 100
    there = torch.tensor([[0, 1], [1, 2]])
    assert ink(0, bonds, there)[0] > single  # arrows


def test_arcs_without_a_way_back_are_known():
    edge_index = torch.tensor([[0, 1, 2, 3, 4], [1, 0, 3, 4, 4]])
    assert one_way(edge_index).tolist() == [False, False, True, True, False]
    assert one_way(torch.empty(2, 0, dtype=torch.long)).tolist() == []


def test_elements_and_names():
    rdkit = pytest.importorskip("rdkit.Chem")
    table = rdkit.GetPeriodicTable()
    assert [symbol(number) for number in range(1, 119)] == [table.GetElementSymbol(number) for number in range(1, 119)]
    assert symbol(0) == "0"
    assert symbol(119) == "119"
    assert node_names(Data(z=torch.tensor([6, 8, 1]), num_nodes=3), {}) == ["C", "O", "H"]


def test_a_file_says_what_node_labels_mean(write_tu, small_graphs, tmp_path):
    (tmp_path / "names.txt").write_text("3 6\n\n4, carbonyl\n9: unused\n")
    root = write_tu(small_graphs(12))
    data = TUData(str(root), "SMALL", num_folds=2, node_names=str(tmp_path / "names.txt"))
    names = {0: "C", 1: "carbonyl", 2: "5"}
    for graph in data.spec and data.datasets["train"]:
        assert node_names(graph, data.spec) == [names[column] for column in graph.x[:, 2:].argmax(1).tolist()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "node_names .*names.txt: no such file; expected a line for each label, such as 0 C"),
        ("0 C\nnitrogen\n", "names.txt line 2: expected a label and its name, such as 0 C, got 'nitrogen'"),
    ],
)
def test_what_is_wrong_with_names_is_said(tmp_path, text, message):
    if text is not None:
        (tmp_path / "names.txt").write_text(text)
    with pytest.raises(BadInput, match=message):
        read_names(str(tmp_path / "names.txt"))


def test_kinds_of_edges_come_from_the_data(write_tu, small_graphs):
    graphs = small_graphs(12)
    for graph in graphs:
        graph["edge_labels"] = [number % 2 + 1 for number in range(len(graph["edges"]))]
    root = write_tu(graphs)
    (root / "SMALL" / "raw" / "README.txt").write_text("Edge labels:\n\n  1  single\n  2  double\n")
    data = TUData(str(root), "SMALL", num_folds=2)
    for graph in data.spec and data.datasets["train"]:
        kinds = edge_kinds(graph, data.spec)
        assert kinds.names == ["single", "double"]
        assert torch.equal(kinds.of, graph.edge_attr[:, 1].long())
    bonds = BondData(train=4, val=2, test=2)
    assert edge_kinds(bonds.spec and bonds.datasets["train"][0], bonds.spec).names == ["single", "double"]
    assert edge_kinds(Data(edge_index=torch.zeros(2, 1).long()), bonds.spec) is None
    numbers = {"edge_features": 2, "features": {"edges": None}}
    assert edge_kinds(Data(edge_attr=torch.rand(3, 2)), numbers) is None
    kinds = edge_kinds(Data(edge_attr=torch.eye(3)), {"edge_features": 3, "features": {"edges": [[1, 2, 4]]}})
    assert (kinds.of.tolist(), kinds.names) == ([0, 1, 2], ["1", "2", "4"])


def test_a_graph_is_found_in_its_folder_too(write_tu, small_graphs):
    """As it is tempting to write: DIR/SMALL/SMALL-3 for DIR/SMALL/raw."""
    root = write_tu(small_graphs())
    data = TUData(str(root), "SMALL", num_folds=3)
    task = GraphTask(data.spec, hidden=8, layers=2)
    assert torch.equal(task.read(f"{root}/SMALL/SMALL-3")[0].x, task.read(f"{root}/SMALL-3")[0].x)


@pytest.fixture
def chemistry():
    return pytest.importorskip("tasks.graph.chemistry", exc_type=ImportError)


def test_a_molecule_has_the_colours_of_its_atoms(chemistry, tmp_path):
    """Read from the SVG: the atom for in red, the one against in blue, the bond between in neither; its words."""
    from tasks.graph.molecule_pictures import draw_molecule

    values = torch.tensor([2.0, -2.0, 0.0])
    path = draw_molecule("CCO", values, tmp_path / "m.svg", title="a < b\n" + 90 * "x", label="part & more")
    root = ElementTree.parse(path).getroot()
    words = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert words[0] == "a < b"
    assert len(words[1]) < 70
    assert {"2", "0", "−2", "part & more"} <= set(words)
    text = path.read_text()

    def fill(name):
        found = re.search(rf"<ellipse[^>]*class='{name}'[^>]*fill:#(\w\w)(\w\w)(\w\w)", text) or re.search(
            rf"<path class='{name}'[^>]*fill:#(\w\w)(\w\w)(\w\w)", text
        )
        return [int(part, 16) for part in found.groups()]

    red, _, blue = fill("atom-0")
    assert red > blue + 100
    red, _, blue = fill("atom-1")
    assert blue > red + 100
    red, green, blue = fill("bond-0 atom-0 atom-1")
    assert max(red, green, blue) - min(red, green, blue) < 8


def test_the_page_shows_molecules_as_svg_and_other_graphs_as_png(chemistry, tmp_path):
    graphs = [chemistry.molecule_graph(smiles) for smiles in ("CCO", "c1ccccc1", "[Na+].[Cl-]")]
    assert all(graph.smiles for graph in graphs)
    graphs.append(graphs[0].clone())
    graphs[3].edge_index = torch.tensor([[0, 2, 1, 0], [2, 0, 0, 1]])  # not in the order of its SMILES
    for number, graph in enumerate(graphs):
        graph.id, graph.y, graph.x = f"m {number}", torch.tensor([number % 2]), graph.x[:, :4].float()
    spec = {"kind": "binary", "classes": ["a", "b"], "channels": 4, "feature_mean": [0.0] * 4, "feature_std": [1.0] * 4}
    spec |= {"class_counts": [2, 2], "degree_histogram": [1, 2]}
    task = GraphTask(spec, hidden=8, layers=2).eval()
    gallery = Gallery(tmp_path / "maps")
    entries = gallery.add(task, Batch.from_data_list(graphs), limit=4)
    assert [entry.picture.name for entry in entries] == ["m_0.svg", "m_1.svg", "m_2.svg", "m_3.png"]
    page = gallery.write(task).read_text()
    assert 'src="m_0.svg"' in page
    assert 'src="m_3.png"' in page
    assert all((tmp_path / "maps" / f"m_{number}_map.csv").is_file() for number in range(4))
    again = gallery.add(task, Batch.from_data_list(graphs[:1]), limit=1)
    assert again[0].picture.name == "m_0-2.svg"
