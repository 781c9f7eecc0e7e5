"""A seed is all of a run's chance: the same one gives the same run, another one other weights, order and views."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from tasks.__main__ import main
from tasks.commands.tables import write_csv
from tasks.task.base import PoolingTask

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def seen(monkeypatch):
    """What runs began with and were given: first weights, then ids and inputs of every training batch."""
    runs = []
    start, step = PoolingTask.on_train_start, PoolingTask.training_step

    def on_train_start(task):
        runs.append({"weights": torch.cat([p.detach().flatten() for p in task.parameters()]), "ids": [], "inputs": []})
        start(task)

    def training_step(task, batch, batch_idx):
        runs[-1]["ids"] += task.ids(batch)
        runs[-1]["inputs"].append(task.inputs(batch).flatten(1).sum(1))
        return step(task, batch, batch_idx)

    monkeypatch.setattr(PoolingTask, "on_train_start", on_train_start)
    monkeypatch.setattr(PoolingTask, "training_step", training_step)
    return runs


def run(command, tmp_path, *args):
    main(
        [
            *command,
            f"--run.root={tmp_path}",
            "--outputs.maps=0",
            "--outputs.every=0",
            "--outputs.bootstrap=0",
            "--floors=false",
            "--trainer.max_epochs=2",
            *args,
        ]
    )


@pytest.fixture
def volumes(tmp_path):
    """Crossval over volumes of noise, changed at random in training."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(12):
        name = f"{number}.nii.gz"
        voxels = rng.normal(100, 20, (8, 8, 8)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / name)
        rows.append({"path": name, "size": float(number)})
    write_csv(tmp_path / "volumes.csv", rows)
    config = {
        "model": {"class_path": "tasks.volume.VolumeTask", "init_args": {"width": 4, "levels": 1}},
        "data": {
            "class_path": "tasks.volume.CSVData",
            "init_args": {
                "root": str(tmp_path / "volumes.csv"), "target": "size", "task": "regression", "size": [8, 8, 8],
                "folds": 3, "batch_size": 4, "augment": {"probability": 1.0},
            },
        },
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    return ["crossval", "-c", str(tmp_path / "config.json"), "--folds=0"]


@pytest.fixture
def graphs():
    """Crossval over generated graphs."""
    config = str(ROOT / "configs" / "graph" / "motifs.yaml")
    return ["crossval", "-c", config, "--folds=0", "--data.train=24", "--data.val=8", "--data.test=8"]


@pytest.mark.parametrize("kind", ["graphs", "volumes"])
def test_seeds_reach_weights_order_and_views(kind, seen, tmp_path, request):
    command = request.getfixturevalue(kind)
    run(command, tmp_path, "--seeds=0,1")
    run(command, tmp_path, "--seeds=0")
    first, other, again = seen
    assert torch.equal(first["weights"], again["weights"])
    assert first["ids"] == again["ids"]
    assert all(map(torch.equal, first["inputs"], again["inputs"]))
    assert not torch.equal(first["weights"], other["weights"])
    assert first["ids"] != other["ids"]
    assert sorted(first["ids"]) == sorted(other["ids"])  # the same samples, in another order
    half = len(first["ids"]) // 2
    assert first["ids"][:half] != first["ids"][half:]  # nor do two epochs have one order
    if kind == "volumes":  # and the same volume is never changed in the same way
        views = torch.cat(first["inputs"] + other["inputs"])
        assert len(views.unique()) == len(views)
