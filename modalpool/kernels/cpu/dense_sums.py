"""Sums, means and extremes of dense sets on a CPU, in chunks that stay in the cache, in the order of memory.

Legend: ``D`` set axes, ``P`` pooled axes, ``C`` channels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from modalpool.kernels import definition, tuning
from modalpool.kernels.cpu.memory import aligned, back, bits, blank, chunks, memory_order
from modalpool.kernels.second_order import apply, plainly, vector_product
from modalpool.kernels.values import HALF, accumulation_type, learned, present, read, sloped

__all__ = ["DenseSums"]


class _Sum(Function):
    """Masked or half-precision sum over the pooled axes, in the accumulation type."""

    @staticmethod
    def forward(x: Tensor, dims: tuple[int, ...], many: Tensor | None) -> Tensor:
        x, order = x.detach(), memory_order(x)
        kind = accumulation_type(x.dtype)
        seen = x.permute(order)
        out = x.new_zeros([1 if axis in dims else x.shape[axis] for axis in order], dtype=kind)
        pooled = [here for here, axis in enumerate(order) if axis in dims]
        given = [] if many is None else [bits(many, x, order)]
        weighted = many is not None and many.dtype != torch.bool
        if many is not None and weighted:
            given.append(aligned(many.to(kind), x, order))
        wide = kind == x.dtype
        limit = tuning.CHUNK * (1 if given else tuning.SUM_CHUNKS if wide else tuning.HALF_CHUNKS)
        buffer = x.new_empty(min(limit, x.numel()) if given else 0)
        room = x.new_empty(0 if wide else min(limit, x.numel()), dtype=kind)
        for chunk, to, *here in chunks(limit, seen, out, *given):
            chunk = blank(chunk, here[0], buffer) if given else chunk
            chunk = chunk if wide else room[: chunk.numel()].view(chunk.shape).copy_(chunk)
            if weighted:
                chunk = chunk.mul_(here[1])
            to.add_(chunk.sum(pooled, keepdim=True))
        return back(out, order).squeeze(dims)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.dims, ctx.many = inputs
        ctx.shape, ctx.dtype, ctx.order = x.shape, x.dtype, memory_order(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad = grad.to(ctx.dtype)
        for axis in ctx.dims:
            grad = grad.unsqueeze(axis)
        many = ctx.many
        if many is None:
            many = torch.ones((), dtype=ctx.dtype).expand(ctx.shape[:-1])
        share = many.to(ctx.dtype).reshape(*many.shape, *[1] * (len(ctx.shape) - many.ndim))
        if plainly(grad):
            return (grad * share).expand(ctx.shape), None, None
        out = back(torch.empty([ctx.shape[axis] for axis in ctx.order], dtype=ctx.dtype), ctx.order)
        return torch.mul(grad, share.expand(ctx.shape), out=out), None, None


def _half(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The mean in float32 of half-precision values; both ways round once, to the same bits but for rare sums."""
    if x.numel() <= tuning.MANY:
        return x.mean(dims, dtype=torch.float32)  # which widens all of them first
    return _Sum.forward(x, dims, None) / math.prod(x.shape[axis] for axis in dims)


class _Mean(Function):
    """The mean in float32 of half-precision values; its gradient is one number a set, and never a float32 copy."""

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


class _Extreme(Function):
    """Largest or least over the pooled axes; the gradient goes to where it is attained, shared evenly by ties."""

    @staticmethod
    def forward(x: Tensor, dims: tuple[int, ...], many: Tensor | None, least: bool) -> Tensor:
        x = x.detach()
        extreme = torch.amin if least else torch.amax
        if many is None:
            return extreme(x, dims)
        order = memory_order(x)
        pooled = [here for here, axis in enumerate(order) if axis in dims]
        worst = torch.full((), torch.inf if least else -torch.inf, dtype=x.dtype)
        out = worst.repeat([1 if axis in dims else x.shape[axis] for axis in order])
        mask = bits(many, x, order)
        better = torch.minimum if least else torch.maximum
        instead = worst.view(mask.dtype) & ~mask
        for chunk, to, here, other in chunks(tuning.CHUNK, x.permute(order), out, mask, instead):
            chunk = (chunk.view(mask.dtype) & here).bitwise_or_(other).view(x.dtype)
            better(to, extreme(chunk, pooled, keepdim=True), out=to)
        return back(out, order).squeeze(dims)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.dims, ctx.many, ctx.least = inputs
        ctx.save_for_backward(x, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, top = ctx.saved_tensors
        if plainly(grad):
            sets = definition.Dense(ctx.dims)
            extreme = sets.min if ctx.least else sets.max
            again = lambda x: extreme(x, ctx.many).to(x.dtype)  # noqa: E731
            return *vector_product(again, [x], [grad]), None, None, None
        for axis in ctx.dims:
            grad, top = grad.unsqueeze(axis), top.unsqueeze(axis)
        order = memory_order(x)
        kind = accumulation_type(x.dtype)
        seen, grad, top = (t.permute(order) for t in (x, grad, top))
        pooled = [here for here, axis in enumerate(order) if axis in ctx.dims]
        out = torch.empty_like(seen, memory_format=torch.contiguous_format)
        ties = torch.zeros_like(top, dtype=kind)
        given = [] if ctx.many is None else [aligned(present(ctx.many), x, order).to(x.dtype)]
        for to, chunk, best, share, count, *there in chunks(tuning.CHUNK, out, seen, top, grad, ties, *given):
            torch.eq(chunk, best, out=to)
            if there:
                to.mul_(there[0])
            count.add_(to.sum(pooled, keepdim=True, dtype=kind))
            to.mul_(share)
        if read((ties > 1).any()):
            for to, share in chunks(tuning.CHUNK, out, ties.clamp_(min=1).reciprocal_().to(x.dtype)):
                to.mul_(share)
        return back(out, order), None, None, None


class DenseSums(definition.Dense):
    """Sums, means and extremes."""

    def sum(self, values: Tensor, many: Tensor | None = None) -> Tensor:
        """Where something is masked or half-precision: FIGURE_DENSE_SUM."""
        if (many is None and values.dtype not in HALF) or learned(many):
            return super().sum(values, many)
        total: Tensor = apply(_Sum, values, self.dims, many)
        return total

    def mean(self, values: Tensor) -> Tensor:
        """Torch's own, but for half precision: FIGURE_HALF_MEAN."""
        if values.dtype not in HALF:
            return values.mean(self.dims)
        mean: Tensor = apply(_Mean, values, self.dims) if sloped(values) else _half(values, self.dims)
        return mean

    def max(self, values: Tensor, many: Tensor | None = None) -> Tensor:
        """FIGURE_DENSE_MAX."""
        return self._extreme(values, many, least=False)

    def min(self, values: Tensor, many: Tensor | None = None) -> Tensor:
        """As `max`."""
        return self._extreme(values, many, least=True)

    def _extreme(self, values: Tensor, many: Tensor | None, *, least: bool) -> Tensor:
        kind = accumulation_type(values.dtype)
        if many is None and not sloped(values):
            return (values.amin(self.dims) if least else values.amax(self.dims)).to(kind)
        top: Tensor = apply(_Extreme, values, self.dims, None if many is None else many.detach(), least)
        return top.to(kind)
