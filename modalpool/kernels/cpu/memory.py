"""Dense sets in the order they lie in memory, cut into chunks that stay in the cache.

What is not there is blanked by its bits (a float is itself AND -1, zero AND 0), which no NaN survives and no branch
predictor minds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import repeat

import torch
from torch import Tensor

from modalpool.kernels.values import present

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""The integers as wide as a float of so many bytes."""


def memory_order(x: Tensor) -> list[int]:
    """The axes from the largest stride to the smallest."""
    return sorted(range(x.ndim), key=lambda axis: (-x.stride(axis), axis))


def back(x: Tensor, order: list[int]) -> Tensor:
    """Undo a permutation of axes."""
    return x.permute([order.index(axis) for axis in range(x.ndim)])


def aligned(many: Tensor, x: Tensor, order: list[int]) -> Tensor:
    """Multiplicities with the axes of ``x`` in the order of its memory, size one where they do not differ."""
    return many.reshape(*many.shape, *[1] * (x.ndim - many.ndim)).permute(order)


def per_set(number: Tensor, dims: tuple[int, ...], order: list[int]) -> Tensor:
    """A set tensor with the pooled axes, in ascending order, of size one, and all axes in an order."""
    for axis in dims:
        number = number.unsqueeze(axis)
    return number.permute(order)


def bits(many: Tensor, x: Tensor, order: list[int]) -> Tensor:
    """Which elements are there, as integers of all bits or none, as wide as ``x`` and in the order of its memory."""
    return aligned(present(many), x, order).to(_BITS[x.element_size()]).neg_()


def blank(chunk: Tensor, mask: Tensor, buffer: Tensor) -> Tensor:
    """``chunk`` with zeros where the mask, all bits or none, has none; it is written to the front of a buffer."""
    kept = buffer[: chunk.numel()].view(chunk.shape)
    torch.bitwise_and(chunk.view(mask.dtype), mask, out=kept.view(mask.dtype))
    return kept


def chunks(limit: int, x: Tensor, *others: Tensor, axis: int = 0) -> Iterator[tuple[Tensor, ...]]:
    """Cut x, and what broadcasts to it, into chunks of at most about ``limit`` values, all but the first axes uncut."""
    if axis == x.ndim:
        yield (x, *others)
        return
    rest = math.prod(x.shape[axis + 1 :])
    step = max(limit // max(rest, 1), 1)
    cuts = [torch.split(other, step, axis) if other.shape[axis] > 1 else repeat(other) for other in others]
    for given in zip(torch.split(x, step, axis), *cuts, strict=False):
        if rest > limit:
            yield from chunks(limit, *given, axis=axis + 1)
        else:
            yield given
