"""How every task is trained: AdamW, whose learning rate rises in a line and falls in a cosine."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn


def adamw(
    parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float, warmup: float, steps: float
) -> OptimizerLRSchedulerConfig:
    """AdamW with linear warm-up and cosine decay (Loshchilov and Hutter 2017 and 2019), stepped at every batch.

    Args:
        parameters: Those that take a gradient are trained.
        lr: Peak learning rate.
        weight_decay: Of matrices; biases and norms have none.
        warmup: Share of the steps in which the rate rises to its peak.
        steps: Steps of the training; infinite where no end is set: then 100 steps rise, and nothing falls.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},  # biases and norms
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr)
    rise = max(1, round(warmup * steps)) if math.isfinite(steps) else 100

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        if math.isinf(steps):
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def keep_options(module: LightningModule, lr: float, weight_decay: float) -> None:
    """Let these hold in an optimizer of `adamw`, whose state a checkpoint may have brought with other ones."""
    optimizer: Any = module.optimizers(use_pl_optimizer=False)
    scheduler: Any = module.lr_schedulers()
    scheduler.base_lrs = [lr] * len(scheduler.base_lrs)
    for group, decay in zip(optimizer.param_groups, (weight_decay, 0.0), strict=True):
        group.update(lr=lr * scheduler.lr_lambdas[0](scheduler.last_epoch), initial_lr=lr, weight_decay=decay)
