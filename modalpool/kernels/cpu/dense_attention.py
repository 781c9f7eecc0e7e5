"""Softmax, weighted sums and attention of dense sets on a CPU.

Legend: ``B`` sets, ``N`` elements, ``C`` channels, ``F`` scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from modalpool.kernels import definition, tuning
from modalpool.kernels.cpu.dense_sums import DenseSums
from modalpool.kernels.second_order import Fast, Grads, Saved
from modalpool.kernels.values import (
    Many,
    accumulation_type,
    align,
    finite,
    learned,
    present,
    read,
    single,
    split_channels,
)


class _Softmax(Fast):
    """Softmax along an axis, and the log of what it was divided by; every largest score is finite."""

    def __init__(self, axis: int, top: Tensor) -> None:
        self.axis, self.top = axis, top

    def again(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        return scores.softmax(self.axis), scores.logsumexp(self.axis)

    def forward(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Torch's own; the largest weight is exp(largest score - log mass)."""
        weight = scores.softmax(self.axis)
        if scores.shape[self.axis] > tuning.SHORT:  # it divides by a running sum, which drifts; torch's sum does not
            weight.div_(weight.sum(self.axis, keepdim=True))
        return weight, self.top - weight.amax(self.axis).log_()

    def backward(self, saved: Saved, grads: Grads, wanted: Sequence[bool]) -> Grads:
        (_, weight, _), (grad, mass_grad), axis = saved, grads, self.axis
        slope = None if grad is None else torch._softmax_backward_data(grad, weight, axis, weight.dtype)
        if mass_grad is not None:
            rise = mass_grad.unsqueeze(axis)
            slope = weight * rise if slope is None else slope.addcmul_(weight, rise)
        return (slope,)


def _agreement(x: Tensor, vectors: Tensor) -> Tensor:
    """Scores x · vectors, ``(B, N, C)`` and ``(B, F, C)`` to ``(B, F, N)``: sets along memory."""
    if x.stride(2) == 1 and vectors.shape[1] * vectors.shape[2] <= tuning.NEAR:
        return torch.bmm(x, vectors.mT).mT.contiguous()
    return torch.bmm(vectors, x.mT)


class _Attend(Fast):
    """Attention with scores x · matrix over one pooled axis, ``x (B, N, C)``; every head pools all channels."""

    hidden = 1

    def __init__(self, many: Many) -> None:
        self.many = many

    def again(self, x: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
        z, mass = definition.Dense((1,)).attend(x, matrix, self.many, all_channels=True)
        return z, mass.flatten(1)

    def forward(self, x: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled vectors ``(B, F, C)``, log masses ``(B, F)`` and weights ``(B, F, N)``."""
        scores = _agreement(x, matrix.expand(len(x), -1, -1))
        weight, log_mass = DenseAttention((1,)).softmax(scores.mT, self.many)
        return torch.bmm(weight.mT, x), log_mass, weight.mT

    def backward(self, saved: Saved, grads: Grads, wanted: Sequence[bool]) -> Grads:
        (x, matrix, z, _, weight), (grad, mass_grad) = saved, grads
        grad = torch.zeros_like(z) if grad is None else grad
        mean = (z * grad).sum(-1) if mass_grad is None else (z * grad).sum(-1) - mass_grad  # (B, F)
        slope = _agreement(x, grad).sub_(mean[..., None]).mul_(weight)  # (B, F, N)
        slopes = torch.bmm(slope, x).sum(0)
        if not wanted[0]:
            return None, slopes
        shares = torch.cat([weight.mT, slope.mT], dim=2)  # (B, N, 2F): the product is faster along memory
        vectors = torch.cat([grad, matrix.expand(len(x), -1, -1)], dim=1)
        # In the order x lies in memory.
        out = torch.bmm(shares, vectors) if x.stride(2) == 1 else torch.bmm(vectors.mT, shares.mT).mT
        return out, slopes


class DenseAttention(DenseSums):
    """Softmax, weighted sums and attention."""

    def softmax(self, scores: Tensor, many: Many = None) -> tuple[Tensor, Tensor]:
        """Torch's own, where the largest score is finite: 1.8 to 2.3 times as fast in attention with a mask."""
        if scores.numel() == 0 or learned(many):
            return super().softmax(scores, many)
        flat = scores.to(accumulation_type(scores.dtype))
        if many is not None:
            times = align(many, flat)
            flat = flat if many.dtype == torch.bool else flat + times.to(flat.dtype).log()
            flat = torch.where(present(times), flat, -torch.inf)
        first = self.dims[0]
        flat = flat.flatten(first, self.dims[-1])
        # Along the axis that lies innermost in memory torch needs no copy.
        inner = flat.stride(first) < flat.stride(-1)
        flat, axis = (flat.movedim(first, -1), -1) if inner else (flat, first)
        top = flat.detach().amax(axis)
        if not finite(top):
            return super().softmax(scores, many)
        weight, log_mass = _Softmax(axis, top)(flat)
        return weight.movedim(axis, first).reshape(scores.shape), log_mass

    def weighted_sum(self, weight: Tensor, values: Tensor, many: Many = None, *, exact_zeros: bool = False) -> Tensor:
        """A look at the result says if zeros had to be exact: pyramids 6.2 times as fast, 4.6 with the backward."""
        if exact_zeros:
            total = super().weighted_sum(weight, values, many)
            if read(total.isfinite().all()):
                return total
        return super().weighted_sum(weight, values, many, exact_zeros=exact_zeros)

    def attend(
        self, x: Tensor, matrix: Tensor, many: Many = None, *, queries: int = 1, all_channels: bool = False
    ) -> tuple[Tensor, Tensor]:
        """One product for the gradient of x: forward and backward 1.6 to 2.4 times as fast, in half the memory."""
        if self.dims[0] != 1 or learned(many) or not single(x):
            return super().attend(x, matrix, many, queries=queries, all_channels=all_channels)
        flat = x.flatten(1, -2)  # a view, as pooled axes lie together in every common layout
        there = None if many is None else many.expand(x.shape[:-1]).flatten(1)
        z, log_mass, _ = _Attend(there)(flat, matrix.to(x.dtype))
        if many is not None and not read(z.isfinite().all()):  # something not finite hides where nothing is
            return super().attend(x, matrix, many, queries=queries, all_channels=all_channels)
        heads = len(matrix) // queries
        if not all_channels:  # each head keeps its own share of the channels
            groups = split_channels(z, heads).reshape(len(z), queries, heads, heads, -1)  # (B, K, H, H, C/H)
            z = groups.diagonal(dim1=2, dim2=3).movedim(-1, 2).flatten(2)
        return z, log_mass.reshape(len(z), queries, heads)
