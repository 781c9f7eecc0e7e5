"""Features of Weisfeiler-Leman colours: a histogram's logarithm in learned vectors, exact for every node."""

from collections import Counter

import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.nn import WLConv
from torch_geometric.utils import erdos_renyi_graph

from tasks.graph import GraphData, GraphTask
from tasks.graph.colours import ColourFeatures, count_colours, weisfeiler_leman


def graph(seed, kinds=3):
    """A random graph of labelled nodes."""
    torch.manual_seed(seed)
    nodes = int(torch.randint(4, 12, ()))
    labels = torch.nn.functional.one_hot(torch.randint(kinds, (nodes,)), 3).float()
    return Data(x=labels, edge_index=erdos_renyi_graph(nodes, 0.3), y=torch.tensor([seed % 2]))


class Random(GraphData):
    """Sixty of them."""

    def read(self, problems):
        self.classes = ["even", "odd"]
        return [graph(seed) for seed in range(60)]


@pytest.fixture(scope="module")
def data():
    data = Random(num_folds=5, colours=2, degrees=3)
    data.setup()
    return data


def trained(data, **options):
    """A task whose vectors are not the zeros that they are before training."""
    torch.manual_seed(0)
    options = {"hidden": 8, "layers": 2, "colour_channels": 4, "reduction": "sum", **options}
    task = GraphTask(data.spec, **options).eval()
    torch.nn.init.normal_(task.colours.vectors.weight[1:].detach())
    return task


def test_each_round_divides_nodes_as_pygs_layer_does():
    batch = Batch.from_data_list([graph(seed) for seed in range(20)])
    expected = batch.x.argmax(1)
    for ours in weisfeiler_leman(batch.x, batch.edge_index, 3):
        pairs = set(zip(ours.tolist(), expected.tolist(), strict=True))
        assert len(pairs) == len(set(ours.tolist())) == len(set(expected.tolist()))  # one to one
        expected = WLConv()(expected, batch.edge_index)


def test_summed_over_a_graph_features_are_the_log_of_its_histogram():
    batch = Batch.from_data_list([graph(seed) for seed in range(8)])
    counted = count_colours(batch.x, batch.edge_index, batch.batch, 2)
    features = ColourFeatures(**counted, rounds=2, channels=4).double()
    torch.nn.init.normal_(features.vectors.weight[1:].detach())
    found = features(batch.x, batch.edge_index, batch.batch)
    graphs = Counter()
    for one in batch.to_data_list():
        graphs.update(set(torch.cat(weisfeiler_leman(one.x, one.edge_index, 2)).tolist()))
    scale = {colour: (number / max(graphs.values())) ** 0.25 for colour, number in graphs.items()}
    vectors = dict(zip(features.names.tolist(), features.vectors.weight[1:], strict=True))
    for one in batch.to_data_list():
        colours = torch.cat(weisfeiler_leman(one.x, one.edge_index, 2)).tolist()
        expected = sum(vectors[c] * scale[c] * torch.tensor(n).double().log1p() for c, n in Counter(colours).items())
        torch.testing.assert_close(found[: one.num_nodes].sum(0), expected, atol=1e-6, rtol=1e-6)
        found = found[one.num_nodes :]


def test_a_colour_that_was_not_trained_on_adds_nothing(data):
    task, batch = trained(data), Batch.from_data_list([graph(seed) for seed in range(4)])
    known = weisfeiler_leman(batch.x, batch.edge_index, 2)
    features = ColourFeatures(known[0].unique().tolist(), rounds=2, channels=4)
    torch.nn.init.normal_(features.vectors.weight[1:].detach())
    alone = ColourFeatures(known[0].unique().tolist(), rounds=0, channels=4)
    alone.load_state_dict(features.state_dict())
    args = batch.x, batch.edge_index, batch.batch
    torch.testing.assert_close(features(*args), alone(*args), atol=0, rtol=0)  # those of later rounds are unknown
    strange = torch.ones(len(batch.x), len(data.spec["label_columns"]))  # every label at once
    assert not task.colours(strange, batch.edge_index, batch.batch).any()


def test_a_graph_does_not_depend_on_its_batch_mates_or_its_numbering(data):
    task, batch = trained(data), data.collate([data.datasets["test"][i] for i in range(6)])
    together = task(batch)
    for number, one in enumerate(batch.to_data_list()):
        order = torch.randperm(one.num_nodes)
        moved = Data(x=one.x[order], edge_index=order.argsort()[one.edge_index], y=one.y, id=one.id)
        torch.testing.assert_close(task(Batch.from_data_list([moved]))[0], together[number], atol=1e-5, rtol=1e-5)


def test_maps_sum_to_the_logit_and_colours_are_in_them(data):
    task, batch = trained(data), data.collate([data.datasets["test"][i] for i in range(6)])
    logits, (_, maps) = task(batch), task.explain(batch)
    sums = torch.zeros(6, 1).index_add_(0, batch.batch, maps) + task.head[-1].bias
    torch.testing.assert_close(sums, logits, atol=1e-4, rtol=1e-5)
    with torch.no_grad():
        task.head[-1].weight[:, : task.hparams.hidden] = 0  # leaves the colours
    vectors, weight = task.colours.vectors.weight, task.head[-1].weight[0, task.hparams.hidden :]
    node = 0
    colours = torch.stack(weisfeiler_leman(batch.x[:, data.spec["label_columns"]], batch.edge_index, 2))
    first = colours[:, batch.batch == 0]  # (rounds + 1, nodes) of the first graph
    expected = 0.0
    for colour in first[:, node].tolist():
        count = (first == colour).sum()
        place = (task.colours.names == colour).nonzero().flatten() + 1  # empty if it is unknown
        scale = task.colours.scale[place].sum()
        expected += float((vectors[place] @ weight).sum().detach() * scale * count.log1p() / count)
    assert float(task.explain(batch)[1][node, 0].detach()) == pytest.approx(expected, abs=1e-5)


def test_dropout_leaves_a_colour_out_of_all_nodes_of_a_graph_that_have_it():
    ring = torch.stack([torch.arange(12), (torch.arange(12) + 1) % 12])  # of equal nodes
    index = torch.arange(12) // 6
    counted = count_colours(torch.ones(12, 1), ring, index, 1)
    features = ColourFeatures(**counted, rounds=1, channels=4, dropout=0.5).train()
    torch.nn.init.normal_(features.vectors.weight[1:].detach())
    seen = set()
    for seed in range(40):
        torch.manual_seed(seed)
        found = features(torch.ones(12, 1), ring, index)
        assert (found[:6] == found[0]).all()
        assert (found[6:] == found[6]).all()
        seen.add((found[0, 0] == 0).item())
    assert seen == {True, False}


def test_a_checkpoint_knows_the_colours(data, tmp_path):
    task = trained(data)
    torch.save({"hyper_parameters": dict(task.hparams), "state_dict": task.state_dict()}, tmp_path / "task.ckpt")
    kept = torch.load(tmp_path / "task.ckpt", weights_only=True)  # plain values and tensors
    again = GraphTask(**kept["hyper_parameters"]).eval()
    again.load_state_dict(kept["state_dict"])
    batch = data.collate([data.datasets["test"][0]])
    assert torch.equal(again(batch), task(batch))
    train = data.collate([data.datasets["train"][i] for i in range(len(data.datasets["train"]))])
    counted = count_colours(train.x[:, :3], train.edge_index, train.batch, 2)  # of labels, not of degrees
    assert kept["hyper_parameters"]["spec"]["colours"] == {"rounds": 2, **counted}


def test_an_earlier_checkpoint_which_did_not_count_graphs_weighs_all_colours_alike():
    assert ColourFeatures([3, 5], rounds=1, channels=2).scale.tolist() == [0, 1, 1]


def test_loggers_are_told_how_many_colours_there_are_and_not_which(data):
    task = trained(data)
    names = task.hparams.spec["colours"]["names"]
    assert len(names) > 100
    written = task.hparams_initial["spec"]
    assert written["colours"] == {"rounds": 2, "names": f"{len(names)} values", "graphs": f"{len(names)} values"}
    assert written["classes"] == ["even", "odd"]
