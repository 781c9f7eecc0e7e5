import pytest
import yaml
from undrawn import drawn, undrawn  # noqa: F401

from tasks.__main__ import main

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--outputs.bootstrap=20"]
PLAIN = [*QUIET, "--outputs.maps=0", "--outputs.every=0"]
FIT = ("fit", "validate", "test", "predict", "crossval", "heads")


@pytest.fixture
def plain(tmp_path, monkeypatch):
    """A folder to run in, with a config of the toy modality; calls `main` there, which draws nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tasks"])
    config = {
        "run": {"name": "toy"},
        "model": {"class_path": "toy.ToyTask", "init_args": {"lr": 0.02}},
        "data": {"class_path": "toy.ToyData", "init_args": {"kind": "binary"}},
        "trainer": {"max_epochs": 8, "accelerator": "cpu"},
    }
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(config))
    return lambda command, *flags: main([command, "-c", "toy.yaml", *(PLAIN if command in FIT else []), *flags])
