"""Views of whole batches: a modality crops and changes its batches at random, so that few things stay the same."""

from abc import ABC, abstractmethod
from typing import Any

import torch


class Crops(ABC):
    """Make views of a modality's batches, on whatever device they are.

    What a subclass's options are is what the modality does to a sample. All that is random is drawn from torch's own
    generator, or from one that is seeded by it, so that an epoch's views follow from its seed.
    """

    @abstractmethod
    def crop(self, batch: Any, low: float, high: float) -> Any:
        """A copy of the batch with a random part of each sample: between these shares of its elements, 0 to 1."""

    @abstractmethod
    def change(self, batch: Any) -> Any:
        """A copy of the batch whose samples are changed at random, each in its own way."""

    def view(self, batch: Any, size: tuple[float, float]) -> Any:
        """A part, changed."""
        return self.change(self.crop(batch, *size))


class Whole(Crops):
    """No views but what the data themselves draw anew at every look, and the network in training (dropout)."""

    def crop(self, batch: Any, low: float, high: float) -> Any:
        """The batch."""
        return batch

    def change(self, batch: Any) -> Any:
        """The batch."""
        return batch


def uniform(low: float, high: float, *shape: int, device: torch.device | None = None) -> torch.Tensor:
    """Random numbers between two."""
    return low + (high - low) * torch.rand(shape, device=device)
