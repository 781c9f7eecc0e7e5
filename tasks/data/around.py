"""Data that show another's samples in another way: as views, or in pairs."""

from typing import Any

import torch

from tasks.data.base import PoolingData


class Around(PoolingData):
    """Data made of others', whose fold, seed and workers they have.

    Args:
        source: The others.
        batch_size: Samples in a batch; the source's unless given.
    """

    def __init__(self, source: PoolingData, *, batch_size: int | None = None):
        super().__init__(
            batch_size=source.batch_size if batch_size is None else batch_size, num_workers=source.num_workers,
            fold=source.fold, seed=source.seed,
        )  # fmt: skip
        self.source = source

    def setup(self, stage: str | None = None) -> None:
        """Load once; the labels that a class must have to be learned are nobody's concern here."""
        if not self.datasets:
            self.load()

    def elements(self, sample: Any) -> int:
        """As the source counts them."""
        return self.source.elements(sample)

    def reseed(self, seed: int) -> None:
        """What the source's own transforms draw, too."""
        super().reseed(seed)
        self.source.reseed(seed)

    def few(self) -> Any:
        """A batch of two samples, as they are, to see what an encoder makes of them."""
        self.setup()
        still: Any = self.still("train")
        state = torch.get_rng_state()
        batch = self.collate([still[0], still[1]])
        torch.set_rng_state(state)
        return batch
