"""Training batches of samples of similar size, so that little of a batch is padding."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tasks.data.order import Shuffle
from tasks.data.problems import BadInput


class Buckets(Shuffle):
    """Every sample once, in a random order in which each batch holds samples of similar size.

    A random rest that fills no batch comes last. The other samples are sorted by size and divided into buckets of whole
    batches; a batch is drawn at random from one bucket, and the batches come in random order. One bucket is a plain
    shuffle; as many buckets as batches sort the samples.

    Args:
        sizes: Size of each sample.
        batch: Samples in a batch (of all processes).
        buckets: How many buckets.
        seed: Another seed gives other orders.

    Raises:
        BadInput: If there is less than one bucket.

    Example:
        >>> sizes = [1, 30, 31, 2, 32, 3]
        >>> order = list(Buckets(sizes, batch=3, buckets=2, seed=0))
        >>> sorted(max(sizes[i] for i in batch) for batch in (order[:3], order[3:]))
        [3, 32]
    """

    def __init__(self, sizes: Sequence[int], *, batch: int, buckets: int, seed: int):
        super().__init__(len(sizes), seed=seed)
        if buckets < 1:
            raise BadInput(f"expected 1 or more buckets, got {buckets}; 1 shuffles all samples together")
        self.sizes, self.batch, self.buckets = torch.tensor(sizes), batch, buckets

    def draw(self, generator: torch.Generator) -> list[int]:
        """One order of the samples."""

        def shuffled(rows: Tensor) -> Tensor:
            return rows[torch.randperm(len(rows), generator=generator)]

        order = shuffled(torch.arange(len(self)))
        whole = len(self) - len(self) % self.batch
        first = order[:whole]
        first = first[self.sizes[first].argsort(stable=True)]  # equal sizes stay in random order
        parts = first.view(-1, self.batch).tensor_split(self.buckets)
        batches = torch.cat([shuffled(part.flatten()).view(-1, self.batch) for part in parts])
        return torch.cat([shuffled(batches).flatten(), order[whole:]]).tolist()
