"""``python -m tasks judge`` on the toy modality, where two known elements of each set decide."""

import csv
import importlib.util

import pytest
import torch
import yaml
from toy import ToyData, ToyTask

from tasks.__main__ import main
from tasks.commands.cli import run_cli
from tasks.commands.judge import COLUMNS, OURS, UNTRAINED
from tasks.maps import other_maps
from tasks.maps.localisation import PointingGame
from tasks.maps.other_maps import grad_cam, mean_truth, pool_weights


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A folder to run in, with a config of the toy modality; calls `main` there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tasks"])
    config = {
        "run": {"name": "toy"},
        "model": {"class_path": "toy.ToyTask", "init_args": {"lr": 0.02}},
        "data": {"class_path": "toy.ToyData", "init_args": {"kind": "binary", "located": True}},
        "trainer": {"max_epochs": 6, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False},
        "outputs": {"bootstrap": 0, "maps": 0},
    }
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(config))
    return lambda command, *flags: main([command, "-c", "toy.yaml", *flags])


def table(tmp_path):
    with (tmp_path / "runs/toy/version_0/localisation.csv").open() as file:
        return {row.pop("map"): {k: float(v) for k, v in row.items()} for row in csv.DictReader(file)}


OTHERS = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("multiclass", "multilabel", "regression")]


@pytest.mark.parametrize("kind", ["binary", *OTHERS])
def test_the_table(toy, tmp_path, capsys, kind):
    toy("fit", f"--data.kind={kind}", "--model.reduction=attention")
    capsys.readouterr()
    toy("judge", f"--data.kind={kind}", "--model.reduction=attention", "--ckpt_path=best")
    rows = table(tmp_path)
    assert list(rows) == [OURS, "Grad-CAM", "weights alone", "size", "position", "random", UNTRAINED]
    ours = rows[OURS]
    assert ours["samples"] == 32
    assert ours["similarity"] == pytest.approx(1.0)
    assert abs(rows["random"]["similarity"]) < 0.2
    assert rows[UNTRAINED]["similarity"] < 0.9
    if kind == "binary":  # in the others an element may as well speak against the target
        assert ours["pointing"] > 0.9
        assert ours["precision"] > 0.9
    assert rows["random"]["pointing"] == pytest.approx(2 / 7, abs=0.25)
    assert ours["insertion"] > rows["random"]["insertion"] or kind == "regression"
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "32 test samples with a truth"
    assert printed[1].split() == list(COLUMNS)
    assert printed[2].split() == [OURS, *(f"{ours[column]:.3f}" for column in COLUMNS)]
    assert printed[-1] == "Look at: runs/toy/version_0/localisation.csv"


def test_the_row_is_what_the_metrics_say_of_the_maps(toy, tmp_path):
    toy("fit")
    toy("judge", "--curves=0", "--tolerance=1")
    task = ToyTask.load_from_checkpoint(tmp_path / "runs/toy/version_0/checkpoints/best.ckpt").eval()
    data = run_cli(["-c", "toy.yaml"], run=False).datamodule
    metric, signs = PointingGame(tolerance=1), []
    for batch in data.test_dataloader():
        _, maps = task.explain(batch)  # (B, n, 1), evidence for the second class
        signs.append(batch["y"] * 2 - 1)
        for one, truth in zip(maps[:, :, 0] * signs[-1][:, None], batch["truth"], strict=True):
            metric.update(one, truth)
    assert set(torch.cat(signs).tolist()) == {-1, 1}
    rows = table(tmp_path)
    assert rows[OURS]["pointing"] == pytest.approx(metric.compute().item())
    assert "weights alone" not in rows  # a mean's say nothing
    assert all(str(row["deletion"]) == "nan" for row in rows.values())


def test_without_truth(toy, tmp_path, capsys):
    toy("fit", "--data.located=false", "--trainer.max_epochs=1")
    with pytest.raises(
        SystemExit, match="judge: expected data that knows which elements made its targets, got none for set"
    ):
        toy("judge", "--data.located=false")
    with pytest.raises(SystemExit, match=r"checkpoint nowhere\.ckpt does not exist; give a \.ckpt file, best or last"):
        toy("judge", "--ckpt_path=nowhere.ckpt")


def test_without_captum(toy, tmp_path, capsys, monkeypatch):
    toy("fit", "--trainer.max_epochs=1")
    find = importlib.util.find_spec
    monkeypatch.setattr(other_maps.importlib.util, "find_spec", lambda name: None if name == "captum" else find(name))
    capsys.readouterr()
    toy("judge", "--curves=0")
    assert "judge: Grad-CAM is left out; it needs captum: run pip install" in capsys.readouterr().out
    assert "Grad-CAM" not in table(tmp_path)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_grad_cam_by_hand(kind):
    """Channels weigh as their mean gradient says; what is left above zero is the map."""
    data = ToyData(kind=kind, located=True)
    task = ToyTask(data.spec, reduction="attention").eval()
    batch = next(iter(data.test_dataloader()))
    outputs, signs = task.explained(batch)
    x = task.encode(batch)[0].detach().requires_grad_()
    logit = task.head(task.pool(x)).gather(1, outputs[:, None])[:, 0] * signs
    (gradient,) = torch.autograd.grad(logit.sum(), x)  # (B, n, C)
    expected = (x * gradient.mean(1, keepdim=True)).sum(2).relu()
    torch.testing.assert_close(torch.stack(grad_cam(task, batch)), expected.detach())


def test_behind_a_mean_and_a_linear_head_grad_cam_is_our_map_cut_off_at_zero():
    data = ToyData(located=True)
    task = ToyTask(data.spec, reduction="mean").eval()
    batch = next(iter(data.test_dataloader()))
    for cam, ours in zip(grad_cam(task, batch), task.sample_maps(batch), strict=True):
        torch.testing.assert_close(cam, ours.relu())


def test_weights_are_the_attentions():
    data = ToyData(located=True)
    task = ToyTask(data.spec, reduction="attention", heads=2, queries=3).eval()
    batch = next(iter(data.test_dataloader()))
    _, weights = task.pool(task.encode(batch)[0], return_weights=True)  # (B, K, n, heads)
    torch.testing.assert_close(torch.stack(pool_weights(task, batch)), weights.mean((1, 3)).detach())
    assert pool_weights(ToyTask(data.spec), batch) is None


def test_position_is_the_mean_truth_of_samples_that_have_one():
    truths = [
        [torch.tensor([True, False, True]), torch.zeros(3, dtype=torch.bool)],
        [torch.tensor([True, True, False])],
    ]
    assert mean_truth(truths).tolist() == [1.0, 0.5, 0.5]
    assert mean_truth([[torch.zeros(3, dtype=torch.bool)]]) is None
    assert mean_truth([[torch.ones(3, dtype=torch.bool)], [torch.ones(4, dtype=torch.bool)]]) is None
    assert mean_truth([]) is None
