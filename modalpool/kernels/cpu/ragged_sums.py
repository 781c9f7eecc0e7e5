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

from modalpool.kernels import definition
from modalpool.kernels.cpu.rows import add, add_rows, chunks, combine, per_run, reduce_rows, row_chunks, steps, take
from modalpool.kernels.second_order import apply, plainly, vector_product
from modalpool.kernels.segments import Segments
from modalpool.kernels.values import accumulation_type, learned, present, read, single

__all__ = ["RaggedSums"]


def _hand_back(per_set: Tensor, segments: Segments, weight: Tensor | None) -> Tensor:
    """Give every element its set's row, times its weight: one write."""
    if weight is None:
        return per_set.index_select(0, segments.index)
    return torch.embedding_bag(per_set, segments.index, steps(segments.count), False, 0, False, weight)[0]


class _Sum(Function):
    """Σ of rows ``(N, F)``; ``weight (N,)`` or None."""

    @staticmethod
    def forward(x: Tensor, segments: Segments, weight: Tensor | None) -> Tensor:
        x = x.detach()
        weight = None if weight is None else weight.to(accumulation_type(x.dtype))
        if single(x):
            return add(segments, x, weight)
        sums = per_run(segments, x, x.shape[1])
        for chunk in chunks(segments, x.shape[1]):
            share = None if weight is None else take(segments, weight, chunk)
            sums[chunk.runs] = add_rows(take(segments, x, chunk).float(), chunk.rows, chunk.offsets, share)
        return combine(segments, sums)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.segments, ctx.weight = inputs
        ctx.dtype = x.dtype

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad = grad.to(ctx.dtype)
        weight = None if ctx.weight is None else ctx.weight.to(ctx.dtype)
        if not plainly(grad):
            return _hand_back(grad, ctx.segments, weight), None, None
        share = grad.index_select(0, ctx.segments.index)
        return share if weight is None else share * weight[:, None], None, None


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
            sets = definition.Ragged(ctx.segments)
            return *vector_product(sets.min if ctx.least else sets.max, [x], [grad]), None, None
        index, share = ctx.segments.index, grad.to(x.dtype)
        out = torch.empty_like(x)
        attained = 0
        for rows in row_chunks(x):
            best = torch.eq(x[rows], top.index_select(0, index[rows]), out=out[rows])
            attained += int(read(best.sum(dtype=torch.float32)))
            best.mul_(share.index_select(0, index[rows]))
        if attained == read((ctx.segments.lengths > 0).sum()) * x.shape[1]:
            return out, None, None
        ties = torch.zeros_like(top, dtype=accumulation_type(top.dtype))  # or nan, which nothing attains
        for rows in row_chunks(x):
            ties.index_add_(0, index[rows], (x[rows] == top.index_select(0, index[rows])).to(ties.dtype))
        ties = ties.clamp_(min=1).reciprocal_()
        for rows in row_chunks(x):
            out[rows].mul_(ties.index_select(0, index[rows]))
        return out, None, None


class RaggedSums(definition.Ragged):
    """Sums, means and extremes."""

    def sum(self, values: Tensor, many: Tensor | None = None) -> Tensor:
        """FIGURE_RAGGED_SUM."""
        if (many is not None and many.ndim > 1) or learned(many) or not values.is_contiguous():
            return super().sum(values, many)
        here, weight = self.segments, many
        if many is not None:  # what is not there belongs to a set behind the last one, and is never looked at
            weight = None if many.dtype == torch.bool else many
            here = here.without(present(many))
        total: Tensor = apply(_Sum, values.reshape(len(values), -1), here, weight)
        return total[: self.segments.size].reshape(self.segments.size, *values.shape[1:])

    def max(self, values: Tensor, many: Tensor | None = None) -> Tensor:
        """FIGURE_RAGGED_MAX."""
        return self._extreme(values, many, least=False)

    def min(self, values: Tensor, many: Tensor | None = None) -> Tensor:
        """As `max`."""
        return self._extreme(values, many, least=True)

    def _extreme(self, values: Tensor, many: Tensor | None, *, least: bool) -> Tensor:
        if (many is not None and many.ndim > 1) or not values.is_contiguous():
            return super().min(values, many) if least else super().max(values, many)
        here = self.segments if many is None else self.segments.without(present(many))
        top: Tensor = apply(_Extreme, values.reshape(len(values), -1), here, least)
        top = top[: self.segments.size].reshape(self.segments.size, *values.shape[1:])
        return top.to(accumulation_type(values.dtype))
