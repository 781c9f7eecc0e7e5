"""Dense sets in the order they lie in memory, cut into blocks that stay in the cache."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import repeat

import torch
from torch import Tensor

from modalpool.kernels.plain import present

__all__ = ["CHUNK", "aligned", "back", "bits", "blank", "blocks", "memory_order"]

_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""The integers as wide as a float of so many bytes."""
CHUNK = 2**19
"""How many values are worked on at a time: two megabytes in float32."""


def memory_order(x: Tensor) -> list[int]:
    """The axes from the largest stride to the smallest."""
    return sorted(range(x.ndim), key=lambda axis: (-x.stride(axis), axis))


def back(x: Tensor, order: list[int]) -> Tensor:
    """Undo a permutation of axes."""
    return x.permute([order.index(axis) for axis in range(x.ndim)])


def aligned(many: Tensor, x: Tensor, order: list[int]) -> Tensor:
    """Multiplicities with the axes of ``x`` in the order of its memory, size one where they do not differ."""
    return many.reshape(*many.shape, *[1] * (x.ndim - many.ndim)).permute(order)


def bits(many: Tensor, x: Tensor, order: list[int]) -> Tensor:
    """Which elements are there, as integers of all bits or none, as wide as ``x`` and in the order of its memory."""
    return aligned(present(many), x, order).to(_BITS[x.element_size()]).neg_()


def blank(part: Tensor, mask: Tensor, buffer: Tensor) -> Tensor:
    """``part`` with zeros where the mask, all bits or none, has none; it is written to the front of a buffer."""
    kept = buffer[: part.numel()].view(part.shape)
    torch.bitwise_and(part.view(mask.dtype), mask, out=kept.view(mask.dtype))
    return kept


def blocks(limit: int, x: Tensor, *others: Tensor, axis: int = 0) -> Iterator[tuple[Tensor, ...]]:
    """Cut x, and what broadcasts to it, into blocks of at most about ``limit`` values, whole but for the first axes."""
    if axis == x.ndim:
        yield (x, *others)
        return
    rest = math.prod(x.shape[axis + 1 :])
    step = max(limit // max(rest, 1), 1)
    cuts = [torch.split(other, step, axis) if other.shape[axis] > 1 else repeat(other) for other in others]
    for parts in zip(torch.split(x, step, axis), *cuts, strict=False):
        if rest > limit:
            yield from blocks(limit, *parts, axis=axis + 1)
        else:
            yield parts
