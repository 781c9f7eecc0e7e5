import shutil

import pytest
import yaml
from undrawn import drawn, unchosen, undrawn  # noqa: F401

from tasks.__main__ import main

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--outputs.bootstrap=20"]
PLAIN = [*QUIET, "--outputs.maps=0", "--outputs.every=0"]
FIT = ("fit", "validate", "test", "predict", "crossval", "heads")


CONFIG = {
    "run": {"name": "toy"},
    "model": {"class_path": "toy.ToyTask", "init_args": {"lr": 0.02}},
    "data": {"class_path": "toy.ToyData", "init_args": {"kind": "binary"}},
    "trainer": {"max_epochs": 8, "accelerator": "cpu"},
}


def call(command, *flags):
    return main([command, "-c", "toy.yaml", *(PLAIN if command in FIT else []), *flags])


@pytest.fixture
def plain(tmp_path, monkeypatch):
    """A folder to run in, with a config of the toy modality; calls `main` there, which draws nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tasks"])
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(CONFIG))
    return call


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory):
    """A folder where `fit` ran for an epoch."""
    folder = tmp_path_factory.mktemp("one_epoch")
    (folder / "toy.yaml").write_text(yaml.safe_dump(CONFIG))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["tasks"])
        call("fit", "--trainer.max_epochs=1")
    return folder


@pytest.fixture
def trained(one_epoch, plain, tmp_path):
    """As `plain`, and `fit` ran for an epoch."""
    shutil.copytree(one_epoch, tmp_path, dirs_exist_ok=True)
    return plain
