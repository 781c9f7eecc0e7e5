"""Softmax, moments and power mean of each channel of ragged sets on a CPU, in chunks that stay in the cache.

Legend: ``N`` elements, ``S`` sets, ``C`` channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from modalpool.kernels import definition, tuning
from modalpool.kernels.cpu.ragged_attention import RaggedAttention
from modalpool.kernels.cpu.ragged_sums import RaggedSums
from modalpool.kernels.cpu.rows import add, add_rows, chunks, combine, per_run, row_chunks, simple, sound, take
from modalpool.kernels.definition import Frugal, Size
from modalpool.kernels.second_order import apply, plainly, vector_product
from modalpool.kernels.segments import Segments
from modalpool.kernels.values import finite, inside, keeps_weights, read

__all__ = ["RaggedChannels"]

LOG2E = 1.4426950408889634


def _soften(x: Tensor, scale: float, segments: Segments, shift: Tensor | None) -> tuple[Tensor, Tensor]:
    """Σ e x and Σ e with e = exp(x · scale - shift), ``(S, C)`` each."""
    tops, masses = per_run(segments, x, x.shape[1]), per_run(segments, x, x.shape[1])
    for chunk in chunks(segments, x.shape[1]):
        here = take(segments, x, chunk)
        mass = here * (scale * LOG2E)
        if shift is not None:
            index = take(segments, segments.index, chunk)
            mass.sub_(shift.index_select(0, index))
        mass.exp2_()
        masses[chunk.runs] = add_rows(mass, chunk.rows, chunk.offsets)
        tops[chunk.runs] = add_rows(mass.mul_(here), chunk.rows, chunk.offsets)
    return combine(segments, tops), combine(segments, masses)


class _Soften(Function):
    """Softmax of each channel over each set, times the channel; the weights are never written down."""

    @staticmethod
    def forward(x: Tensor, segments: Segments, scale: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x = x.detach()
        empty = segments.lengths[:, None] == 0
        shift = torch.zeros(())
        total, mass = _soften(x, scale, segments, None)
        if not sound(total, mass, empty):
            sets = RaggedSums(segments)
            extreme = sets.max(x) if scale > 0 else sets.min(x)
            shift = torch.where(empty, 0.0, extreme * (scale * LOG2E))
            total, mass = _soften(x, scale, segments, shift)
            if not finite(total) or not finite(mass):
                z, log_mass = definition.Ragged(segments).soften(x, scale)
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
        if plainly(grad, mass_grad) or read(mass.isnan().any()):
            sets = definition.Ragged(ctx.segments)
            again = lambda x: sets.soften(x, ctx.scale)  # noqa: E731
            return *vector_product(again, [x], [grad, mass_grad]), None, None
        # The gradient is e (a x + b) with e = exp(x · scale - shift), one a and one b per set.
        slope = torch.zeros_like(z) if grad is None else grad * ctx.scale / mass
        offset = -slope * z if grad is None else grad / mass - slope * z
        offset = offset if mass_grad is None else offset + mass_grad * ctx.scale / mass
        empty = ctx.segments.lengths[:, None] == 0
        slope, offset = (torch.where(empty, 0.0, term) for term in (slope, offset))
        out = torch.empty_like(x)
        for rows in row_chunks(x):
            index, to = ctx.segments.index[rows], out[rows]
            torch.index_select(slope, 0, index, out=to).mul_(x[rows]).add_(offset.index_select(0, index))
            mass = x[rows] * (ctx.scale * LOG2E)
            mass = mass if shift.ndim == 0 else mass.sub_(shift.index_select(0, index))
            to.mul_(mass.exp2_())
        return out, None, None


def _squares(x: Tensor, mean: Tensor, segments: Segments, *, power: int) -> Tensor:
    """Σ (x - mean)^power over each set, power 1 or 2."""
    sums = per_run(segments, x, x.shape[1])
    for chunk in chunks(segments, x.shape[1]):
        centred = mean.index_select(0, take(segments, segments.index, chunk))
        torch.sub(take(segments, x, chunk), centred, out=centred)
        if power == 2:
            centred.mul_(centred)
        sums[chunk.runs] = add_rows(centred, chunk.rows, chunk.offsets)
    return combine(segments, sums)


class _Moments(Function):
    """Mean and variance of rows, ``(N, C)`` to ``(S, C)`` each."""

    @staticmethod
    def forward(x: Tensor, segments: Segments, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = x.detach()
        mean = add(segments, x) / size
        var = _squares(x, mean, segments, power=2) / size
        miss = torch.zeros_like(mean)
        if not read((mean.square() <= 16 * var).all()):
            # The mean is rounded; what it misses by is taken off again (the corrected two-pass formula). Only where it
            # is large beside the spread can that be felt.
            miss = _squares(x, mean, segments, power=1) / size
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
            sets = definition.Ragged(ctx.segments)
            again = lambda x: sets.moments(x, None, lambda _: size)  # noqa: E731
            return *vector_product(again, [x], [mean_grad, var_grad]), None, None
        slope = torch.zeros_like(mean) if var_grad is None else 2 * var_grad / size
        offset = None if mean_grad is None else mean_grad / size
        if read(miss.any()):
            offset = -slope * miss if offset is None else offset - slope * miss
        out = torch.empty_like(x)
        for rows in row_chunks(x):
            index = ctx.segments.index[rows]
            centred = torch.index_select(mean, 0, index, out=out[rows])
            torch.sub(x[rows], centred, out=centred).mul_(slope.index_select(0, index))
            if offset is not None:
                centred.add_(offset.index_select(0, index))
        return out, None, None


class _Powers(Function):
    """Σ max(x, ε)^p of each channel over each set, ``(N, C)`` to ``(S, C)``."""

    @staticmethod
    def forward(x: Tensor, segments: Segments, p: float, eps: float) -> Tensor:
        x = x.detach()
        sums = per_run(segments, x, x.shape[1])
        for chunk in chunks(segments, x.shape[1]):
            powers = take(segments, x, chunk).clamp(min=eps).pow_(p)
            sums[chunk.runs] = add_rows(powers, chunk.rows, chunk.offsets)
        return combine(segments, sums)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.segments, ctx.p, ctx.eps = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        if plainly(grad):
            sets = definition.Ragged(ctx.segments)
            again = lambda x: sets.sum(x.clamp(min=ctx.eps) ** ctx.p)  # noqa: E731
            return *vector_product(again, [x], [grad]), None, None, None
        slope, out = grad * ctx.p, torch.empty_like(x)
        for rows in row_chunks(x):
            to = torch.clamp(x[rows], min=ctx.eps, out=out[rows]).pow_(ctx.p - 1)
            rises = torch.ge(x[rows], ctx.eps, out=torch.empty_like(to))  # booleans take ten times as long
            to.mul_(rises).mul_(slope.index_select(0, ctx.segments.index[rows]))
        return out, None, None, None


class RaggedChannels(RaggedAttention):
    """Softmax, moments and power mean of each channel."""

    def frugal(self, x: Tensor, many: Tensor | None, scores: int = 1) -> Frugal:
        """All of them, where they are fast; weights of a linear attention are one number an element and score."""
        fits = simple(x, many)
        return Frugal(attend=fits and keeps_weights(x, scores), soften=fits, moments=fits, power=fits)

    def soften(self, x: Tensor, scale: Tensor | float, many: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """FIGURE_RAGGED_SOFTEN."""
        if isinstance(scale, Tensor) or not simple(x, many):
            return super().soften(x, scale, many)
        z, log_mass, *_ = apply(_Soften, x, self.segments, scale)
        return z, log_mass

    def moments(self, x: Tensor, many: Tensor | None, size_of: Size) -> tuple[Tensor, Tensor]:
        """FIGURE_RAGGED_MOMENTS."""
        if not simple(x, many):
            return super().moments(x, many, size_of)
        mean, var, _ = apply(_Moments, x, self.segments, size_of(x))
        return mean, var

    def power(self, x: Tensor, p: Tensor | float, eps: float, many: Tensor | None, size_of: Size) -> Tensor:
        """As it is written, where no set's sum comes near a limit of its type: FIGURE_RAGGED_POWER."""
        if simple(x, many) and not isinstance(p, Tensor):
            empty = self.segments.lengths[:, None] == 0
            total = apply(_Powers, x, self.segments, p, eps).masked_fill(empty, 1.0)
            if inside(total, 1 / tuning.VAST, tuning.VAST):
                root: Tensor = ((total / size_of(x)) ** (1 / p)).masked_fill(empty, eps)
                return root
        return super().power(x, p, eps, many, size_of)
