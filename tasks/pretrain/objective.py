"""What an objective is to `PretrainTask`: a loss of views, heads of its own, and what they say of the training."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from tasks.task.base import PoolingTask


class Step(NamedTuple):
    """One step's loss, the student's pooled vectors, and what is logged beside them."""

    loss: Tensor
    vectors: Tensor
    logged: dict[str, Tensor]


class Objective(nn.Module, ABC):
    """A loss without labels."""

    @abstractmethod
    def step(self, student: PoolingTask, teacher: PoolingTask | None, views: Sequence[Any], progress: float) -> Step:
        """The loss of a batch.

        Args:
            student: What is trained.
            teacher: What follows it; None where the objective needs none.
            views: Batches of the same samples, the first two global.
            progress: How much of the training is over, 0 to 1.
        """

    def follow(self, momentum: float) -> None:
        """Move what is the teacher's after the student's."""

    def frozen(self, progress: float) -> Iterable[nn.Parameter]:
        """Parameters that do not learn yet."""
        return ()
