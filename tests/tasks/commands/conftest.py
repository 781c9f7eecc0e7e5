import shutil

import pytest
from toy_runs import QUIET, begin, fit_once
from undrawn import drawn, unchosen, undrawn  # noqa: F401

from tasks.__main__ import main

PLAIN = [*QUIET, "--outputs.maps=0", "--outputs.every=0"]
FIT = ("fit", "validate", "test", "predict", "crossval", "heads")


def call(command, *flags):
    return main([command, "-c", "toy.yaml", *(PLAIN if command in FIT else []), *flags])


@pytest.fixture
def plain(tmp_path, monkeypatch):
    """A folder to run in, with a config of the toy modality; calls `main` there, which draws nothing."""
    begin(tmp_path, monkeypatch)
    return call


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory):
    """A folder where `fit` ran for an epoch."""
    return fit_once(tmp_path_factory.mktemp("one_epoch"), call, "--trainer.max_epochs=1")


@pytest.fixture
def trained(one_epoch, plain, tmp_path):
    """As `plain`, and `fit` ran for an epoch."""
    shutil.copytree(one_epoch, tmp_path, dirs_exist_ok=True)
    return plain
