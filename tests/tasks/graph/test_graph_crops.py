"""Views of graphs: balls, and what is left out, hold together as PyG's own subgraphs do."""

import networkx
import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.utils import from_networkx, to_networkx

from tasks.graph.crops import GraphCrops, keep_nodes


def batch(edges=False):
    made = []
    for number, one in enumerate((networkx.grid_2d_graph(4, 4), networkx.path_graph(9), networkx.empty_graph(1))):
        graph = from_networkx(networkx.convert_node_labels_to_integers(one))
        nodes = one.number_of_nodes()
        data = Data(x=torch.randn(nodes, 3), edge_index=graph.edge_index, y=torch.tensor([number]), id=f"g{number}")
        if data.edge_index is None or not one.number_of_edges():
            data.edge_index = torch.zeros(2, 0, dtype=torch.long)
        if edges:
            data.edge_attr = torch.randn(data.edge_index.shape[1], 2)
        made.append(data)
    return Batch.from_data_list(made)


@pytest.mark.parametrize("edges", [False, True])
def test_kept_nodes_are_pygs_subgraph_of_each_graph(edges):
    whole = batch(edges)
    kept = torch.rand(whole.num_nodes) < 0.6
    kept[-1] = True
    small = keep_nodes(whole, kept)
    expected = Batch.from_data_list(
        [one.subgraph(part) for one, part in zip(whole.to_data_list(), kept.split([16, 9, 1]), strict=True)]
    )
    for name in ("x", "edge_index", "batch", "ptr", "y", *(["edge_attr"] if edges else [])):
        assert torch.equal(small[name], expected[name]), name
    assert small.id == expected.id
    assert small.num_graphs == 3
    assert small.edge_attr is None or edges


def test_a_crop_is_a_ball_of_the_asked_share():
    whole = batch()
    for _ in range(5):
        small = GraphCrops().crop(whole, 0.5, 0.5)
        assert small.ptr.diff().tolist() == [8, round(9 / 2), 1]
        first = Data(edge_index=small.edge_index[:, small.edge_index[0] < 8], num_nodes=8)
        assert networkx.is_connected(to_networkx(first, to_undirected=True))
    assert GraphCrops().crop(whole, 1.0, 1.0) is whole


def test_changes_leave_out_about_their_share_and_the_batch_as_it_was():
    torch.manual_seed(0)
    whole = Batch.from_data_list([batch()[0]] * 60)
    before = [whole.x.clone(), whole.edge_index.clone()]
    fewer = GraphCrops(drop_nodes=0.3, drop_edges=0, mask_features=0).change(whole)
    assert 0.65 < fewer.num_nodes / whole.num_nodes < 0.75
    looser = GraphCrops(drop_nodes=0, drop_edges=0.3, mask_features=0).change(whole)
    assert 0.6 < looser.num_edges / whole.num_edges < 0.8
    pairs = {tuple(pair) for pair in looser.edge_index.T.tolist()}
    assert {(b, a) for a, b in pairs} == pairs  # both ways or not at all
    blank = GraphCrops(drop_nodes=0, drop_edges=0, mask_features=0.3).change(whole)
    assert 0.25 < float((blank.x == 0).all(1).float().mean()) < 0.35
    assert torch.equal(whole.x, before[0])
    assert torch.equal(whole.edge_index, before[1])


def test_every_graph_keeps_a_node():
    for _ in range(20):
        assert (GraphCrops(drop_nodes=0.95).change(batch()).ptr.diff() >= 1).all()


def test_shares_are_shares():
    with pytest.raises(ValueError, match=r"expected a share of drop_edges from 0 and below 1, got 1.0; change it"):
        GraphCrops(drop_edges=1.0)
