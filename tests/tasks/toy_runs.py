"""Folders in which the command line runs on the toy modality."""

import pytest
import yaml

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--outputs.bootstrap=20"]
CONFIG = {
    "run": {"name": "toy"},
    "model": {"class_path": "toy.ToyTask", "init_args": {"lr": 0.02}},
    "data": {"class_path": "toy.ToyData", "init_args": {"kind": "binary"}},
    "trainer": {"max_epochs": 8, "accelerator": "cpu"},
}


def begin(folder, monkeypatch):
    """Go to a folder and write the config there."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["tasks"])
    (folder / "toy.yaml").write_text(yaml.safe_dump(CONFIG))


def fit_once(folder, call, *flags):
    """Let `fit` run in a folder that the tests of a module then copy."""
    with pytest.MonkeyPatch.context() as patch:
        begin(folder, patch)
        call("fit", *flags)
    return folder
