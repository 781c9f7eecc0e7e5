"""The kNN probe that watches a pretraining, beside the line of the network that it began with."""

from typing import Any, Protocol

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from tasks.data.base import PoolingData
from tasks.pretrain.alarms import knn
from tasks.pretrain.elements import vectors
from tasks.task.base import PoolingTask


class Watched(Protocol):
    """What is probed."""

    @property
    def result(self) -> PoolingTask:
        """The task as it is now."""

    @property
    def trainer(self) -> Trainer:
        """Who trains it."""


class Watch:
    """Ask now and then how much the nearest neighbours of a validation sample know of its target.

    Nothing is learned from the answer: labels of training and validation samples are looked at, and no test sample.

    Args:
        every: Epochs between two probes; None = about ten in a training, 0 = none.
    """

    def __init__(self, every: int | None):
        self.every = every
        self.random: float | None = None

    def begin(self, module: Watched) -> None:
        """Measure the network before its first step, unless a training goes on that had."""
        if self.random is None and self.every != 0:
            self.random = self.measure(module)

    def probe(self, module: Watched) -> dict[str, float]:
        """What is logged at the end of an epoch."""
        if self.every == 0 or self.random is None:
            return {}
        trainer = module.trainer
        last = trainer.max_epochs or 0
        every = self.every or max(1, last // 10)
        epoch = trainer.current_epoch + 1
        if epoch % every and epoch != last:
            return {}
        found = self.measure(module)
        return {} if found is None else {"val/knn": found, "random/knn": self.random}

    def measure(self, module: Watched) -> float | None:
        """The probe; None where the data have no validation part or no targets."""
        data: Any = getattr(module.trainer, "datamodule", None)
        source: PoolingData | None = getattr(data, "source", None)
        if source is None or not {"train", "val"} <= source.datasets.keys():
            return None
        train, val = (embedded(module.result, source, part) for part in ("train", "val"))
        return knn(*train, *val, source.spec["kind"])


@torch.no_grad()
def embedded(task: PoolingTask, data: PoolingData, part: str) -> tuple[Tensor, Tensor]:
    """Pooled vectors, (n, D), and targets of a part's samples, without random changes, on the CPU."""
    was, state = task.training, torch.get_rng_state()
    task.eval()
    z, targets = [], []
    device = next(task.parameters()).device
    for batch in data.loader(data.still(part), False):
        batch = task.transfer_batch_to_device(batch, device, 0)
        z.append(vectors(task, *task.encode(batch)).float().cpu())
        targets.append(task.target(batch).cpu())
    task.train(was)
    torch.set_rng_state(state)
    return torch.cat(z), torch.cat(targets)
