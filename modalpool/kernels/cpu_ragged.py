"""Sums and maxima of ragged sets on a CPU: one read of the elements, and one write of their gradient.

Each operation is a fast forward and a fast backward beside its definition, which takes over where the input is not what
the fast one is made for, and when the backward is itself differentiated.

Legend: ``N`` elements, ``S`` sets, ``C`` channels, ``K`` vectors per set, ``G`` groups of channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from modalpool.kernels import fused, plain
from modalpool.kernels.bags import add_rows, bags_of, reduce_rows, row_chunks, steps
from modalpool.kernels.choice import apply, known, single
from modalpool.kernels.differentiate import plainly, vector_product
from modalpool.kernels.plain import accumulation_type
from modalpool.kernels.segments import Segments

__all__ = ["segment_max", "segment_mean", "segment_min", "segment_power", "segment_sum"]


def _spread(per_set: Tensor, segments: Segments, weight: Tensor | None) -> Tensor:
    """Give every element its set's row, times its weight: one write."""
    if weight is None:
        return per_set.index_select(0, segments.index)
    return torch.embedding_bag(per_set, segments.index, bags_of(segments).steps, False, 0, False, weight)[0]


class _Sum(Function):
    """Σ of rows ``(N, F)``; ``weight (N,)`` or None."""

    @staticmethod
    def forward(x: Tensor, segments: Segments, weight: Tensor | None) -> Tensor:
        bags, x = bags_of(segments), x.detach()
        weight = None if weight is None else weight.to(accumulation_type(x.dtype))
        if single(x):
            return bags.add(x, weight)
        sums = x.new_empty(bags.count, x.shape[1], dtype=torch.float32)
        for chunk in bags.chunks(x.shape[1]):
            share = None if weight is None else bags.take(weight, chunk)
            sums[chunk.bags] = add_rows(bags.take(x, chunk).float(), chunk.rows, chunk.offsets, share)
        return bags.combine(sums)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.segments, ctx.weight = inputs
        ctx.dtype = x.dtype

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad = grad.to(ctx.dtype)
        weight = None if ctx.weight is None else ctx.weight.to(ctx.dtype)
        if not plainly(grad):
            return _spread(grad, ctx.segments, weight), None, None
        spread = grad.index_select(0, ctx.segments.index)
        return spread if weight is None else spread * weight[:, None], None, None


def segment_sum(values: Tensor, segments: Segments, many: Tensor | None = None) -> Tensor:
    """See `modalpool.kernels.plain.segment_sum`."""
    one = many is None or (many.ndim == 1 and not many.requires_grad)
    if not one or not values.is_contiguous():
        return plain.segment_sum(values, segments, many)
    here, weight = segments, many
    if many is not None:  # what is not there belongs to a set behind the last one, and is never looked at
        weight = None if many.dtype == torch.bool else many
        here = segments.without(plain.present(many))
    total: Tensor = apply(_Sum, values.reshape(len(values), -1), here, weight)
    return total[: segments.size].reshape(segments.size, *values.shape[1:])


def segment_mean(values: Tensor, segments: Segments) -> Tensor:
    """See `modalpool.kernels.plain.segment_mean`."""
    return plain.share(segment_sum(values, segments), segments)


class _Extreme(Function):
    """Largest or least of rows ``(N, F)``; the gradient goes to where it is attained, shared evenly by ties."""

    @staticmethod
    def forward(x: Tensor, segments: Segments, least: bool) -> Tensor:
        how, worst = ("amin", torch.inf) if least else ("amax", -torch.inf)
        if segments.in_order and single(x):
            top = reduce_rows(x.detach(), steps(segments.count), segments.ptr, None, how)
            return top if segments.full else top.masked_fill_(segments.lengths[:, None] == 0, worst)
        low = x.new_full((segments.size, x.shape[1]), worst)
        return low.scatter_reduce_(0, segments.index[:, None].expand_as(x), x.detach(), how)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.segments, ctx.least = inputs
        ctx.save_for_backward(x, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, top = ctx.saved_tensors
        if plainly(grad):
            definition = plain.segment_min if ctx.least else plain.segment_max
            return *vector_product(lambda x: definition(x, ctx.segments), [x], [grad]), None, None
        index, share = ctx.segments.index, grad.to(x.dtype)
        out = torch.empty_like(x)
        attained = 0
        for rows in row_chunks(x):
            best = torch.eq(x[rows], top.index_select(0, index[rows]), out=out[rows])
            attained += int(known(best.sum(dtype=torch.float32)))
            best.mul_(share.index_select(0, index[rows]))
        if attained == known((ctx.segments.lengths > 0).sum()) * x.shape[1]:
            return out, None, None
        ties = torch.zeros_like(top, dtype=accumulation_type(top.dtype))  # or nan, which nothing attains
        for rows in row_chunks(x):
            ties.index_add_(0, index[rows], (x[rows] == top.index_select(0, index[rows])).to(ties.dtype))
        ties = ties.clamp_(min=1).reciprocal_()
        for rows in row_chunks(x):
            out[rows].mul_(ties.index_select(0, index[rows]))
        return out, None, None


def _extreme(values: Tensor, segments: Segments, many: Tensor | None, *, least: bool) -> Tensor:
    if (many is not None and many.ndim > 1) or not values.is_contiguous():
        return (plain.segment_min if least else plain.segment_max)(values, segments, many)
    here = segments if many is None else segments.without(plain.present(many))
    top: Tensor = apply(_Extreme, values.reshape(len(values), -1), here, least)
    top = top[: segments.size].reshape(segments.size, *values.shape[1:])
    return top.to(accumulation_type(values.dtype))


def segment_max(values: Tensor, segments: Segments, many: Tensor | None = None) -> Tensor:
    """See `modalpool.kernels.plain.segment_max`."""
    return _extreme(values, segments, many, least=False)


def segment_min(values: Tensor, segments: Segments, many: Tensor | None = None) -> Tensor:
    """See `modalpool.kernels.plain.segment_min`."""
    return _extreme(values, segments, many, least=True)


class _Ragged(fused.Ragged):
    """Ragged sets with the sums and maxima above."""

    def sum(self, values: Tensor, many: Tensor | None = None) -> Tensor:
        return segment_sum(values, self.segments, many)

    def max(self, values: Tensor) -> Tensor:
        return segment_max(values, self.segments)


def segment_power(
    x: Tensor, p: Tensor | float, eps: float, segments: Segments, many: Tensor | None, size: fused.Size
) -> Tensor:
    """See `modalpool.kernels.fused.power`."""
    return fused.power(x, p, eps, _Ragged(segments), many, size)
