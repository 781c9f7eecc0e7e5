"""Consistency and mixtures behind the pool, and training on few labels."""

import math

import pytest
import torch
from lightning.pytorch import Trainer
from torch_geometric.data import Batch, Data
from toy import ToyData, ToyTask

from tasks.audio import AudioTask, TimbreData
from tasks.data.problems import BadInput
from tasks.data.views import Views, keep_labels
from tasks.graph import GraphTask, MotifData
from tasks.graph.task import keep_pairs
from tasks.task.regularise import disagreement
from tasks.volume import LesionData, VolumeTask

KINDS = ["binary", "multiclass", "multilabel", "regression"]


class Noisy(torch.utils.data.Dataset):
    """Sample i is (i, a number that is drawn anew at every look)."""

    def __len__(self):
        return 6

    def __getitem__(self, i):
        return i, torch.rand(())


def fitted(tmp_path, data, **options):
    torch.manual_seed(0)
    task = ToyTask(data.spec, lr=0.02, **options)
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(task, datamodule=data)
    return task


@pytest.mark.parametrize("kind", KINDS)
def test_views_that_agree_cost_nothing_and_others_what_the_formula_says(kind):
    first, second = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    assert disagreement(kind, first, first).item() == 0
    squash = {"multiclass": lambda row: [math.exp(v) / sum(map(math.exp, row)) for v in row], "regression": list}.get(
        kind, lambda row: [1 / (1 + math.exp(-v)) for v in row]
    )
    pairs = [
        (p, q)
        for a, b in zip(first.tolist(), second.tolist(), strict=True)
        for p, q in zip(squash(a), squash(b), strict=True)
    ]
    expected = sum((p - q) ** 2 for p, q in pairs) / len(pairs)
    assert disagreement(kind, first, second).item() == pytest.approx(expected)


def test_both_views_learn():
    first, second = (torch.randn(4, 3).requires_grad_() for _ in range(2))
    disagreement("multiclass", first, second).backward()
    assert first.grad.abs().sum() > 0
    assert second.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_pooled_mixup_by_hand(kind, monkeypatch):
    data = ToyData(kind=kind)
    task = ToyTask(data.spec, label_smoothing=0.0, pooled_mixup=0.3)
    batch = next(iter(data.test_dataloader()))
    partner = torch.arange(32).flip(0)
    monkeypatch.setattr(torch, "randperm", lambda n, **_: partner)
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda self: torch.tensor(0.2))  # 0.8 is the own share
    logits, loss = task.mix_pooled(batch)
    plain = task(batch)
    # a linear head: the mixture of the logits; a linear encoder and a mean: also the logits of mixed inputs
    torch.testing.assert_close(logits, 0.8 * plain + 0.2 * plain[partner])
    torch.testing.assert_close(logits, task({**batch, "x": 0.8 * batch["x"] + 0.2 * batch["x"][partner]}))
    y = batch["y"]
    if kind == "multiclass":  # cross-entropy against soft targets
        one_hot = torch.nn.functional.one_hot(y, 3).float()
        expected = -((0.8 * one_hot + 0.2 * one_hot[partner]) * logits.log_softmax(1)).sum(1).mean()
    elif kind == "regression":
        mean, std = torch.tensor(data.spec["target_mean"]), torch.tensor(data.spec["target_std"])
        errors = [(logits - (of - mean) / std).square().mean() for of in (y, y[partner])]
        expected = 0.8 * errors[0] + 0.2 * errors[1]
    else:
        soft = (0.8 * y + 0.2 * y[partner]).reshape(logits.shape)
        expected = -(soft * logits.sigmoid().log() + (1 - soft) * (-logits).sigmoid().log()).mean()
    torch.testing.assert_close(loss, expected)


def test_views_are_drawn_apart():
    first, second = Views(Noisy()).__getitems__([4, 1])
    assert [one[0] for one in first] == [one[0] for one in second] == [4, 1]
    assert all(a[1] != b[1] for a, b in zip(first, second, strict=True))


def test_few_labels_are_nested_and_balanced():
    labels = torch.randint(3, (60,), generator=torch.Generator().manual_seed(1)).tolist()
    few, more = (keep_labels(labels, ["a", "b", "c"], each, seed=4) for each in (3, 7))
    assert [labels[number] for number in few] == [0, 1, 2] * 3
    assert set(few) < set(more)
    assert len(set(more)) == 21
    assert keep_labels(labels, ["a", "b", "c"], 3, seed=5) != few


def test_more_labels_than_there_are():
    with pytest.raises(BadInput, match="labelled: expected at most 2, all training samples of class b, got 3; lower"):
        keep_labels([0, 0, 0, 1, 1], ["a", "b"], 3, seed=0)
    with pytest.raises(
        BadInput, match="labelled: expected a whole number from 1, or a share between 0 and 1, got 0; correct it"
    ):
        keep_labels([0, 1], ["a", "b"], 0, seed=0)
    with pytest.raises(BadInput, match="labelled: expected classes, got regression; leave it out"):
        ToyData(kind="regression", labelled=3).setup()
    with pytest.raises(BadInput, match="expected 1 bucket where only 3 samples a class are labelled, got 2; use 1"):
        ToyData(labelled=3, buckets=2).setup()


def test_an_epoch_of_few_labels_is_as_long_as_of_all():
    data = ToyData(labelled=4)
    assert data.spec["class_counts"] == [4, 4]
    seen = [name for batch in data.train_dataloader() for name in batch["id"]]
    assert len(seen) == 96
    assert {seen.count(name) for name in seen} == {12}
    classes = {data.datasets["train"][number]["y"].item() for number in data.kept}
    assert classes == {0, 1}


@pytest.mark.parametrize("options", [{}, {"consistency": 1.0}, {"pooled_mixup": 0.3}], ids=str)
def test_hidden_labels_change_nothing(tmp_path, options):
    """Whatever the unlabelled samples' labels are, the trained weights are the same to the last bit."""
    weights = []
    for turned in (False, True):
        data = ToyData(labelled=4)
        data.setup()
        hidden = torch.ones(96, dtype=torch.bool)
        hidden[data.kept] = False
        y = data.datasets["train"].y
        if turned:
            data.datasets["train"].y = torch.where(hidden, 1 - y, y)
        weights.append(fitted(tmp_path, data, head_dropout=0.2, **options).state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_unlabelled_samples_are_learned_from_with_consistency_alone(tmp_path):
    """Other inputs in their place change the weights, but not without `consistency`."""
    for weight, same in ((0.0, True), (1.0, False)):
        heads = []
        for sign in (1, -2):
            data = ToyData(labelled=4)
            data.setup()
            hidden = torch.ones(96, dtype=torch.bool)
            hidden[data.kept] = False
            data.datasets["train"].x[hidden] *= sign
            heads.append(fitted(tmp_path, data, head_dropout=0.5, consistency=weight).head[-1].weight)
        assert torch.equal(*heads) == same


@pytest.mark.parametrize("labelled", [None, 4])
def test_without_anything_random_consistency_changes_nothing(tmp_path, labelled):
    """The two views are then the same, their disagreement is zero, and so is its gradient."""
    weights = [
        fitted(tmp_path, ToyData(labelled=labelled), consistency=weight).head[-1].weight for weight in (1.0, 1000.0)
    ]
    assert torch.equal(*weights)


def test_dropped_edges_make_two_views_of_a_graph():
    graph = Data(x=torch.randn(6, 3), edge_index=torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]]))
    batch = Batch.from_data_list([graph])
    spec = {"kind": "binary", "classes": ["a", "b"], "channels": 3, "feature_mean": [0.0] * 3, "feature_std": [1.0] * 3}
    task = GraphTask(spec, hidden=4, layers=2, norm=None, drop_edges=0.5)
    first, second = (task.encode(batch)[0] for _ in range(2))
    assert not torch.equal(first, second)
    task.drop_edges = 1.0  # all are left out
    bare = Batch.from_data_list([Data(x=graph.x, edge_index=graph.edge_index[:, :0])])
    torch.testing.assert_close(task.encode(batch)[0], task.eval().encode(bare)[0])
    assert not torch.equal(task.encode(batch)[0], task.encode(bare)[0])  # only in training


def test_both_directions_of_an_edge_are_dropped_together():
    torch.manual_seed(0)
    pairs = torch.randint(0, 40, (2, 600))
    edges = torch.cat([pairs, pairs.flip(0)], 1)[:, torch.randperm(1200)]
    kept = keep_pairs(edges, 40, 0.3)
    fate = {}
    for (a, b), stays in zip(edges.T.tolist(), kept.tolist(), strict=True):
        assert fate.setdefault(frozenset((a, b)), stays) == stays
    share = sum(not stays for stays in fate.values()) / len(fate)
    assert abs(share - 0.3) < 4 * (0.3 * 0.7 / len(fate)) ** 0.5


@pytest.mark.parametrize("modality", ["graph", "audio", "volume"])
def test_every_modality_takes_views(modality):
    data, make = {
        "graph": (MotifData(train=8, val=4, test=4, labelled=2), lambda spec, **o: GraphTask(spec, hidden=4, **o)),
        "audio": (TimbreData(train=8, val=8, test=8, labelled=2), lambda spec, **o: AudioTask(spec, widths=[4], **o)),
        "volume": (
            LesionData(train=8, val=2, test=2, size=16, labelled=2),
            lambda spec, **o: VolumeTask(spec, width=4, depth=1, levels=1, **o),
        ),
    }[modality]
    task = make(data.spec, consistency=1.0, pooled_mixup=0.3, head_dropout=0.5)
    trainer = Trainer(fast_dev_run=True, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(task, datamodule=data)
    assert trainer.callback_metrics["train/disagreement"] > 0


def test_inputs_and_pooled_vectors_are_not_both_mixed():
    spec = {"kind": "binary", "classes": ["a", "b"], "channels": 1, "sample_rate": 8000}
    with pytest.raises(ValueError, match=r"expected mixup or pooled_mixup, got 0\.2 and 0\.3; turn one off with 0"):
        AudioTask(spec, mixup=0.2, pooled_mixup=0.3)
