"""Rows of ragged sets, added up on a CPU.

A sparse product adds up rows in order at the speed of memory. `torch.embedding_bag` is the faster one where rows are
narrow, in the cache, or in any order: it takes a permutation. Long sets are cut into runs (`Segments.row_runs`), whose
sums are added in float64. What needs more than a sum works in chunks of runs that stay in the cache.

Legend: ``N`` elements, ``S`` sets, ``R`` runs, ``F`` all that follows the element axis.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from modalpool.kernels import tuning
from modalpool.kernels.segments import Segments
from modalpool.kernels.values import Many, accumulation_type, finite, inside, single

with warnings.catch_warnings():  # torch says once that they are in beta
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 0], [], [], (1, 0), dtype=torch.float32, device="cpu")


def add_rows(values: Tensor, rows: Tensor, offsets: Tensor, weight: Tensor | None = None) -> Tensor:
    """Sums of runs of rows: ``values (*, F)``, ``rows`` and ``weight (n,)``, ``offsets (R + 1,)`` to ``(R, F)``."""
    return torch.embedding_bag(values, rows, offsets, False, 0, False, weight, True)[0]


def reduce_rows(values: Tensor, rows: Tensor, offsets: Tensor, weight: Tensor | None, how: str) -> Tensor:
    """Reduce runs of rows by "sum", "amax" or "amin", as in `add_rows`; zero where a run is empty."""
    weight = values.new_ones(len(rows)) if weight is None else weight
    runs = torch.sparse_csr_tensor(offsets, rows, weight, (len(offsets) - 1, len(values)))
    total: Tensor = torch.sparse.mm(runs, values, how)
    return total


def look_up(per_set: Tensor, index: Tensor) -> Tensor:
    """The set's row ``(S, F)`` of each element, ``(N, F)``; torch looks single numbers up by a faster way."""
    if per_set.shape[1] == 1:
        return per_set.squeeze(1).index_select(0, index)[:, None]
    return per_set.index_select(0, index)


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


def add(segments: Segments, values: Tensor, weight: Tensor | None = None) -> Tensor:
    """Sums of ``(N, F)``, weighted ``(N,)``, over sets: ``(S, F)``."""
    bounds, order = segments.row_runs[0], segments.order
    if order is not None:
        sums = add_rows(values, order, bounds, None if weight is None else weight[order])
    elif values.shape[1] >= tuning.WIDE:
        sums = reduce_rows(values, steps(segments.count), bounds, weight, "sum")
    else:
        sums = add_rows(values, steps(segments.count), bounds, weight)
    return combine(segments, sums)


def combine(segments: Segments, sums: Tensor) -> Tensor:
    """Sums of runs ``(R, F)`` to sums of sets ``(S, F)``."""
    owner = segments.row_runs[1]
    if owner is None:
        return sums
    total = torch.zeros(segments.size, sums.shape[1], dtype=torch.float64)
    return total.index_add_(0, owner, sums.double()).to(sums.dtype)


def per_run(segments: Segments, x: Tensor, width: int) -> Tensor:
    """Room for ``width`` sums of each run, ``(R, width)``, in the accumulation type of x."""
    return x.new_empty(len(segments.row_runs[0]) - 1, width, dtype=accumulation_type(x.dtype))


class Chunk(NamedTuple):
    """Some runs whose elements fit into the cache."""

    low: int
    high: int  # elements, in set order
    runs: slice
    offsets: Tensor  # of the runs, within the chunk
    rows: Tensor  # 0 to the number of elements


def chunks(segments: Segments, width: int) -> Iterator[Chunk]:
    """Chunks of about `tuning.CHUNK` values, for elements of ``width`` values."""
    bounds, every = segments.row_runs[0], steps(segments.count)
    starts = torch.arange(0, segments.count, max(tuning.CHUNK // width, 1))
    first = torch.searchsorted(bounds, starts, right=True) - 1
    first[0] = 0  # empty runs come before it
    edges = [*torch.unique_consecutive(first).tolist(), len(bounds) - 1]
    places = bounds[edges].tolist()
    for k in range(len(edges) - 1):
        low, high = places[k], places[k + 1]
        offsets = bounds[edges[k] : edges[k + 1] + 1] - low
        yield Chunk(low, high, slice(*edges[k : k + 2]), offsets, every[: high - low])


def take(segments: Segments, values: Tensor, chunk: Chunk) -> Tensor:
    """The elements of a chunk in set order; a view where they are so already."""
    order = segments.order
    if order is None:
        return values[chunk.low : chunk.high]
    rows = order[chunk.low : chunk.high]
    if values.ndim == 2 and values.is_floating_point():  # runs of one are fetched ahead
        return torch.embedding_bag(values, rows, chunk.rows, False, 0, False)[0]
    return values.index_select(0, rows)


def row_chunks(x: Tensor) -> Iterator[slice]:
    """Rows of x, some that fit into the cache at a time."""
    return (slice(low, low + rows_at_once(x)) for low in range(0, len(x), rows_at_once(x)))


def rows_at_once(x: Tensor) -> int:
    """How many rows of x fit into the cache."""
    return max(tuning.CHUNK // x.shape[1], 1)


def sound(total: Tensor, mass: Tensor, empty: Tensor) -> bool:
    """Whether no exponential overflowed and no set's vanished: Σ e x, Σ e ``(S, F)``, sets without any ``(S, 1)``."""
    return finite(total) and inside(mass.masked_fill(empty, 1.0), 1 / tuning.VAST, torch.inf)


def simple(x: Tensor, many: Many) -> bool:
    """Whether elements ``(N, C)`` are what most fast paths are made for."""
    return many is None and single(x) and x.ndim == 2 and x.is_contiguous()
