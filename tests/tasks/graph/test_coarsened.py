"""Hierarchical pooling: its own formula, one graph at a time; and maps that stay exact and on the input's nodes."""

import math
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GCN, GIN, ASAPooling, SAGPooling
from torch_geometric.nn.pool.select import SelectTopK

from tasks.commands.cli import plan
from tasks.graph import GraphTask
from tasks.graph.coarsened import COARSENINGS, CoarsenedGNN, Select
from tasks.maps.other_maps import grad_cam

SPEC = {"kind": "multiclass", "classes": ["a", "b", "c"], "channels": 4}
SPEC |= {"feature_mean": [0.5] * 4, "feature_std": [2.0] * 4, "degree_histogram": [3, 5, 8, 4, 2]}
EACH = pytest.mark.parametrize("coarsen", list(COARSENINGS))


def graph(nodes, edges, seed):
    """A random graph without two equal nodes, so that no score is a tie."""
    generator = torch.Generator().manual_seed(seed)
    ends = torch.randint(nodes, (2, edges), generator=generator)
    ends = ends[:, ends[0] != ends[1]]
    x = torch.randn(nodes, 4, generator=generator, dtype=torch.float64)
    both = torch.cat([ends, ends.flip(0)], 1).unique(dim=1)
    return Data(x=x, edge_index=both, y=torch.tensor([seed % 3]), id=f"graph {seed}", num_nodes=nodes)


def graphs():
    """Of several sizes, one of them a single node, one without an edge."""
    return [graph(24, 26, 0), graph(1, 0, 1), graph(6, 0, 2), graph(15, 15, 3), graph(2, 1, 4)]


def make(**options):
    torch.manual_seed(0)
    task = GraphTask(SPEC, **{"hidden": 8, "layers": 3, "coarsen": "topk", **options}).double()
    for buffer in task.encoder.buffers():  # norms that have seen something
        if buffer.ndim:
            buffer.uniform_(0.5, 1.5)
    return task.eval()


def test_top_k_is_its_formula():
    """Gao and Ji 2019, one graph, written with a dense adjacency matrix (GCN without norm)."""
    torch.manual_seed(0)
    network = CoarsenedGNN(GCN(4, 8, num_layers=3), "topk", 0.5).double()
    one = graph(11, 14, 0)
    x, a, kept = one.x, torch.zeros(11, 11, dtype=torch.float64), torch.arange(11)
    a[one.edge_index[1], one.edge_index[0]] = 1
    for number, conv in enumerate(network.gnn.convs):
        loops = a + torch.eye(len(a), dtype=a.dtype)
        scale = loops.sum(1).rsqrt()
        x = scale[:, None] * (loops @ (scale[:, None] * (x @ conv.lin.weight.T))) + conv.bias
        if number < 2:
            x = x.relu()
            p = network.pools[number].select.weight[0]
            score = (x @ p / p.norm()).tanh()
            best = score.argsort(descending=True)[: math.ceil(len(x) / 2)]
            x, a, kept = x[best] * score[best, None], a[best][:, best], kept[best]
    found, places = network(one.x, one.edge_index, torch.zeros(11, dtype=torch.long))
    assert torch.equal(places, kept)
    torch.testing.assert_close(found, x)


@EACH
@pytest.mark.parametrize(("conv", "jk"), [("gin", "cat"), ("gcn", "lstm"), ("gat", None)])
def test_all_weights_are_trained(coarsen, conv, jk):
    task = make(coarsen=coarsen, jk=jk, conv=conv).train()
    batch = Batch.from_data_list(graphs())
    task.loss(task(batch), task.target(batch)).backward()
    wanted = [(name, weight.grad) for name, weight in task.named_parameters() if weight.requires_grad]
    assert [name for name, slope in wanted if slope is None or not slope.isfinite().all()] == []
    idle = [name for name, slope in wanted if not slope.any() and "att" not in name and "bias" not in name]
    assert idle == []


@EACH
@pytest.mark.parametrize(("conv", "norm"), [("gin", "batch_norm"), ("gcn", "layer_norm"), ("pna", None)])
def test_a_graph_does_not_depend_on_its_batch_mates(coarsen, conv, norm):
    """Also where scores are equal: nodes whose ReLUs are all off, and clusters that hold the whole graph."""
    task = make(coarsen=coarsen, conv=conv, norm=norm)
    together = task(Batch.from_data_list(graphs()))
    alone = torch.cat([task(Batch.from_data_list([one])) for one in graphs()])
    torch.testing.assert_close(together, alone)


@EACH
def test_a_graph_does_not_depend_on_its_numbering(coarsen):
    """Without ties: no activation is off."""
    task = make(coarsen=coarsen, conv="gcn", norm=None)
    task.encoder.gnn.act = torch.nn.Softplus()
    renumbered = graphs()
    for one in renumbered:
        order = torch.randperm(one.num_nodes)
        one.x, one.edge_index = one.x[order], order.argsort()[one.edge_index]
    torch.testing.assert_close(task(Batch.from_data_list(renumbered)), task(Batch.from_data_list(graphs())))


def test_the_choice_is_pygs_where_no_scores_are_equal():
    torch.manual_seed(0)
    for ratio in (0.01, 0.3, 0.5, 0.9):
        theirs, ours = SelectTopK(4, ratio), Select(4, ratio)
        ours.load_state_dict(theirs.state_dict())
        batch = Batch.from_data_list(graphs())
        expected, found = theirs(batch.x, batch.batch), ours(batch.x, batch.batch)
        assert torch.equal(found.node_index, expected.node_index)
        assert torch.equal(found.cluster_index, expected.cluster_index)
        torch.testing.assert_close(found.weight, expected.weight)
        assert (found.num_nodes, found.num_clusters) == (expected.num_nodes, expected.num_clusters)


def test_of_equal_scores_the_first_stay():
    batch = torch.arange(8).repeat_interleave(40)
    found = Select(1, 0.25)(torch.zeros(320), batch).node_index
    assert torch.equal(found, torch.arange(320)[torch.arange(320) % 40 < 10])


@EACH
def test_nan_stays_in_its_graph(coarsen):
    task, broken = make(coarsen=coarsen), graphs()
    broken[3].x[2, 1] = torch.nan
    logits = task(Batch.from_data_list(broken))
    others = [0, 1, 2, 4]
    torch.testing.assert_close(logits[others], task(Batch.from_data_list(graphs()))[others])
    assert logits[3].isnan().all()


@EACH
@pytest.mark.parametrize("ratio", [0.01, 0.5, 0.8])
def test_the_share_of_nodes_that_stays_is_rounded_up(coarsen, ratio):
    task = make(coarsen=coarsen, ratio=ratio)
    batch = Batch.from_data_list(graphs())
    _, sets = task.encode(batch)
    left = [int(mask.sum()) for mask in task.to_inputs(sets["mask"], batch)]
    assert left == [math.ceil(ratio * math.ceil(ratio * one.num_nodes)) for one in graphs()]


def test_what_cannot_be_is_said():
    for ratio in (0, 1.0, -0.5, 3):
        with pytest.raises(ValueError, match=f"expected a ratio between 0 and 1, .* got {ratio}; change it"):
            make(ratio=ratio)
    with pytest.raises(ValueError, match="expected two layers or more, to coarsen between them, got 1; raise layers"):
        make(layers=1)
    with pytest.raises(ValueError, match="expected coarsen topk, sag, asap, got 'edge'; choose one of them"):
        make(coarsen="edge")


def test_asap_keeps_its_fittest_clusters_where_pygs_own_may_keep_the_worst():
    def chosen(pool, one):
        fitness = []
        hook = pool.gnn_score.register_forward_hook(lambda _, __, y: fitness.append(y.flatten()))
        best = pool(one.x, one.edge_index)[-1]
        hook.remove()
        return set(best.tolist()), fitness[0].argsort(descending=True).tolist()

    one, seen = graph(11, 14, 0), set()
    one.x = one.x.float()
    for seed in range(8):
        torch.manual_seed(seed)
        best, order = chosen(ASAPooling(4, 0.5), one)
        seen.add("best" if best == set(order[:6]) else "worst" if best == set(order[-6:]) else "neither")
        best, order = chosen(CoarsenedGNN(GIN(4, 4, num_layers=2), "asap").pools[0], one)
        assert best == set(order[:6])
    assert seen == {"best", "worst"}


@EACH
@pytest.mark.parametrize("reduction", ["mean", "attention", "regions", ["sum", "max"]])
def test_maps_add_up_to_the_logit_and_are_zero_where_nodes_did_not_stay(coarsen, reduction):
    task, batch = make(coarsen=coarsen, reduction=reduction), Batch.from_data_list(graphs())
    evidence = task.evidence(batch)
    sums = torch.stack([one.sum(0) for one in evidence.maps.split(batch.ptr.diff().tolist())])
    torch.testing.assert_close(sums + task.head[-1].bias, task(batch))
    torch.testing.assert_close(evidence.sums, sums)
    torch.testing.assert_close(evidence.missing, torch.zeros_like(sums), atol=1e-12, rtol=0)
    stayed = task.encode(batch)[1]["mask"]
    assert (evidence.maps[~stayed] == 0).all()
    assert evidence.maps[stayed].any()


def test_where_what_is_pooled_stands():
    """The map's largest values are at the nodes that stayed, in the input's own numbers."""
    task, batch = make(), Batch.from_data_list(graphs())
    embedding = task.embed(batch)
    x, sets = task.encode(batch)
    for number, (features, places) in enumerate(zip(embedding.features, embedding.places, strict=True)):
        own = torch.arange(int(batch.ptr[number]), int(batch.ptr[number + 1]))
        stayed = own[sets["mask"][own]]
        assert (places[:, 0] + batch.ptr[number]).tolist() == stayed.tolist()
        torch.testing.assert_close(features, x[stayed])
        torch.testing.assert_close(embedding.vectors[number], x[stayed].mean(0))


def test_grad_cam_leaves_out_what_did_not_stay():
    pytest.importorskip("captum")
    task, batch = make(reduction="attention"), Batch.from_data_list(graphs())
    x, sets = task.encode(batch)
    x = x.detach().requires_grad_()
    logits = task.head(task.pool(x, **sets)).gather(1, batch.y[:, None])
    (slopes,) = torch.autograd.grad(logits.sum(), x)
    for number, cam in enumerate(grad_cam(task, batch)):
        own = batch.batch == number
        torch.testing.assert_close(cam, (x[own] @ slopes[own].mean(0)).relu().detach())


def test_one_node_alone_can_be_trained_on():
    for coarsen in COARSENINGS:
        task, batch = make(coarsen=coarsen).train(), Batch.from_data_list([graph(1, 0, 1)])
        loss = task.loss(task(batch), batch.y)
        loss.backward()
        assert torch.isfinite(loss)


def test_hiding_everything_leaves_no_graph_to_tell_from_another():
    task, batch = make(coarsen="asap"), Batch.from_data_list([graph(9, 12, seed) for seed in range(3)])
    nothing = task.to_inputs(torch.ones_like(batch.batch, dtype=torch.bool), batch)
    logits = task(task.hide(batch, nothing))
    torch.testing.assert_close(logits, logits[:1].expand_as(logits))


def test_the_command_line_knows_its_words(monkeypatch):
    monkeypatch.setattr("sys.argv", ["tasks"])
    config = Path(__file__).resolve().parents[3] / "configs" / "graph" / "motifs.yaml"
    task = plan(["-c", str(config), "--model.coarsen=sag", "--model.ratio=0.6"]).build_task(SPEC)
    assert [(type(pool), pool.ratio) for pool in task.encoder.pools] == [(SAGPooling, 0.6)] * 3
    assert not isinstance(plan(["-c", str(config)]).build_task(SPEC).encoder, CoarsenedGNN)


def test_a_checkpoint_brings_it_back(tmp_path):
    task = make(coarsen="asap", ratio=0.7)
    saved = {"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}
    torch.save(saved | {"pytorch-lightning_version": "2.6.0"}, tmp_path / "a.ckpt")
    again = GraphTask.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True).double().eval()
    batch = Batch.from_data_list(graphs())
    torch.testing.assert_close(again(batch), task(batch))


@EACH
def test_half_precision_trains(coarsen):
    """The choice is made in float32, where equal scores are rare; under autocast as a trainer's bf16-mixed has it."""
    task, batch = make(coarsen=coarsen, conv="gcn").float().train(), Batch.from_data_list(graphs())
    batch.x = batch.x.float()
    with torch.autocast("cpu", torch.bfloat16):
        x, _ = task.encode(batch)
        loss = task.loss(task(batch), task.target(batch))
    assert x.dtype == torch.bfloat16
    loss.backward()
    assert all(pool.select.weight.dtype == torch.float32 for pool in task.encoder.pools)
    slopes = [weight.grad for weight in task.parameters() if weight.requires_grad]
    assert all(slope.isfinite().all() and slope.dtype == torch.float32 for slope in slopes)
