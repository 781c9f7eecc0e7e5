"""A short pretraining of the toy modality."""

from lightning.pytorch import Trainer, seed_everything
from toy import ToyData, ToyTask

from tasks.outputs.checkpoints import Last, Resumable
from tasks.pretrain.data import PretrainData
from tasks.pretrain.task import PretrainTask


def make(objective, *, batch_size=16, hidden=8, task_options=None, data_options=None, **options):
    seed_everything(0, verbose=False)
    data = PretrainData(ToyData(train=32), batch_size=batch_size, **(data_options or {}))
    task = ToyTask(data.spec, hidden=hidden, **(task_options or {}))
    return PretrainTask(task, objective=objective, hidden=16, lr=0.01, probe_every=1, **options), data


def fit(module, data, folder, epochs=2, path=None, more=(), **options):
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, callbacks=[Resumable(), Last(), *more], **options,
    )  # fmt: skip
    trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
    return trainer
