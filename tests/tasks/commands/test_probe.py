"""The table of frozen features: its rows, what a checkpoint has heard, and training with the same labels beside it."""

import csv
import json
import math

import pytest
import torch
from toy import ToyData, ToyTask

from tasks.commands.checkpoints import untrained
from tasks.commands.probe_tables import summary, tables
from tasks.commands.seen import Heard, heard
from tasks.data.problems import BadInput
from tasks.task.pretrained import take_weights

QUICK = ["--outputs.maps=0", "--outputs.every=0", "--outputs.bootstrap=0", "--floors=false", "--trainer.max_epochs=1",
         "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]  # fmt: skip


def rows(folder):
    with (folder / "probe.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_kind_of_features_has_its_rows(trained, tmp_path, capsys):
    trained("probe", "--ckpt_path=best", "--budgets=2,all", "--seeds=0,1", "--folds=0,1")
    out = capsys.readouterr().out
    found = rows(tmp_path / "runs/toy/probe_0")
    kinds = {"majority": 1, "raw features, pooled": 1, "random network": 2, "trained with labels": 1}
    each = {"2": 2, "all": 1}  # draws
    for features, networks in kinds.items():
        for budget, draws in each.items():
            own = [row for row in found if row["features"] == features and row["budget"] == budget]
            assert len(own) == 2 * 2 * networks * draws, (features, budget)  # folds, probes
    trained = [row for row in found if row["features"] == "trained with labels"]
    assert {row["network"] for row in trained} == {"runs/toy/version_0/checkpoints/best.ckpt"}
    assert {row["heard"] for row in trained} == {"0.0"}
    assert "| linear: acc | 2 | all |" in out
    assert (tmp_path / "runs/toy/probe_0/probe.md").read_text() in out
    told = json.loads((tmp_path / "runs/toy/probe_0/summary.json").read_text())["rows"]
    assert {(row["features"], row["budget"]) for row in told} == {(kind, one) for kind in kinds for one in each}
    random = [float(row["acc"]) for row in found if (row["features"], row["budget"], row["probe"]) == (
        "random network", "all", "linear")]  # fmt: skip
    (mean,) = [row["test"]["acc"]["mean"] for row in told if (row["features"], row["budget"], row["probe"]) == (
        "random network", "all", "linear")]  # fmt: skip
    assert mean == pytest.approx(sum(random) / len(random))


def test_another_readout_and_without_a_checkpoint(plain, tmp_path):
    plain("probe", "--budgets=all", "--probes=linear", "--folds=0", "--seeds=3", "--pool.reduction", "[std,max]")
    plain("probe", "--budgets=all", "--probes=linear", "--folds=0", "--seeds=3")
    first, second = ({row["features"]: row["brier"] for row in rows(tmp_path / f"runs/toy/probe_{i}")} for i in (0, 1))
    assert first.keys() == second.keys() == {"majority", "raw features, pooled", "random network"}
    assert first["majority"] == second["majority"]
    assert first["random network"] != second["random network"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--probes=tree"], "probe: expected --probes of linear, knn, got tree; correct it"),
        (["--data.labelled=3"], "probe: expected no --data.labelled, which --budgets says; leave it out"),
        (["--pool.levels=[2]"], "--pool: expected --pool.reduction beside --pool.levels, got none; name a rule"),
        (["--budgets=200"], "labelled: expected at most"),
        (["--folds=7"], "probe: expected --folds of 0, 1, which the data have, got 7"),
        (["--ckpt_path=none.ckpt"], "checkpoint none.ckpt does not exist"),
    ],
)
def test_what_cannot_be_probed_is_said_first(plain, flags, message):
    with pytest.raises(SystemExit) as stopped:
        plain("probe", *flags)
    assert str(stopped.value).startswith(f"error: {message}")


def stored(data, heard_samples, path, labels=False):
    """A checkpoint that was trained on some samples, with or without labels."""
    options = {"spec": data.spec, **({} if labels else {"task": {"class_path": "toy.ToyTask"}})}
    samples = {"train": torch.tensor(heard_samples), "val": torch.empty(0, dtype=torch.long)}
    torch.save({"state_dict": {}, "hyper_parameters": options, "trained": {"samples": samples, "settings": {}}}, path)
    return path


def test_inductive_transductive_and_neither(tmp_path):
    data = ToyData()
    data.setup()
    train, test = data.digests("train"), data.digests("test")
    path = tmp_path / "one.ckpt"
    found = heard(stored(data, train, path), data)
    assert found == Heard(labels=False, share=0)
    assert (found.name, found.fair) == ("pretrained, inductive", True)
    found = heard(stored(data, train + test, path), data)
    assert (found.name, found.fair, found.share) == ("pretrained, transductive", True, 1)
    found = heard(stored(data, test[:8], path), data)
    assert (found.fair, found.share) == (False, 0.25)
    found = heard(stored(data, train + test, path, labels=True), data)
    assert (found.labels, found.fair) == (True, False)
    assert str(found) == "trained with labels; 100% of the test samples were among them"
    assert math.isnan(heard(stored(data, [], path), data).share)


def test_copies_within_the_data_are_not_the_checkpoints_doing(tmp_path):
    data = ToyData()
    data.setup()
    data.datasets["test"].x[:3] = data.datasets["train"].x[:3]
    assert heard(stored(data, data.digests("train"), tmp_path / "one.ckpt"), data).share == 0


def test_training_with_the_labels_of_a_budget_stands_beside_the_probes(trained, tmp_path):
    flags = ["--ckpt_path=best", "--budgets=4,all", "--probes=linear", "--folds=1", "--seeds=5"]
    trained("probe", *flags, "--scratch", "--finetune", *QUICK)
    found = {(row["features"], row["budget"]): row for row in rows(tmp_path / "runs/toy/probe_0")}
    for features in ("from scratch", "fine-tuned, trained with labels"):
        for budget, count in (("4", 8), ("all", 128)):
            row = found[features, budget]
            assert int(row["labels"]) == count
            assert 0 <= float(row["acc"]) <= 1
    run = tmp_path / "runs/toy/probe_0/scratch_4/fold_1_seed_5"
    summary_of_run = json.loads((run / "summary.json").read_text())
    assert summary_of_run["test"]["acc"]["value"] == pytest.approx(float(found["from scratch", "4"]["acc"]))
    config = (run / "config.yaml").read_text()
    assert "labelled: 4" in config
    assert "labelled_seed: 5" in config
    begun = (tmp_path / "runs/toy/probe_0/finetuned_0_4/fold_1_seed_5/config.yaml").read_text()
    assert "pretrained: runs/toy/version_0/checkpoints/best.ckpt" in begun


def test_fit_begins_with_the_network_of_another_training(trained, tmp_path, capsys):
    first = "runs/toy/version_0/checkpoints/best.ckpt"
    still = ["--trainer.max_epochs=1", "--model.lr=0", "--model.weight_decay=0", f"--model.pretrained={first}"]
    trained("fit", *still, "--data.fold=1", "--data.kind=multiclass")  # another split, and another target
    assert (
        f"begins with {first}, trained with labels; 0% of the test samples were among them" in capsys.readouterr().out
    )
    one, two = (torch.load(tmp_path / f"runs/toy/version_{i}/checkpoints/last.ckpt", weights_only=True) for i in (0, 1))
    best = torch.load(tmp_path / first, weights_only=True)["state_dict"]
    torch.testing.assert_close(two["state_dict"]["encoder.weight"], best["encoder.weight"])
    assert two["state_dict"]["head.2.weight"].shape == (3, 8)
    assert len(two["trained"]["samples"]["train"]) == 2 * len(one["trained"]["samples"]["train"])  # of both trainings
    with pytest.raises(SystemExit, match=r"error: fit: .*best.ckpt was trained on 96 of these 96 samples"):
        trained("fit", *still, "--data.fold=1", "--data.shared=true")
    with pytest.raises(SystemExit, match=r"error: checkpoint gone.ckpt does not exist"):
        trained("fit", "--model.pretrained=gone.ckpt")
    with pytest.raises(SystemExit, match=r"is another network \(encoder.weight: expected \(6, 4\), got \(8, 4\) \(and"):
        trained("fit", *still, "--data.fold=1", "--model.hidden=6")


def test_a_pools_own_weights_are_taken_where_they_are():
    spec = {"kind": "binary", "classes": ["low", "high"], "channels": 4, "class_counts": [1, 1]}
    mean, first, second = (ToyTask(spec, reduction=rule) for rule in ("mean", "attention", "attention"))
    before = {name: value.clone() for name, value in second.state_dict().items()}
    take_weights(second, mean)
    assert torch.equal(second.encoder.weight, mean.encoder.weight)
    pools = [name for name in before if name.startswith("pool.")]
    assert pools
    assert all(torch.equal(second.state_dict()[name], before[name]) for name in pools)
    take_weights(second, first)
    assert all(torch.equal(second.state_dict()[name], first.state_dict()[name]) for name in pools)
    assert torch.equal(second.head[-1].weight, before["head.2.weight"])


def fit_rows(features, values, budget="all"):
    return [
        {"fold": fold, "features": features, "network": "", "heard": "", "probe": "linear", "budget": budget,
         "labels": 10, "seed": 0, "acc": value}
        for fold, value in enumerate(values)
    ]  # fmt: skip


def test_a_random_network_is_like_the_checkpoints():
    spec = {"kind": "binary", "classes": ["low", "high"], "channels": 4, "class_counts": [1, 1]}
    task = ToyTask(spec, hidden=5, reduction=["mean", "max"])
    other = untrained(task, {**spec, "kind": "multiclass", "classes": ["a", "b", "c"], "class_counts": [1, 1, 1]})
    assert isinstance(other, ToyTask)
    assert other.encoder.weight.shape == (5, 4)
    assert other.pooled_size == 10
    assert other.classes == ["a", "b", "c"]
    assert not torch.equal(other.encoder.weight, task.encoder.weight)


def test_the_tables_words_are_right():
    found = summary(
        [
            *fit_rows("degrees", [0.75, 1.0]),
            *fit_rows("random network", [0.5, 0.75]),
            *fit_rows("random network", [0.75, 1.0]),
            *fit_rows("pretrained, inductive", [0.75, 0.75]),
        ],
        folds=2,
    )
    text = tables(found)
    assert "| degrees | 0.875 ± 0.18 |" in text
    assert "| pretrained, inductive | 0.75 ± 0 |" in text
    assert "pretrained, inductive, all: +0 " in text  # folds' differences, +.125 and -.125, not networks'
    assert "Below a floor: pretrained, inductive, all: acc 0.75 (degrees: 0.875)." in text
    ours = next(row for row in found["rows"] if row["features"].startswith("pretrained"))
    assert ours["to_random"]["acc"]["low"] < 0 < ours["to_random"]["acc"]["high"]


def test_errors_are_answered_at_once():
    with pytest.raises(BadInput):
        take_weights(torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2)}), torch.nn.ModuleDict())
