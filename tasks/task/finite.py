"""Is every training loss a number? Asked now and then, because asking waits for the device."""

import math

import torch
from torch import Tensor

from tasks.data.problems import BadInput


class FiniteLosses:
    """The losses since the last look, on their device, and whose they are.

    On a GPU a step is put into a queue, and the process goes on to the next one; to read a number it would have to wait
    until the queue is empty. So losses are kept, and read together.

    Args:
        every: Steps between two looks.

    Example:
        >>> losses = FiniteLosses(every=2)
        >>> losses.add(torch.tensor(0.5), 0, ["a"])
        >>> losses.add(torch.tensor(torch.nan), 1, ["b", "c"])
        Traceback (most recent call last):
        ...
        tasks.data.problems.BadInput: the training loss became nan in batch 1 (samples b, c, ...); lower --model.lr or \
look at these inputs; the last epoch's state is in checkpoints/last.ckpt
    """

    def __init__(self, every: int = 32):
        self.every = every
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._kept: list[tuple[Tensor, int, list[str]]] = []

    def add(self, loss: Tensor, batch: int, ids: list[str]) -> None:
        """Keep the loss of a batch, and look when there are enough.

        Args:
            loss: A scalar.
            batch: The batch's number.
            ids: Names of its samples.

        Raises:
            BadInput: As `look`.
        """
        self._kept.append((loss.detach(), batch, ids[:8]))
        if len(self._kept) >= self.every:
            self.look()

    def look(self) -> None:
        """Wait for the losses that were kept, and read them.

        Raises:
            BadInput: Naming the first batch whose loss is not finite.
        """
        kept = self._kept
        self.forget()
        values = torch.stack([loss for loss, _, _ in kept]).tolist() if kept else []
        for value, (_, batch, ids) in zip(values, kept, strict=True):
            if not math.isfinite(value):
                raise BadInput(
                    f"the training loss became {value} in batch {batch} (samples {', '.join(ids)}, ...); lower "
                    "--model.lr or look at these inputs; the last epoch's state is in checkpoints/last.ckpt"
                )
