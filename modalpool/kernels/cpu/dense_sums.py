"""Sums, means and extremes of dense sets on a CPU, in chunks that stay in the cache, in the order of memory.

Legend: ``D`` set axes, ``P`` pooled axes, ``C`` channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from modalpool.kernels import definition, tuning
from modalpool.kernels.cpu.memory import aligned, back, bits, blank, chunks, memory_order
from modalpool.kernels.second_order import Fast, Grads, Saved, plainly
from modalpool.kernels.values import HALF, Many, accumulation_type, learned, present, read, sloped


class _Sum(Fast):
    """Masked or half-precision sum over the pooled axes, in the accumulation type."""

    linear = True

    def __init__(self, dims: tuple[int, ...], many: Many = None) -> None:
        self.dims, self.many = dims, many

    def forward(self, x: Tensor) -> Tensor:
        dims, many, order = self.dims, self.many, memory_order(x)
        self.shape, self.dtype, self.order = x.shape, x.dtype, order
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

    def backward(self, saved: Saved, grads: Grads, wanted: Sequence[bool]) -> Grads:
        (grad,) = grads
        grad = grad.to(self.dtype)
        for axis in self.dims:
            grad = grad.unsqueeze(axis)
        many = self.many
        if many is None:
            many = torch.ones((), dtype=self.dtype).expand(self.shape[:-1])
        share = many.to(self.dtype).reshape(*many.shape, *[1] * (len(self.shape) - many.ndim))
        if plainly(grad):
            return ((grad * share).expand(self.shape),)
        out = back(torch.empty([self.shape[axis] for axis in self.order], dtype=self.dtype), self.order)
        return (torch.mul(grad, share.expand(self.shape), out=out),)


class _HalfMean(Fast):
    """The mean in float32 of half-precision values; its gradient is one number a set, and never a float32 copy."""

    linear = True

    def __init__(self, dims: tuple[int, ...]) -> None:
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        """Both ways round once, to the same bits but for rare sums; torch's own widens all of them first."""
        self.shape, self.dtype = x.shape, x.dtype
        self.size = math.prod(x.shape[axis] for axis in self.dims)
        if x.numel() <= tuning.MANY:
            return x.mean(self.dims, dtype=torch.float32)
        return _Sum(self.dims).forward(x) / self.size

    def backward(self, saved: Saved, grads: Grads, wanted: Sequence[bool]) -> Grads:
        (grad,) = grads
        kept = [1 if axis in self.dims else size for axis, size in enumerate(self.shape)]
        return ((grad / self.size).to(self.dtype).reshape(kept).expand(self.shape),)


class _Extreme(Fast):
    """Largest or least over the pooled axes; the gradient goes to where it is attained, shared evenly by ties."""

    def __init__(self, dims: tuple[int, ...], many: Many, *, least: bool) -> None:
        self.dims, self.many, self.least = dims, many, least

    def again(self, x: Tensor) -> Tensor:
        return definition.Dense(self.dims).extreme(x, self.many, least=self.least).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        dims, many, least = self.dims, self.many, self.least
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

    def backward(self, saved: Saved, grads: Grads, wanted: Sequence[bool]) -> Grads:
        (x, top), (grad,) = saved, grads
        for axis in self.dims:
            grad, top = grad.unsqueeze(axis), top.unsqueeze(axis)
        order = memory_order(x)
        kind = accumulation_type(x.dtype)
        seen, grad, top = (t.permute(order) for t in (x, grad, top))
        pooled = [here for here, axis in enumerate(order) if axis in self.dims]
        out = torch.empty_like(seen, memory_format=torch.contiguous_format)
        ties = torch.zeros_like(top, dtype=kind)
        given = [] if self.many is None else [aligned(present(self.many), x, order).to(x.dtype)]
        for to, chunk, best, share, count, *there in chunks(tuning.CHUNK, out, seen, top, grad, ties, *given):
            torch.eq(chunk, best, out=to)
            if there:
                to.mul_(there[0])
            count.add_(to.sum(pooled, keepdim=True, dtype=kind))
            to.mul_(share)
        if read((ties > 1).any()):
            for to, share in chunks(tuning.CHUNK, out, ties.clamp_(min=1).reciprocal_().to(x.dtype)):
                to.mul_(share)
        return (back(out, order),)


class DenseSums(definition.Dense):
    """Sums, means and extremes."""

    def sum(self, values: Tensor, many: Many = None) -> Tensor:
        """Read in place where something is masked: 2.3 to 6.3 times as fast forward, 2.1 to 4.8 with the backward."""
        if (many is None and values.dtype not in HALF) or learned(many):
            return super().sum(values, many)
        total: Tensor = _Sum(self.dims, many)(values)
        return total

    def mean(self, values: Tensor) -> Tensor:
        """Half precision without a float32 copy: 2.2 to 2.7 times as fast forward, 4.2 to 4.4 with the backward."""
        if values.dtype not in HALF:
            return super().mean(values)
        mean: Tensor = _HalfMean(self.dims)(values)
        return mean

    def extreme(self, values: Tensor, many: Many = None, *, least: bool) -> Tensor:
        """A backward without a mask of ties: 2.8 to 3.1 times as fast with it, forward 1.3 times where masked."""
        kind = accumulation_type(values.dtype)
        if many is None and not sloped(values):
            return (values.amin(self.dims) if least else values.amax(self.dims)).to(kind)
        top: Tensor = _Extreme(self.dims, None if many is None else many.detach(), least=least)(values)
        return top.to(kind)
