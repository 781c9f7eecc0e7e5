"""``python -m tasks pretrain``: a config of `fit` is enough, and what goes in and comes out is said."""

import json
import os
import subprocess
import sys

import pytest
import torch
import yaml
from toy import ROOT

from tasks.__main__ import main
from tasks.commands.inner import own_options
from tasks.pretrain.data import PretrainData
from tasks.pretrain.task import PretrainTask, load_pretrained

FLAGS = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.max_epochs=2"]


@pytest.fixture
def pretrain(plain, tmp_path):
    """The toy config of `fit`, with sections that pretraining has no use for."""
    path = tmp_path / "toy.yaml"
    config = yaml.safe_load(path.read_text())
    config |= {"early_stopping": {"patience": 3}, "checkpoint": {"monitor": None}, "outputs": {"maps": 0}}
    path.write_text(yaml.safe_dump(config))
    return lambda *flags: main(["pretrain", "-c", "toy.yaml", *FLAGS, *flags])


@pytest.mark.parametrize("objective", ["ntxent", "dino", "masked"])
def test_a_config_of_fit_is_enough(pretrain, objective, tmp_path, capsys):
    pretrain(f"--model.objective={objective}", "--model.hidden=16", "--data.train=24", "--data.batch_size=8")
    folder = tmp_path / "runs" / "toy" / "version_0"
    assert {path.name for path in folder.iterdir()} >= {
        "config.yaml", "metrics.csv", "curves.png", "summary.json", "split.csv", "checkpoints"
    }  # fmt: skip
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["objective"] == objective
    assert {"train/loss", "val/knn", "random/knn"} <= summary["last"].keys()
    task = load_pretrained(folder / "checkpoints" / "last.ckpt")
    assert task.hparams["lr"] == 1e-3  # the config's lr is pretraining's: the task's own is never used here
    printed = capsys.readouterr().out
    assert "Results: runs/toy/version_0" in printed
    assert "Checkpoint: runs/toy/version_0/checkpoints/last.ckpt" in printed
    rows = (folder / "split.csv").read_text().splitlines()
    assert len(rows) == 25


def test_options_go_where_they_belong(pretrain, capsys):
    with pytest.raises(SystemExit):
        pretrain("--model.reduction=max", "--model.lr=0.5", "--data.train=24", "--data.local_views=3", "--print_config")
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["lr"] == 0.5
    assert config["model"]["task"]["class_path"] == "toy.ToyTask"
    assert config["model"]["task"]["init_args"]["reduction"] == "max"
    assert config["data"]["local_views"] == 3
    assert config["data"]["source"]["init_args"]["train"] == 24
    assert "early_stopping" not in config


def test_it_goes_on_from_the_last_epoch(pretrain, tmp_path):
    pretrain("--data.train=24", "--data.batch_size=8", "--run.version=whole")
    pretrain("--data.train=24", "--data.batch_size=8", "--run.version=part", "--trainer.callbacks+=toy.StopEarly")
    part = tmp_path / "runs" / "toy" / "part" / "checkpoints" / "last.ckpt"
    pretrain("--data.train=24", "--data.batch_size=8", "--run.version=rest", f"--ckpt_path={part}")
    whole, rest = (
        torch.load(tmp_path / "runs" / "toy" / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "rest")
    )
    assert all(torch.equal(value, rest[name]) for name, value in whole.items())
    curves = [(tmp_path / "runs" / "toy" / name / "metrics.csv").read_text() for name in ("whole", "rest")]
    assert len(curves[0].splitlines()) == len(curves[1].splitlines())


def test_last_is_the_newest_run_of_that_name(pretrain, tmp_path, capsys):
    common = ["--data.train=24", "--data.batch_size=8", "--model.objective=dino"]
    pretrain(*common, "--trainer.max_epochs=1", "--run.version=first")
    pretrain(*common, "--trainer.max_epochs=3", "--run.version=rest", "--ckpt_path=last")
    rows = (tmp_path / "runs" / "toy" / "rest" / "metrics.csv").read_text().splitlines()
    assert [row.partition(",")[0] for row in rows] == ["epoch", "0", "1", "2"]
    stored = torch.load(tmp_path / "runs" / "toy" / "rest" / "checkpoints" / "last.ckpt", weights_only=True)
    assert stored["global_step"] == 9
    assert "Results: runs/toy/rest" in capsys.readouterr().out


def test_a_checkpoint_of_fit_and_one_of_pretrain_are_not_mixed_up(pretrain, plain, tmp_path):
    pretrain("--data.train=16", "--model.probe_every=0", "--trainer.max_epochs=1", "--run.name=free")
    free = "runs/free/version_0/checkpoints/last.ckpt"
    with pytest.raises(SystemExit, match=r"expected a checkpoint that fit wrote, got one of pretrain.*--model.pretr"):
        plain("fit", f"--ckpt_path={free}")
    with pytest.raises(SystemExit, match=r"expected a checkpoint that fit wrote, got one of pretrain"):
        plain("test", f"--ckpt_path={free}")
    plain("fit", "--trainer.max_epochs=1", "--floors=false")
    with pytest.raises(SystemExit, match=r"expected a checkpoint that pretrain wrote, got one of fit; leave"):
        pretrain("--ckpt_path=last")


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]])
def test_help_names_its_own_options(args, capsys):
    main(["pretrain", *args])
    out = " ".join(capsys.readouterr().out.split())
    assert out.startswith("usage: python -m tasks pretrain -c CONFIG")
    assert "--model.tied VALUE One head for samples and elements (dino with ibot). [False]" in out
    for kind, section in ((PretrainTask, "model"), (PretrainData, "data")):
        assert all(f"--{section}.{name} VALUE" in out for name in own_options(kind))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.objective=jepa"], "jepa"),
        (["--data.heard=[trial]"], "expected heard of train, val, test, predict, got trial"),
        (["--model.depth=3"], "depth"),
        (
            ["--model.objective=dino", "--model.ibot=1", "--model.tied=true", "--model.reduction=[mean,max]"],
            "error: tied: expected pooled vectors of as many numbers as elements have for one head, got ",
        ),
        (["--ckpt_path=none.ckpt"], "checkpoint none.ckpt does not exist"),
    ],
)
def test_what_cannot_be_is_told(pretrain, flags, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        pretrain(*flags)
    assert message in str(stopped.value.code) + capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["ntxent", "dino"])
def test_two_processes_end_in_one_training(pretrain, objective, tmp_path):
    """The whole command, every sample in every step: weights that are the same in the end."""
    common = [f"--model.objective={objective}", "--data.train=16", "--model.probe_every=0"]
    common += ["--trainer.precision=64-true"]  # Adam makes whole steps of the rounding of gradients that are zero
    pretrain(*common, "--data.batch_size=16", "--run.version=one")
    flags = ["--data.batch_size=8", "--run.version=two", "--trainer.devices=2", "--trainer.strategy=ddp"]
    command = [sys.executable, "-m", "tasks", "pretrain", "-c", "toy.yaml", *FLAGS, *common, *flags]
    folders = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "tasks")])
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": folders}, timeout=250)
    one, two = (
        torch.load(tmp_path / "runs" / "toy" / name / "checkpoints" / "last.ckpt", weights_only=True)
        for name in ("one", "two")
    )
    assert one["global_step"] == two["global_step"] == 2
    for name, value in one["state_dict"].items():
        # Adam divides by the size of a gradient: where that is next to nothing, its rounding shows.
        torch.testing.assert_close(two["state_dict"][name], value, rtol=0, atol=5e-3, msg=lambda m, n=name: f"{n}: {m}")
