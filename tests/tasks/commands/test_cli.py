"""The command line on a modality without a field's library: what it writes, what beats what, what it says."""

import csv
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from lightning.pytorch.loggers.logger import DummyLogger
from toy import ROOT, ToySets, ToyTask
from toy_runs import QUIET, begin, fit_once

from tasks.__main__ import main
from tasks.commands.cli import run_cli


def call(command, *flags):
    return main([command, "-c", "toy.yaml", *QUIET, *flags])


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A folder to run in, with a config of the toy modality; calls `main` there."""
    begin(tmp_path, monkeypatch)
    return call


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A folder where `fit` ran."""
    return fit_once(
        tmp_path_factory.mktemp("once"), call, "--trainer.max_epochs=2", "--outputs.maps=0", "--outputs.every=0"
    )


@pytest.fixture
def fitted(once, toy, tmp_path):
    """As `toy`, and `fit` ran already."""
    shutil.copytree(once, tmp_path, dirs_exist_ok=True)
    return toy


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_fit_leaves_a_complete_run_folder(toy, drawn, tmp_path, capsys):
    toy("fit")
    run = tmp_path / "runs" / "toy" / "version_0"
    for name in ("config.yaml", "metrics.csv", "predictions.csv", "summary.json", "curves.png", "test.png"):
        assert (run / name).stat().st_size > (5_000 if name.endswith("png") else 0)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    wrong = [row for row in table(run / "predictions.csv") if row["target"] != row["prediction"]]
    assert 8 <= len(list((run / "maps").glob("*.png"))) <= 8 + min(4, len(wrong))

    rows = table(run / "predictions.csv")
    assert list(rows[0]) == ["id", "target", "prediction", "p(low)", "p(high)", "part", "fold", "group"]
    summary = json.loads((run / "summary.json").read_text())
    hits = sum(row["target"] == row["prediction"] for row in rows) / len(rows)
    assert summary["samples"] == len(rows) == 32
    assert summary["test"]["acc"]["value"] == pytest.approx(hits)
    assert summary["test"]["acc"]["low"] <= hits <= summary["test"]["acc"]["high"]
    assert hits > 0.8  # the mean of a set gives its class away
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "Results: runs/toy/version_0",
        "Look at: runs/toy/version_0/report.html",
    ]
    worst = max(wrong, key=lambda row: max(float(row["p(low)"]), float(row["p(high)"])))
    assert summary["mistakes"][0]["id"] == worst["id"]
    assert all((run / one["picture"]).is_file() for one in summary["mistakes"])


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("multiclass", ["id", "target", "prediction", "p(low)", "p(mid)", "p(high)"]),
        ("multilabel", ["id", "target first", "target second", "prediction", "p(first)", "p(second)"]),
        ("regression", ["id", "target first", "target second", "prediction first", "prediction second"]),
    ],
)
def test_every_kind_of_task(toy, tmp_path, kind, columns):
    toy("fit", f"--data.kind={kind}", "--trainer.max_epochs=12", "--model.lr=0.05", "--model.balance=true")
    rows = table(tmp_path / "runs" / "toy" / "version_0" / "predictions.csv")
    assert list(rows[0]) == [*columns, "part", "fold", "group"]
    test = json.loads((tmp_path / "runs" / "toy" / "version_0" / "summary.json").read_text())["test"]
    assert {"multiclass": "acc", "multilabel": "ap", "regression": "r2"}[kind] in test
    assert test[{"multiclass": "acc", "multilabel": "ap", "regression": "r2"}[kind]]["value"] > 0.7


def test_maps_sum_to_the_logit(toy, tmp_path):
    toy("fit", "--data.kind=regression", "--trainer.max_epochs=2", "--outputs.maps=0", "--outputs.every=0")
    task = ToyTask.load_from_checkpoint(tmp_path / "runs/toy/version_0/checkpoints/best.ckpt")
    batch = {"x": torch.randn(3, 7, 4), "id": ["a", "b", "c"]}
    values, maps = task.explain(batch)
    bias = task.head[-1].bias * task.target_std + task.target_mean
    torch.testing.assert_close(maps.sum(1) + bias, values)


def test_printed_config_reproduces_the_run(toy, tmp_path):
    toy("fit")
    main(["fit", "-c", "runs/toy/version_0/config.yaml", *QUIET])
    first, second = (tmp_path / "runs" / "toy" / f"version_{i}" for i in (0, 1))
    assert (first / "predictions.csv").read_text() == (second / "predictions.csv").read_text()
    assert (first / "metrics.csv").read_text() == (second / "metrics.csv").read_text()


def test_flags_of_the_pool_are_typed_and_have_help(toy, capsys):
    with pytest.raises(SystemExit) as stopped:
        toy("fit", "--model.reduction=attention", "--model.heads=several")
    assert stopped.value.code == 2
    assert "heads" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["fit", "--model.help", "toy.ToyTask"])
    text = capsys.readouterr().out
    assert all(flag in text for flag in ("--model.reduction", "--model.heads", "--model.temperature", "--model.lr"))


def test_an_option_reaches_the_pool(toy, tmp_path):
    toy("fit", "--model.reduction=attention", "--model.heads=2", "--trainer.max_epochs=1")
    task = ToyTask.load_from_checkpoint(tmp_path / "runs/toy/version_0/checkpoints/last.ckpt")
    assert "heads=2" in str(task.pool)


def test_checkpoints_hold_plain_values_only(fitted, tmp_path):
    path = tmp_path / "runs/toy/version_0/checkpoints/last.ckpt"
    stored = torch.load(path, weights_only=True)["hyper_parameters"]
    assert stored["spec"]["classes"] == ["low", "high"]
    assert ToyTask.load_from_checkpoint(path).lr == 0.02


def test_the_command_line_beats_the_checkpoint_when_fitting(fitted, tmp_path):
    fitted("fit", "--ckpt_path=last", "--model.lr=0.5", "--model.weight_decay=0.25", "--trainer.max_epochs=3")
    stored = torch.load(tmp_path / "runs/toy/version_1/checkpoints/last.ckpt", weights_only=True)
    assert stored["epoch"] == 2
    assert stored["hyper_parameters"]["lr"] == 0.5
    groups = stored["optimizer_states"][0]["param_groups"]
    assert [group["initial_lr"] for group in groups] == [0.5, 0.5]
    assert [group["weight_decay"] for group in groups] == [0.25, 0.0]


def test_a_trained_model_keeps_its_own_settings_and_scale(toy, tmp_path):
    toy("fit", "--data.kind=regression", "--model.hidden=5", "--outputs.maps=0", "--outputs.every=0")
    toy("test", "--data.kind=regression", "--data.train=8", "--ckpt_path=best")
    first, second = (tmp_path / "runs" / "toy" / f"version_{i}" / "predictions.csv" for i in (0, 1))
    assert first.read_text() == second.read_text()


def test_predict_writes_predictions_and_maps(fitted, tmp_path):
    fitted("predict", "--ckpt_path=best", "--outputs.maps=3")
    run = tmp_path / "runs" / "toy" / "version_1"
    rows = table(run / "predictions.csv")
    assert len(rows) == 32
    assert all(row["target"] == "" for row in rows)
    assert len(list((run / "maps").glob("*.png"))) == 3


def test_averaged_weights_are_validated_kept_and_tested(toy, tmp_path):
    average = {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.9}}
    overlay = tmp_path / "average.yaml"
    overlay.write_text(yaml.safe_dump({"trainer": {"callbacks": [average]}}))
    toy("fit", "-c", str(overlay), "--model.head_norm=true")
    toy("test", "-c", str(overlay), "--ckpt_path=best", "--model.head_norm=true")
    first, second = (tmp_path / "runs" / "toy" / f"version_{i}" for i in (0, 1))
    assert (first / "predictions.csv").read_text() == (second / "predictions.csv").read_text()

    stored = torch.load(first / "checkpoints" / "best.ckpt", weights_only=True)
    assert all(
        not torch.equal(stored["state_dict"][name], stored["current_model_state"][name])
        for name in ("encoder.weight", "head.1.running_mean")
    )
    task = ToyTask.load_from_checkpoint(first / "checkpoints" / "best.ckpt").eval()
    batch = {"x": torch.stack([s["x"] for s in ToySets(32, "binary", 1000)])}
    target = torch.stack([s["y"] for s in ToySets(32, "binary", 1000)])
    losses = [float(row["val/loss"]) for row in table(first / "metrics.csv") if row["val/loss"]]
    assert task.loss(task(batch), target).item() == pytest.approx(min(losses), rel=1e-4)


def test_other_classes_are_refused(fitted):
    with pytest.raises(SystemExit, match="error: expected data with the model's classes \\['low', 'high'\\], got"):
        fitted("test", "--data.kind=multiclass", "--ckpt_path=best")


def test_interruption_leaves_a_checkpoint_to_go_on_from(toy, tmp_path, monkeypatch):
    step = ToyTask.training_step

    def interrupted(self, batch, batch_idx):
        if self.current_epoch == 3:
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    monkeypatch.setattr(ToyTask, "training_step", interrupted)
    with pytest.raises(SystemExit):
        toy("fit")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    toy("fit", "--ckpt_path=last")
    epochs = [int(row["epoch"]) for row in table(tmp_path / "runs/toy/version_1/metrics.csv") if row["train/loss"]]
    assert epochs == list(range(8))  # one history


def test_a_loss_that_is_not_finite_names_the_batch(toy, tmp_path):
    with pytest.raises(SystemExit, match=r"the training loss became nan in batch \d+ \(samples set .*lower --model.lr"):
        toy("fit", "--model.lr=1e30", "--trainer.max_epochs=30")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        pytest.param(["--ckpt_path=none.ckpt"], "checkpoint none.ckpt does not exist", id="file"),
        pytest.param(["--ckpt_path=best"], "no best.ckpt under runs/toy; run fit first", id="best"),
    ],
)
def test_missing_checkpoint(toy, flags, message):
    with pytest.raises(SystemExit, match=message):
        toy("test", *flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        pytest.param(["--model.reduction=mena"], "reduction: expected one of mean, sum, .* got 'mena'", id="name"),
        pytest.param(
            ["--model.reduction=mean", "--model.heads=4"], "reduction 'mean' does not take heads", id="option"
        ),
        pytest.param(["--data.on_bad=skip", "--data.train=0"], "toy: expected training sets, got none", id="data"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(toy, flags, message):
    with pytest.raises(SystemExit, match=rf"^error: {message}"):
        toy("fit", *flags)


def test_overlays_compose(toy, tmp_path, monkeypatch):
    toy("fit", "-c", str(ROOT / "configs" / "tensorboard.yaml"), "--trainer.max_epochs=1", "--run.root=elsewhere")
    run = tmp_path / "elsewhere" / "toy" / "version_0"
    assert list(run.glob("events.out.tfevents.*"))
    assert (run / "metrics.csv").is_file()
    assert not (tmp_path / "runs").exists()
    cli = run_cli(["-c", "toy.yaml", "-c", str(ROOT / "configs" / "debug.yaml")], run=False)
    assert cli.trainer.fast_dev_run


def test_weights_and_biases_follow_the_root_and_stay_offline(toy, monkeypatch):
    built = []

    class Recorder(DummyLogger):
        def __init__(self, name, **options):
            super().__init__()
            built.append((name, options))

    monkeypatch.setattr("tasks.commands.cli.WandbLogger", Recorder)
    monkeypatch.setenv("WANDB_MODE", "")
    monkeypatch.delenv("WANDB_MODE")
    toy("fit", "-c", str(ROOT / "configs" / "wandb.yaml"), "--trainer.max_epochs=1", "--run.root=elsewhere")
    assert built == [("toy/version_0", {"save_dir": "elsewhere", "project": "modalpool"})]
    assert os.environ["WANDB_MODE"] == "offline"


def test_a_smoke_test_leaves_nothing(toy, tmp_path):
    before = sorted(tmp_path.iterdir())
    toy("fit", "-c", str(ROOT / "configs" / "debug.yaml"))
    assert sorted(tmp_path.iterdir()) == before


def test_crossval_rows_mean_and_resume(toy, tmp_path, capsys):
    toy("crossval", "--seeds=0,1", "--trainer.max_epochs=2")
    folder = tmp_path / "runs" / "toy" / "crossval_0"
    rows = table(folder / "crossval.csv")
    assert [(row["fold"], row["seed"]) for row in rows] == [("0", "0"), ("1", "0"), ("0", "1"), ("1", "1")]
    values = torch.tensor([float(row["acc"]) for row in rows])
    summary = json.loads((folder / "summary.json").read_text())["test"]["acc"]
    assert summary["mean"] == pytest.approx(values.mean().item())
    assert summary["sd"] == pytest.approx(values.std().item(), abs=1e-6)
    assert capsys.readouterr().out.splitlines()[-1] == "look at: runs/toy/crossval_0/crossval.csv"

    assert yaml.safe_load((folder / "fold_0_seed_0" / "config.yaml").read_text())["outputs"]["every"] == 0

    stamp = (folder / "fold_0_seed_0" / "summary.json").stat().st_mtime_ns
    toy("crossval", "--seeds=0,1,2", "--folds=0", "--trainer.max_epochs=2", "--resume")
    assert len(table(folder / "crossval.csv")) == 3
    assert (folder / "fold_0_seed_0" / "summary.json").stat().st_mtime_ns == stamp
    with pytest.raises(
        SystemExit, match=r"crossval: expected the settings that .* got others \(.*max_epochs 2, now 3\)"
    ):
        toy("crossval", "--trainer.max_epochs=3", "--resume")


def test_crossval_asks_the_data_for_its_folds_before_any_is_read(toy, tmp_path):
    toy("crossval", "--data.first_fold=4", "--trainer.max_epochs=1")
    rows = table(tmp_path / "runs" / "toy" / "crossval_0" / "crossval.csv")
    assert [row["fold"] for row in rows] == ["4", "5"]
    with pytest.raises(SystemExit, match=r"^error: toy: expected a fold of \[4, 5\], got 0"):
        toy("fit", "--data.first_fold=4")


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        pytest.param("--model.lrr=1", "error: toy.ToyTask: Option 'lrr' is not accepted", id="of a class"),
        pytest.param("--trainer.max_epocs=1", "error: unrecognized arguments: --trainer.max_epocs=1", id="of all"),
    ],
)
def test_a_typo_is_said_first(toy, capsys, flag, said):
    with pytest.raises(SystemExit) as stopped:
        toy("fit", flag)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.splitlines()[0] == said


def test_help_names_the_commands(capsys):
    main([])
    text = capsys.readouterr().out
    assert all(word in text for word in ("fit", "test", "predict", "crossval"))


@pytest.mark.slow
def test_two_processes_write_every_sample_once(toy, tmp_path):
    config = ["-c", "toy.yaml", "-c", str(ROOT / "configs" / "ddp.yaml"), "--outputs.every=4"]
    command = [sys.executable, "-m", "tasks", "fit", *config, *QUIET]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "tasks")])
    result = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, timeout=200, check=False)
    assert result.returncode == 0
    rows = table(tmp_path / "runs" / "toy" / "version_0" / "predictions.csv")
    assert sorted({row["id"] for row in rows}) == sorted(row["id"] for row in rows)
    assert len(rows) == 32
    maps = tmp_path / "runs" / "toy" / "version_0" / "maps"
    assert {path.name: len(list(path.iterdir())) for path in maps.glob("epoch_*")} == {"epoch_004": 3, "epoch_008": 3}


def test_a_norm_before_the_head_survives_a_last_batch_of_one(toy, tmp_path):
    toy("fit", "--model.head_norm=true", "--model.reduction=sum", "--data.train=65", "--trainer.max_epochs=2")
    task = ToyTask.load_from_checkpoint(tmp_path / "runs/toy/version_0/checkpoints/last.ckpt")
    assert isinstance(task.head[1], torch.nn.BatchNorm1d)
    assert task.head[1].num_batches_tracked == 4  # two batches of 32 an epoch; the 65th sample sits out
