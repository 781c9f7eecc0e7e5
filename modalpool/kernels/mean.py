"""The plain mean: torch's own, but for half precision.

Torch makes a float32 copy of half-precision values first. Here a CPU widens them a chunk at a time, which takes little
memory, and where whole rows are added up (channels last) a third of the time. Both round once, to the same bits but for
a rare sum that lies between two numbers. The gradient is one number a set, never a copy either.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from modalpool.kernels import fused
from modalpool.kernels.choice import apply, single, sloped

__all__ = ["dense_mean"]

CHUNK = 2**20
"""How many values are widened at a time: four megabytes."""


def _half(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The mean in float32 of half-precision values."""
    order = sorted(range(x.ndim), key=x.stride, reverse=True)  # the axes as they lie in memory
    pooled = [place for place, axis in enumerate(order) if axis in dims]
    inside, laid = order[pooled[-1] + 1 :], x.permute(order)
    rows, width = math.prod(x.shape[axis] for axis in dims), math.prod(x.shape[axis] for axis in inside)
    together = pooled[-1] + 1 - pooled[0] == len(dims) and laid.is_contiguous()
    if not x.is_cpu or x.numel() <= 2 * CHUNK or not together:
        return x.mean(dims, dtype=torch.float32)
    total = _sums(laid.reshape(-1, rows, width))
    kept = [axis for axis in order if axis not in dims]
    mean = (total / rows).reshape([x.shape[axis] for axis in kept])
    return mean.permute([kept.index(axis) for axis in sorted(kept)])


def _sums(sets: Tensor) -> Tensor:
    """Sums over the rows of each set, ``(S, N, W)`` to ``(S, W)``, in float32."""
    size, rows, width = sets.shape
    total = torch.zeros(size, width)
    whole = min(max(CHUNK // (rows * width), 1), size)  # sets at a time
    room = torch.empty(whole, min(max(CHUNK // width, 1), rows), width)
    for low in range(0, size, whole):
        for start in range(0, rows, room.shape[1]):
            part = sets[low : low + whole, start : start + room.shape[1]]
            total[low : low + whole] += room[: part.shape[0], : part.shape[1]].copy_(part).sum(1)
    return total


class _Mean(Function):
    """The mean in float32 of half-precision values; its backward is made of ordinary operations."""

    @staticmethod
    def forward(x: Tensor, dims: tuple[int, ...]) -> Tensor:
        return _half(x.detach(), dims)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.dims = inputs
        ctx.shape, ctx.dtype = x.shape, x.dtype

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        share = (grad / math.prod(ctx.shape[axis] for axis in ctx.dims)).to(ctx.dtype)
        kept = [1 if axis in ctx.dims else size for axis, size in enumerate(ctx.shape)]
        return share.reshape(kept).expand(ctx.shape), None


def dense_mean(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    """See `modalpool.kernels.fused.dense_mean`."""
    if single(values):
        return fused.dense_mean(values, dims)
    mean: Tensor = apply(_Mean, values, dims) if sloped(values) else _half(values, dims)
    return mean
