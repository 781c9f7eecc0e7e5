"""Ragged sets as bags of rows, for kernels on a CPU.

A sparse product adds up rows in order at the speed of memory. `torch.embedding_bag` is the faster one where rows are
narrow, in the cache, or in any order: bags of a permutation. Long sets are cut into bags of at most `BLOCK` rows, whose
sums are added in float64. What needs more than a sum works in chunks of bags that stay in the cache.

Legend: ``N`` elements, ``S`` sets, ``B`` bags, ``F`` all that follows the element axis.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from modalpool.kernels.choice import finite, inside, known, single
from modalpool.kernels.segments import Segments

__all__ = [
    "Bags",
    "Chunk",
    "add_rows",
    "bags_of",
    "look_up",
    "reduce_rows",
    "row_chunks",
    "rows_at_once",
    "simple",
    "sound",
    "steps",
]

BLOCK = 512
LONG = 1024
"""Up to how many elements one running sum is good enough."""
CHUNK = 2**19
"""How many values are worked on at a time: two megabytes in float32."""
WIDE = 48
"""From how many channels on a sparse product adds up rows in order, from memory, faster than `embedding_bag`."""
TINY_MASS = 1e-30
"""Below this total the exponentials of a softmax are taken again around their maximum."""

with warnings.catch_warnings():  # torch says once that they are in beta
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 0], [], [], (1, 0), dtype=torch.float32, device="cpu")


def add_rows(values: Tensor, rows: Tensor, offsets: Tensor, weight: Tensor | None = None) -> Tensor:
    """Sums of bags of rows: ``values (*, F)``, ``rows`` and ``weight (n,)``, ``offsets (B + 1,)`` to ``(B, F)``."""
    return torch.embedding_bag(values, rows, offsets, False, 0, False, weight, True)[0]


def reduce_rows(values: Tensor, rows: Tensor, offsets: Tensor, weight: Tensor | None, how: str) -> Tensor:
    """Reduce bags of rows by "sum", "amax" or "amin", as in `add_rows`; zero where a bag is empty."""
    weight = values.new_ones(len(rows)) if weight is None else weight
    bags = torch.sparse_csr_tensor(offsets, rows, weight, (len(offsets) - 1, len(values)))
    total: Tensor = torch.sparse.mm(bags, values, how)
    return total


def look_up(per_set: Tensor, index: Tensor) -> Tensor:
    """The set's row ``(S, F)`` of each element, ``(N, F)``; torch looks single numbers up by a faster way."""
    if per_set.shape[1] == 1:
        return per_set.squeeze(1).index_select(0, index)[:, None]
    return per_set.index_select(0, index)


class Chunk(NamedTuple):
    """Some bags whose elements fit into the cache."""

    low: int
    high: int  # elements, in set order
    bags: slice
    offsets: Tensor  # of the bags, within the chunk
    rows: Tensor  # 0 to the number of elements


_steps = torch.arange(0)


def steps(count: int) -> Tensor:
    """0 to ``count``; short ones are made once for all."""
    global _steps
    if count > 2**20:
        return torch.arange(count)
    if count > len(_steps):
        with torch.inference_mode(False):
            _steps = torch.arange(max(count, 2 * len(_steps)))
    return _steps[:count]


class Bags:
    """The elements of sets in bags: where each bag begins and, if sets are cut, whose it is."""

    def __init__(self, segments: Segments) -> None:
        self.segments = segments
        self.order = segments.order
        self.steps = steps(segments.count)
        self.rows = self.steps if self.order is None else self.order
        self.ptr = segments.ptr
        self.owner: Tensor | None = None
        if segments.count > LONG and known(segments.lengths.max()) > LONG:
            self.ptr = torch.cat([segments.ptr, torch.arange(0, segments.count, BLOCK)]).sort().values
            self.owner = torch.searchsorted(segments.ptr, self.ptr[:-1], right=True) - 1
            self.owner.clamp_(0, segments.size - 1)  # bags behind the last set are empty

    @property
    def count(self) -> int:
        """Number of bags B."""
        return self.ptr.shape[0] - 1

    def add(self, values: Tensor, weight: Tensor | None = None) -> Tensor:
        """Sums of ``(N, F)``, weighted ``(N,)``, over sets: ``(S, F)``."""
        weight = weight if weight is None or self.order is None else weight[self.order]
        return self.combine(self.add_rows(values, self.rows, weight))

    def add_rows(self, values: Tensor, rows: Tensor, weight: Tensor | None) -> Tensor:
        """Sums over bags of large ``values (*, F)``, for ``rows`` and ``weight (N,)`` in set order: ``(B, F)``."""
        if self.order is None and values.shape[1] >= WIDE:
            return reduce_rows(values, rows, self.ptr, weight, "sum")
        return add_rows(values, rows, self.ptr, weight)

    def combine(self, bags: Tensor) -> Tensor:
        """Sums of bags ``(B, F)`` to sums of sets ``(S, F)``."""
        if self.owner is None:
            return bags
        total = torch.zeros(self.segments.size, bags.shape[1], dtype=torch.float64)
        return total.index_add_(0, self.owner, bags.double()).to(bags.dtype)

    def chunks(self, width: int) -> Iterator[Chunk]:
        """Chunks of about `CHUNK` values, for elements of ``width`` values."""
        starts = torch.arange(0, self.segments.count, max(CHUNK // width, 1))
        first = torch.searchsorted(self.ptr, starts, right=True) - 1
        first[0] = 0  # empty bags come before it
        edges = [*torch.unique_consecutive(first).tolist(), self.count]
        bounds = self.ptr[edges].tolist()
        for k in range(len(edges) - 1):
            low, high = bounds[k], bounds[k + 1]
            yield Chunk(
                low,
                high,
                slice(*edges[k : k + 2]),
                self.ptr[edges[k] : edges[k + 1] + 1] - low,
                self.steps[: high - low],
            )

    def take(self, values: Tensor, chunk: Chunk) -> Tensor:
        """The elements of a chunk in set order; a view where they are so already."""
        if self.order is None:
            return values[chunk.low : chunk.high]
        rows = self.order[chunk.low : chunk.high]
        if values.ndim == 2 and values.is_floating_point():  # bags of one are fetched ahead
            return torch.embedding_bag(values, rows, chunk.rows, False, 0, False)[0]
        return values.index_select(0, rows)


def bags_of(segments: Segments) -> Bags:
    """The bags of segments, made once."""
    if segments.bags is None:
        segments.bags = Bags(segments)
    return segments.bags


def row_chunks(x: Tensor) -> Iterator[slice]:
    """Rows of x, some that fit into the cache at a time."""
    return (slice(low, low + rows_at_once(x)) for low in range(0, len(x), rows_at_once(x)))


def rows_at_once(x: Tensor) -> int:
    """How many rows of x fit into the cache."""
    return max(CHUNK // x.shape[1], 1)


def sound(total: Tensor, mass: Tensor, empty: Tensor) -> bool:
    """Whether no exponential overflowed and no set's vanished: Σ e x, Σ e ``(S, F)``, sets without any ``(S, 1)``."""
    return finite(total) and inside(mass.masked_fill(empty, 1.0), TINY_MASS, torch.inf)


def simple(x: Tensor, many: Tensor | None) -> bool:
    """Whether elements ``(N, C)`` are what the fused operations are made for."""
    return single(x) and x.is_contiguous() and x.ndim == 2 and many is None
