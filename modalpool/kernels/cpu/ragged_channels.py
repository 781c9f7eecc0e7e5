"""Softmax, moments and power mean of each channel of ragged sets on a CPU, in chunks that stay in the cache.

Legend: ``N`` elements, ``S`` sets, ``C`` channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from modalpool.kernels import definition, tuning
from modalpool.kernels.cpu.ragged_attention import RaggedAttention
from modalpool.kernels.cpu.ragged_sums import RaggedSums
from modalpool.kernels.cpu.rows import add, add_rows, chunks, combine, per_run, row_chunks, simple, sound, take
from modalpool.kernels.definition import Frugal, Size
from modalpool.kernels.second_order import Fast, Grads, Saved
from modalpool.kernels.segments import Segments
from modalpool.kernels.values import Many, finite, inside, keeps_weights, read

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


class _Soften(Fast):
    """Softmax of each channel over each set, times the channel; the weights are never written down."""

    hidden = 2

    def __init__(self, segments: Segments, scale: float) -> None:
        self.segments, self.scale, self.finite = segments, scale, True

    def again(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return definition.Ragged(self.segments).soften(x, self.scale)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        segments, scale = self.segments, self.scale
        empty = segments.lengths[:, None] == 0
        shift = torch.zeros(())
        total, mass = _soften(x, scale, segments, None)
        if not sound(total, mass, empty):
            extreme = RaggedSums(segments).extreme(x, least=scale < 0)
            shift = torch.where(empty, 0.0, extreme * (scale * LOG2E))
            total, mass = _soften(x, scale, segments, shift)
            self.finite = finite(total) and finite(mass)
        z = torch.where(empty, 0.0, total / mass)
        return z, mass.log() + shift / LOG2E, mass, shift

    def backward(self, saved: Saved, grads: Grads, wanted: Sequence[bool]) -> Grads:
        (x, z, _, mass, shift), (grad, mass_grad) = saved, grads
        # The gradient is e (a x + b) with e = exp(x · scale - shift), one a and one b per set.
        slope = torch.zeros_like(z) if grad is None else grad * self.scale / mass
        offset = -slope * z if grad is None else grad / mass - slope * z
        offset = offset if mass_grad is None else offset + mass_grad * self.scale / mass
        empty = self.segments.lengths[:, None] == 0
        slope, offset = (torch.where(empty, 0.0, term) for term in (slope, offset))
        out = torch.empty_like(x)
        for rows in row_chunks(x):
            index, to = self.segments.index[rows], out[rows]
            torch.index_select(slope, 0, index, out=to).mul_(x[rows]).add_(offset.index_select(0, index))
            mass = x[rows] * (self.scale * LOG2E)
            mass = mass if shift.ndim == 0 else mass.sub_(shift.index_select(0, index))
            to.mul_(mass.exp2_())
        return (out,)


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


class _Moments(Fast):
    """Mean and variance of rows, ``(N, C)`` to ``(S, C)`` each."""

    hidden = 1

    def __init__(self, segments: Segments, size: Tensor) -> None:
        self.segments, self.size = segments, size

    def again(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return definition.Ragged(self.segments).moments(x, None, lambda _: self.size)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        segments, size = self.segments, self.size
        mean = add(segments, x) / size
        var = _squares(x, mean, segments, power=2) / size
        miss = torch.zeros_like(mean)
        if not read((mean.square() <= 16 * var).all()):
            # The mean is rounded; what it misses by is taken off again (the corrected two-pass formula). Only where it
            # is large beside the deviation can that be felt.
            miss = _squares(x, mean, segments, power=1) / size
            var = (var - miss.square()).clamp_(min=0)
        return mean, var, miss

    def backward(self, saved: Saved, grads: Grads, wanted: Sequence[bool]) -> Grads:
        (x, mean, _, miss), (mean_grad, var_grad), size = saved, grads, self.size
        slope = torch.zeros_like(mean) if var_grad is None else 2 * var_grad / size
        offset = None if mean_grad is None else mean_grad / size
        if read(miss.any()):
            offset = -slope * miss if offset is None else offset - slope * miss
        out = torch.empty_like(x)
        for rows in row_chunks(x):
            index = self.segments.index[rows]
            centred = torch.index_select(mean, 0, index, out=out[rows])
            torch.sub(x[rows], centred, out=centred).mul_(slope.index_select(0, index))
            if offset is not None:
                centred.add_(offset.index_select(0, index))
        return (out,)


class _Powers(Fast):
    """Σ max(x, ε)^p of each channel over each set, ``(N, C)`` to ``(S, C)``."""

    def __init__(self, segments: Segments, p: float, eps: float) -> None:
        self.segments, self.p, self.eps = segments, p, eps

    def again(self, x: Tensor) -> Tensor:
        return definition.Ragged(self.segments).sum(x.clamp(min=self.eps) ** self.p)

    def forward(self, x: Tensor) -> Tensor:
        segments = self.segments
        sums = per_run(segments, x, x.shape[1])
        for chunk in chunks(segments, x.shape[1]):
            powers = take(segments, x, chunk).clamp(min=self.eps).pow_(self.p)
            sums[chunk.runs] = add_rows(powers, chunk.rows, chunk.offsets)
        return combine(segments, sums)

    def backward(self, saved: Saved, grads: Grads, wanted: Sequence[bool]) -> Grads:
        (x, _), (grad,) = saved, grads
        slope, out = grad * self.p, torch.empty_like(x)
        for rows in row_chunks(x):
            to = torch.clamp(x[rows], min=self.eps, out=out[rows]).pow_(self.p - 1)
            rises = torch.ge(x[rows], self.eps, out=torch.empty_like(to))  # booleans take ten times as long
            to.mul_(rises).mul_(slope.index_select(0, self.segments.index[rows]))
        return (out,)


class RaggedChannels(RaggedAttention):
    """Softmax, moments and power mean of each channel."""

    def frugal(self, x: Tensor, many: Many, scores: int = 1) -> Frugal:
        """All of them, where they are fast; weights of a linear attention are one number an element and score."""
        fits = simple(x, many)
        return Frugal(attend=fits and keeps_weights(x, scores), soften=fits, moments=fits, power=fits)

    def soften(self, x: Tensor, scale: Tensor | float, many: Many = None) -> tuple[Tensor, Tensor]:
        """No weights are kept: 5.4 to 7.4 times as fast forward, 4.5 to 5.1 with the backward."""
        if isinstance(scale, Tensor) or not simple(x, many):
            return super().soften(x, scale, many)
        fast = _Soften(self.segments, scale)
        z, log_mass, *_ = fast(x)
        return (z, log_mass) if fast.finite else super().soften(x, scale, many)

    def moments(self, x: Tensor, many: Many, size_of: Size) -> tuple[Tensor, Tensor]:
        """Chunks in the cache: 1.7 to 2.8 times as fast forward, 3.3 to 3.6 with the backward."""
        if not simple(x, many):
            return super().moments(x, many, size_of)
        mean, var, _ = _Moments(self.segments, size_of(x))(x)
        return mean, var

    def power(self, x: Tensor, p: Tensor | float, eps: float, many: Many, size_of: Size) -> Tensor:
        """As written, far from limits of the type: 3.3 times as fast forward, 3.1 with the backward."""
        if simple(x, many) and not isinstance(p, Tensor):
            empty = self.segments.lengths[:, None] == 0
            total = _Powers(self.segments, p, eps)(x).masked_fill(empty, 1.0)
            if inside(total, 1 / tuning.VAST, tuning.VAST):
                root: Tensor = ((total / size_of(x)) ** (1 / p)).masked_fill(empty, eps)
                return root
        return super().power(x, p, eps, many, size_of)
