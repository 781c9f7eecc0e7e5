"""The order in which training samples come: drawn anew for every epoch, from a seed and the epoch's number alone.

A training that was interrupted so goes on in the order in which it would have gone on.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DistributedSampler, Sampler


def seed_of(*numbers: int) -> int:
    """One seed of several numbers, each of which makes it another one.

    Example:
        >>> seed_of(0, 1) == seed_of(0, 1), seed_of(0, 1) == seed_of(1, 0)
        (True, False)
    """
    return int(np.random.SeedSequence([number % 2**64 for number in numbers]).generate_state(1)[0])


class Shuffle(Sampler[int]):
    """Every sample once, in a random order.

    The order does not depend on what else was drawn, so it is the same in all processes.

    Args:
        size: Number of samples.
        seed: Another seed gives other orders.

    Example:
        >>> order = Shuffle(5, seed=0)
        >>> first = list(order)
        >>> order.set_epoch(3)
        >>> third = list(order)
        >>> sorted(third) == list(range(5)), third == list(order)  # a second look in one epoch is another order
        (True, False)
        >>> order.set_epoch(0)
        >>> list(order) == first
        True
    """

    def __init__(self, size: int, *, seed: int):
        self.size, self.seed = size, seed
        self.trainer: Any = None
        self.batch, self.place = 1, (0, 0)
        self.set_epoch(0)

    def follow(self, trainer: Any, batch: int) -> None:
        """Let a trainer say where it is, whenever an order is drawn: it may go on with a training, within an epoch.

        Args:
            trainer: Lightning's; None = nobody's.
            batch: Samples in a batch (of all processes).
        """
        self.trainer, self.batch = trainer, batch

    def set_epoch(self, epoch: int) -> None:
        """Tell the number of the epoch; Lightning does, before each."""
        self.epoch, self.looks = epoch, 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        done = self._done()
        generator = torch.Generator().manual_seed(seed_of(self.seed, self.epoch, self.looks))
        self.looks += 1
        yield from self.draw(generator)[done:]

    def _done(self) -> int:
        """Samples of this epoch that came before, where a training goes on within it."""
        if self.trainer is None:
            return 0
        loop = self.trainer.fit_loop
        batches = loop.epoch_loop.batch_progress
        place = loop.epoch_progress.current.processed, 0 if batches.is_last_batch else batches.current.ready
        if place != self.place:
            self.set_epoch(place[0])
            self.place = place
        return 0 if self.looks else place[1] * self.batch

    def draw(self, generator: torch.Generator) -> list[int]:
        """One order of the samples."""
        return torch.randperm(self.size, generator=generator).tolist()


class Dealt(DistributedSampler[int]):
    """One process's part of an order that all processes draw alike: they take a sample in turn.

    Together the batches of all processes are those of one process with batches as large as theirs together. The first
    samples come again at the end where that gives all as many. Lightning's own sampler, which it puts in place where
    there is none of this kind, would shuffle the order once more.

    Args:
        order: The order.
        processes: How many they are.
        rank: Which one this is.

    Example:
        >>> [list(Dealt(range(5), processes=2, rank=rank)) for rank in (0, 1)]
        [[0, 2, 4], [1, 3, 0]]
    """

    def __init__(self, order: Shuffle | range, *, processes: int, rank: int):
        super().__init__(range(len(order)), processes, rank, shuffle=False)  # type: ignore[arg-type]
        self.order: Iterable[int] = order

    def __iter__(self) -> Iterator[int]:
        order = list(self.order)  # of an epoch that goes on, the rest
        missing = -len(order) % self.num_replicas
        order += (order * missing)[:missing]
        yield from order[self.rank :: self.num_replicas]

    def set_epoch(self, epoch: int) -> None:
        """Tell the number of the epoch."""
        if isinstance(self.order, Shuffle):
            self.order.set_epoch(epoch)
