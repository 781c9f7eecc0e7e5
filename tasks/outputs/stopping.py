"""When a training ends early, and what is said of it."""

import math
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

EPOCHS, SAMPLES = 20, 200


class Patience(EarlyStopping):
    """Early stopping whose patience fits the validation part.

    The mean over n samples and k epochs of a loss is as sure as n · k is large, so few samples need many epochs: by
    default 20 where 200 or more validate, and 4000 / n where n do. (The samples are the same in every epoch, so this is
    a rule of thumb, not a test.)

    Args:
        monitor: What has to get better.
        patience: Epochs without anything better after which the training ends; None = 20, more for fewer than 200
            validation samples.
        kwargs: Options of Lightning's callback.
    """

    def __init__(self, monitor: str, patience: int | None = None, **kwargs: Any):
        super().__init__(monitor, patience=EPOCHS if patience is None else patience, **kwargs)
        self.fitting = patience is None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look at the validation part."""
        super().setup(trainer, pl_module, stage)
        validating = getattr(getattr(trainer, "datamodule", None), "datasets", {}).get("val")
        if self.fitting and stage == "fit" and validating is not None:
            self.patience = patience_for(len(validating))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting; the patience is the command line's."""
        super().load_state_dict({**state_dict, "patience": self.patience})


def patience_for(samples: int) -> int:
    """Epochs to wait where so many samples validate.

    Example:
        >>> patience_for(1000), patience_for(200), patience_for(54), patience_for(17)
        (20, 20, 75, 236)
    """
    return max(EPOCHS, math.ceil(EPOCHS * SAMPLES / max(1, samples)))


def how_it_ended(trainer: Trainer) -> dict[str, Any] | None:
    """How a training ended: epochs that were trained, ``of`` how many, which was ``best`` (1 is the first), and why.

    None where the trainer has trained nothing.
    """
    progress: Any = trainer.fit_loop.epoch_progress.current
    epochs = progress.processed
    if not epochs:
        return None
    keeper = trainer.checkpoint_callback
    best = getattr(keeper, "best_model_path", "")
    number = 1 + torch.load(best, map_location="cpu", weights_only=True)["epoch"] if Path(best).is_file() else None
    stop = next(
        (one for one in getattr(trainer, "callbacks", []) if isinstance(one, EarlyStopping) and one.stopped_epoch), None
    )
    why = "" if stop is None else stop.stopping_reason_message or ""
    if stop is not None and stop.wait_count >= stop.patience:
        why = f"no better {stop.monitor} for {stop.patience}"
    return {"epochs": epochs, "of": trainer.max_epochs, "best": number, "why": why}


def sentence(ended: dict[str, Any]) -> str:
    """The end of a training in words.

    Example:
        >>> sentence({"epochs": 28, "of": 80, "best": 8, "why": "no better val/loss for 20"})
        'stopped at epoch 28 of 80, best 8: no better val/loss for 20'
        >>> sentence({"epochs": 80, "of": 80, "best": 71, "why": ""})
        'trained 80 epochs, best 71'
    """
    best = "" if ended["best"] is None else f", best {ended['best']}"
    if ended["why"]:
        return f"stopped at epoch {ended['epochs']} of {ended['of']}{best}: {ended['why']}"
    return f"trained {ended['epochs']} epochs{best}"
