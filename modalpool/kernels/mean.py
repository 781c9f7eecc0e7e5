"""The plain mean, whose gradient in half precision is one number a set, never a float32 copy of the input."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from modalpool.kernels import fused
from modalpool.kernels.choice import apply, single, sloped

__all__ = ["dense_mean"]


class _Mean(Function):
    """The mean in float32 of half-precision values; its backward is made of ordinary operations."""

    @staticmethod
    def forward(x: Tensor, dims: tuple[int, ...]) -> Tensor:
        return x.detach().mean(dims, dtype=torch.float32)

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
    if single(values) or not sloped(values):
        return fused.dense_mean(values, dims)
    mean: Tensor = apply(_Mean, values, dims)
    return mean
