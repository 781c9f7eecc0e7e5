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
from modalpool.kernels.cpu_dense import dense_sum

__all__ = ["dense_mean"]

MANY = 2**21
"""Above how many values a copy in float32 is one too many."""


def _half(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The mean in float32 of half-precision values."""
    if not x.is_cpu or x.numel() <= MANY:
        return x.mean(dims, dtype=torch.float32)
    return dense_sum(x, dims) / math.prod(x.shape[axis] for axis in dims)


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
