"""The command line on sound: one command trains, tests and explains; the checkpoint works again from both sides."""

import csv
import json
from pathlib import Path

import pytest
import torch
from undrawn import unchosen, undrawn  # noqa: F401

from tasks.__main__ import main
from tasks.audio import AudioTask

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "audio"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the command line quietly, with results under the test's own folder."""
    monkeypatch.setattr("sys.argv", ["tasks"])
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"]

    def call(*args):
        main([*args, *quiet, f"--run.root={tmp_path / 'runs'}"])

    return call


def test_a_manifest_from_one_command_to_predictions(run, tones, tmp_path):
    small = ["--model.widths=[4,4]", "--model.mels=24", "--trainer.max_epochs=1", "--run.name=x", "--data.val=0.3"]
    config = ["-c", str(CONFIGS / "manifest.yaml"), "--data.manifest", tones.manifest(), "--data.fold=1"]
    run("fit", *config, *small, "--model.reduction=attention", "--model.heads=2")
    folder = tmp_path / "runs" / "x" / "version_0"
    rows = list(csv.DictReader((folder / "predictions.csv").open()))
    assert [row["id"] for row in rows] == ["03.wav", "04.wav", "05.wav"]
    assert [row["target"] for row in rows] == ["100 Hz", "400 Hz", "1600 Hz"]
    assert all(abs(sum(float(row[name]) for name in row if name.startswith("p(")) - 1) < 1e-4 for row in rows)
    assert len(list((folder / "maps").glob("*.png"))) == 3
    assert "acc" in json.loads((folder / "summary.json").read_text())["test"]

    best = folder / "checkpoints" / "best.ckpt"
    task = AudioTask.load_from_checkpoint(best, weights_only=True)
    assert task.pool.out_channels == 4
    assert task.spec["classes"] == ["100 Hz", "1600 Hz", "400 Hz"]
    run(
        "test",
        *config,
        *small[:2],
        "--model.reduction=attention",
        "--model.heads=2",
        "--ckpt_path",
        str(best),
        "--run.name=y",
    )
    again = list(csv.DictReader((tmp_path / "runs" / "y" / "version_0" / "predictions.csv").open()))
    assert again == rows


@pytest.mark.parametrize("name", ["timbre", "rhythm"])
def test_generated_sounds_train_from_their_config(run, tmp_path, name):
    sizes = ["--data.train=12", "--data.val=6", "--data.test=12", "--trainer.max_epochs=1", "--outputs.maps=1"]
    sizes += ["--outputs.mistakes=0"]
    run("fit", "-c", str(CONFIGS / f"{name}.yaml"), *sizes, "--run.name=x")
    folder = tmp_path / "runs" / "x" / "version_0"
    assert len(list(folder.glob("maps/*.png"))) == 1
    checkpoint = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["spec"]["sample_rate"] == 16000
