"""Softmax, moments and powers of each channel of ragged sets on a CPU, in chunks that stay in the cache.

Each operation is a fast forward and a fast backward beside its definition, which takes over where the input is not what
the fast one is made for, and when the backward is itself differentiated.

Legend: ``N`` elements, ``S`` sets, ``C`` channels, ``K`` vectors per set, ``G`` groups of channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from modalpool.kernels import cpu_ragged, fused, plain
from modalpool.kernels.bags import Bags, add_rows, bags_of, row_chunks, simple, sound
from modalpool.kernels.choice import VAST, apply, finite, inside, known
from modalpool.kernels.cpu_ragged import segment_max, segment_min
from modalpool.kernels.differentiate import plainly, vector_product
from modalpool.kernels.segments import Segments

__all__ = ["segment_moments", "segment_power", "segment_soften"]

LOG2E = 1.4426950408889634


def _soften(x: Tensor, scale: float, bags: Bags, shift: Tensor | None) -> tuple[Tensor, Tensor]:
    """Σ e x and Σ e with e = exp(x · scale - shift), ``(S, C)`` each."""
    tops, masses = x.new_empty(bags.count, x.shape[1]), x.new_empty(bags.count, x.shape[1])
    for chunk in bags.chunks(x.shape[1]):
        part = bags.take(x, chunk)
        mass = part * (scale * LOG2E)
        if shift is not None:
            index = bags.take(bags.segments.index, chunk)
            mass.sub_(shift.index_select(0, index))
        mass.exp2_()
        masses[chunk.bags] = add_rows(mass, chunk.rows, chunk.offsets)
        tops[chunk.bags] = add_rows(mass.mul_(part), chunk.rows, chunk.offsets)
    return bags.combine(tops), bags.combine(masses)


class _Soften(Function):
    """Softmax of each channel over each set, times the channel; the weights are never written down."""

    @staticmethod
    def forward(x: Tensor, segments: Segments, scale: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x, bags = x.detach(), bags_of(segments)
        empty = segments.lengths[:, None] == 0
        shift = torch.zeros(())
        total, mass = _soften(x, scale, bags, None)
        if not sound(total, mass, empty):
            extreme = segment_max(x, segments) if scale > 0 else segment_min(x, segments)
            shift = torch.where(empty, 0.0, extreme * (scale * LOG2E))
            total, mass = _soften(x, scale, bags, shift)
            if not finite(total) or not finite(mass):
                z, log_mass = fused.segment_soften(x, scale, segments)
                return z, log_mass, mass.fill_(torch.nan), shift
        z = torch.where(empty, 0.0, total / mass)
        return z, mass.log() + shift / LOG2E, mass, shift

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, ctx.segments, ctx.scale = inputs
        z, _, mass, shift = output
        ctx.mark_non_differentiable(mass, shift)
        ctx.save_for_backward(x, z, mass, shift)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor | None, mass_grad: Tensor | None, *_: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, z, mass, shift = ctx.saved_tensors
        if plainly(grad, mass_grad) or known(mass.isnan().any()):
            again = lambda x: fused.segment_soften(x, ctx.scale, ctx.segments)  # noqa: E731
            return *vector_product(again, [x], [grad, mass_grad]), None, None
        # The gradient is e (a x + b) with e = exp(x · scale - shift), one a and one b per set.
        slope = torch.zeros_like(z) if grad is None else grad * ctx.scale / mass
        offset = -slope * z if grad is None else grad / mass - slope * z
        offset = offset if mass_grad is None else offset + mass_grad * ctx.scale / mass
        empty = ctx.segments.lengths[:, None] == 0
        slope, offset = (torch.where(empty, 0.0, part) for part in (slope, offset))
        out = torch.empty_like(x)
        for rows in row_chunks(x):
            index, to = ctx.segments.index[rows], out[rows]
            torch.index_select(slope, 0, index, out=to).mul_(x[rows]).add_(offset.index_select(0, index))
            mass = x[rows] * (ctx.scale * LOG2E)
            mass = mass if shift.ndim == 0 else mass.sub_(shift.index_select(0, index))
            to.mul_(mass.exp2_())
        return out, None, None


def segment_soften(
    x: Tensor, scale: Tensor | float, segments: Segments, many: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """See `modalpool.kernels.fused.soften`."""
    if isinstance(scale, Tensor) or not simple(x, many):
        return fused.segment_soften(x, scale, segments, many)
    z, log_mass, *_ = apply(_Soften, x, segments, scale)
    return z, log_mass


def _squares(x: Tensor, mean: Tensor, bags: Bags, *, power: int) -> Tensor:
    """Σ (x - mean)^power over each set, power 1 or 2."""
    sums = x.new_empty(bags.count, x.shape[1])
    for chunk in bags.chunks(x.shape[1]):
        centred = mean.index_select(0, bags.take(bags.segments.index, chunk))
        torch.sub(bags.take(x, chunk), centred, out=centred)
        if power == 2:
            centred.mul_(centred)
        sums[chunk.bags] = add_rows(centred, chunk.rows, chunk.offsets)
    return bags.combine(sums)


class _Moments(Function):
    """Mean and variance of rows, ``(N, C)`` to ``(S, C)`` each."""

    @staticmethod
    def forward(x: Tensor, segments: Segments, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, bags = x.detach(), bags_of(segments)
        mean = bags.add(x) / size
        var = _squares(x, mean, bags, power=2) / size
        miss = torch.zeros_like(mean)
        if not known((mean.square() <= 16 * var).all()):
            # The mean is rounded; what it misses by is taken off again (the corrected two-pass formula). Only where it
            # is large beside the spread can that be felt.
            miss = _squares(x, mean, bags, power=1) / size
            var = (var - miss.square()).clamp_(min=0)
        return mean, var, miss

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, ctx.segments, size = inputs
        mean, _, miss = output
        ctx.mark_non_differentiable(miss)
        ctx.save_for_backward(x, size, mean, miss)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(
        ctx: Any, mean_grad: Tensor | None, var_grad: Tensor | None, _: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, size, mean, miss = ctx.saved_tensors
        if plainly(mean_grad, var_grad):
            again = lambda x: fused.segment_moments(x, ctx.segments, None, lambda _: size)  # noqa: E731
            return *vector_product(again, [x], [mean_grad, var_grad]), None, None
        slope = torch.zeros_like(mean) if var_grad is None else 2 * var_grad / size
        offset = None if mean_grad is None else mean_grad / size
        if known(miss.any()):
            offset = -slope * miss if offset is None else offset - slope * miss
        out = torch.empty_like(x)
        for rows in row_chunks(x):
            index = ctx.segments.index[rows]
            centred = torch.index_select(mean, 0, index, out=out[rows])
            torch.sub(x[rows], centred, out=centred).mul_(slope.index_select(0, index))
            if offset is not None:
                centred.add_(offset.index_select(0, index))
        return out, None, None


def segment_moments(x: Tensor, segments: Segments, many: Tensor | None, size: fused.Size) -> tuple[Tensor, Tensor]:
    """See `modalpool.kernels.fused.moments`."""
    if not simple(x, many):
        return fused.segment_moments(x, segments, many, size)
    mean, var, _ = apply(_Moments, x, segments, size(x))
    return mean, var


class _Powers(Function):
    """Σ max(x, ε)^p of each channel over each set, ``(N, C)`` to ``(S, C)``."""

    @staticmethod
    def forward(x: Tensor, segments: Segments, p: float, eps: float) -> Tensor:
        x, bags = x.detach(), bags_of(segments)
        sums = x.new_empty(bags.count, x.shape[1])
        for chunk in bags.chunks(x.shape[1]):
            powers = bags.take(x, chunk).clamp(min=eps).pow_(p)
            sums[chunk.bags] = add_rows(powers, chunk.rows, chunk.offsets)
        return bags.combine(sums)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.segments, ctx.p, ctx.eps = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        if plainly(grad):
            again = lambda x: plain.segment_sum(x.clamp(min=ctx.eps) ** ctx.p, ctx.segments)  # noqa: E731
            return *vector_product(again, [x], [grad]), None, None, None
        slope, out = grad * ctx.p, torch.empty_like(x)
        for rows in row_chunks(x):
            to = torch.clamp(x[rows], min=ctx.eps, out=out[rows]).pow_(ctx.p - 1)
            rises = torch.ge(x[rows], ctx.eps, out=torch.empty_like(to))  # booleans take ten times as long
            to.mul_(rises).mul_(slope.index_select(0, ctx.segments.index[rows]))
        return out, None, None, None


def segment_power(
    x: Tensor, p: Tensor | float, eps: float, segments: Segments, many: Tensor | None, size: fused.Size
) -> Tensor:
    """See `modalpool.kernels.fused.power`: as it is written, where no set's sum comes near a limit of its type."""
    if simple(x, many) and not isinstance(p, Tensor):
        empty = segments.lengths[:, None] == 0
        total = apply(_Powers, x, segments, p, eps).masked_fill(empty, 1.0)
        if inside(total, 1 / VAST, VAST):
            root: Tensor = ((total / size(x)) ** (1 / p)).masked_fill(empty, eps)
            return root
    return cpu_ragged.segment_power(x, p, eps, segments, many, size)
