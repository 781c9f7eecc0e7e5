"""Contrast: two views of a sample are to be alike, and unlike all others."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch

from tasks.pretrain.elements import vectors
from tasks.pretrain.heads import projection
from tasks.pretrain.losses import nt_xent
from tasks.pretrain.objective import Objective, Step
from tasks.task.base import PoolingTask


class Contrast(Objective):
    """SimCLR: NT-Xent of projected vectors (`nt_xent`), averaged over the pairs of views that hold a global one.

    Args:
        width: Numbers of a pooled vector.
        hidden: Neurons of the projection's hidden layer.
        outputs: Numbers of a projected vector.
        temperature: Of the loss.
    """

    def __init__(self, width: int, *, hidden: int = 256, outputs: int = 64, temperature: float = 0.2):
        super().__init__()
        self.head = projection(width, hidden, outputs)
        self.temperature = temperature

    def step(self, student: PoolingTask, teacher: PoolingTask | None, views: Sequence[Any], progress: float) -> Step:
        """The loss of a batch; the teacher is nobody."""
        pooled = [vectors(student, *student.encode(view)) for view in views]
        z = [self.head(one) for one in pooled]
        losses = [nt_xent(z[i], z[j], self.temperature) for i, j in itertools.combinations(range(len(z)), 2) if i < 2]
        return Step(torch.stack(losses).mean(), pooled[0], {})
