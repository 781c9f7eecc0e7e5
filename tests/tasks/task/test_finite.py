"""A training loss that is not a number ends the run soon, by name, and before its weights are saved."""

import math

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from toy import ToyData, ToyTask

from tasks.data.problems import BadInput
from tasks.task.finite import FiniteLosses


def test_the_first_bad_batch_is_named_at_the_next_look():
    losses = FiniteLosses(every=4)
    losses.add(torch.tensor(1.0), 0, ["a", "b"])
    losses.add(torch.tensor(-math.inf), 1, [f"set {i}" for i in range(20)])
    losses.add(torch.tensor(math.nan), 2, ["c"])
    names = ", ".join(f"set {i}" for i in range(8))
    with pytest.raises(BadInput, match=rf"the training loss became -inf in batch 1 \(samples {names}, \.\.\.\); lower"):
        losses.add(torch.tensor(1.0), 3, ["d"])
    losses.look()  # what was told once is not told again


def test_losses_of_an_earlier_training_are_forgotten():
    losses = FiniteLosses(every=4)
    losses.add(torch.tensor(math.nan), 0, ["a"])
    losses.forget()
    losses.look()


class Poison(Callback):
    """Makes the weights NaN before a batch, and counts the batches from there."""

    def __init__(self, epoch, batch):
        self.moment, self.steps, self.validated = (epoch, batch), 0, 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.moment:
            torch.nn.init.constant_(pl_module.encoder.weight, math.nan)
            self.steps = 0
        self.steps += 1

    def on_validation_end(self, trainer, pl_module):
        self.validated += 1


@pytest.mark.parametrize("validated", [True, False])
def test_a_run_ends_before_the_epochs_checkpoint(tmp_path, validated):
    """Batch 2 of 6 of the second epoch: what is saved is the first epoch's state, as the message says."""
    data = ToyData(batch_size=16)
    poison, saved = Poison(1, 2), ModelCheckpoint(tmp_path, save_last=True)
    trainer = Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        callbacks=[poison, saved],
        limit_val_batches=None if validated else 0,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with pytest.raises(
        BadInput, match=r"the training loss became nan in batch 2 \(samples set \d+, .*lower --model.lr"
    ):
        trainer.fit(ToyTask(data.spec), datamodule=data)
    assert poison.validated == (1 if validated else 0)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert state["epoch"] == 0
    assert all(weight.isfinite().all() for weight in state["state_dict"].values())


def test_a_long_epoch_does_not_go_on_with_it(tmp_path):
    data = ToyData(batch_size=1, train=200)
    poison = Poison(0, 40)
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        callbacks=[poison],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    with pytest.raises(BadInput, match="the training loss became nan in batch 40"):
        trainer.fit(ToyTask(data.spec), datamodule=data)
    assert poison.steps <= 32
