"""The module for any modality: what it trains, what comes out of it, and that it goes on exactly."""

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from toy import ToyData, ToyTask

from tasks.outputs.checkpoints import Last, Resumable
from tasks.pretrain.data import PretrainData
from tasks.pretrain.task import PretrainTask, load_pretrained

OBJECTIVES = ["ntxent", "dino", "masked"]


def make(objective, *, batch_size=16, hidden=8, task_options=None, data_options=None, **options):
    seed_everything(0, verbose=False)
    data = PretrainData(ToyData(train=32), batch_size=batch_size, **(data_options or {}))
    task = ToyTask(data.spec, hidden=hidden, **(task_options or {}))
    return PretrainTask(task, objective=objective, hidden=16, lr=0.01, probe_every=1, **options), data


def fit(module, data, folder, epochs=2, path=None, **options):
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, callbacks=[Resumable(), Last()], **options,
    )  # fmt: skip
    trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
    return trainer


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_task_comes_out_of_the_checkpoint(objective, tmp_path):
    module, data = make(objective)
    trainer = fit(module, data, tmp_path)
    path = next(tmp_path.rglob("last.ckpt"))
    task = load_pretrained(path)
    kept = module.teacher if objective == "dino" else module.student
    assert type(task) is ToyTask
    for name, weight in kept.state_dict().items():
        assert torch.equal(weight, task.state_dict()[name]), name
    start = make(objective)[0].student.encoder.weight
    assert not torch.equal(task.encoder.weight, start)
    assert torch.equal(module.student.head[-1].weight, make(objective)[0].student.head[-1].weight)  # no label, no use
    assert {"train/loss", "train/deviation", "val/knn", "random/knn"} <= trainer.callback_metrics.keys()
    stored = torch.load(path, weights_only=True)
    assert stored["trained"]["samples"]["train"].tolist() == data.digests("train")
    again = PretrainTask.load_from_checkpoint(path, weights_only=True)
    assert again.state_dict().keys() == module.state_dict().keys()
