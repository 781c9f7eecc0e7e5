"""Softmax, weighted sums and attention of dense sets on a CPU.

Legend: ``B`` sets, ``N`` elements, ``C`` channels, ``F`` scores.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from modalpool.kernels import definition, tuning
from modalpool.kernels.cpu.dense_sums import DenseSums
from modalpool.kernels.second_order import apply, plainly, vector_product
from modalpool.kernels.values import (
    accumulation_type,
    align,
    finite,
    learned,
    present,
    read,
    single,
    split_channels,
)

__all__ = ["DenseAttention"]


class _Softmax(Function):
    """Softmax along an axis, and the log of what it was divided by; every largest score is finite."""

    @staticmethod
    def forward(scores: Tensor, axis: int, top: Tensor) -> tuple[Tensor, Tensor]:
        weight = scores.detach().softmax(axis)
        if scores.shape[axis] > tuning.SHORT:  # torch's softmax divides by a running sum, which drifts; a sum does not
            weight.div_(weight.sum(axis, keepdim=True))
        # The largest weight is exp(largest score - log mass).
        return weight, top - weight.amax(axis).log_()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        scores, ctx.axis, _ = inputs
        ctx.save_for_backward(scores, output[0])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, mass_grad: Tensor | None) -> tuple[Tensor | None, ...]:
        scores, weight = ctx.saved_tensors
        axis = ctx.axis
        if plainly(grad, mass_grad):
            again = lambda scores: (scores.softmax(axis), scores.logsumexp(axis))  # noqa: E731
            return *vector_product(again, [scores], [grad, mass_grad]), None, None
        slope = None if grad is None else torch._softmax_backward_data(grad, weight, axis, weight.dtype)
        if mass_grad is not None:
            rise = mass_grad.unsqueeze(axis)
            slope = weight * rise if slope is None else slope.addcmul_(weight, rise)
        return slope, None, None


def _agreement(x: Tensor, vectors: Tensor) -> Tensor:
    """Scores x · vectors, ``(B, N, C)`` and ``(B, F, C)`` to ``(B, F, N)``: sets along memory."""
    if x.stride(2) == 1 and vectors.shape[1] * vectors.shape[2] <= tuning.NEAR:
        return torch.bmm(x, vectors.mT).mT.contiguous()
    return torch.bmm(vectors, x.mT)


class _Attend(Function):
    """Attention with scores x · matrix over one pooled axis, ``x (B, N, C)``; every head pools all channels."""

    @staticmethod
    def forward(x: Tensor, matrix: Tensor, many: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled vectors ``(B, F, C)``, log masses ``(B, F)`` and weights ``(B, F, N)``."""
        x = x.detach()
        scores = _agreement(x, matrix.detach().expand(len(x), -1, -1))
        weight, log_mass = DenseAttention((1,)).softmax(scores.mT, many)
        return torch.bmm(weight.mT, x), log_mass, weight.mT

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        x, matrix, ctx.many = inputs
        z, _, weight = output
        ctx.mark_non_differentiable(weight)
        ctx.save_for_backward(x, matrix, z, weight)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor | None, mass_grad: Tensor | None, _: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, matrix, z, weight = ctx.saved_tensors
        if plainly(grad, mass_grad):

            def again(x: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
                z, mass = definition.Dense((1,)).attend(x, matrix, ctx.many, whole=True)
                return z, mass.flatten(1)

            return *vector_product(again, [x, matrix], [grad, mass_grad]), None
        grad = torch.zeros_like(z) if grad is None else grad
        mean = (z * grad).sum(-1) if mass_grad is None else (z * grad).sum(-1) - mass_grad  # (B, F)
        slope = _agreement(x, grad).sub_(mean[..., None]).mul_(weight)  # (B, F, N)
        slopes = torch.bmm(slope, x).sum(0)
        if not ctx.needs_input_grad[0]:
            return None, slopes, None
        shares = torch.cat([weight.mT, slope.mT], dim=2)  # (B, N, 2F): the product is faster along memory
        vectors = torch.cat([grad, matrix.expand(len(x), -1, -1)], dim=1)
        # One product writes the gradient through values and scores, in the order x lies in memory.
        out = torch.bmm(shares, vectors) if x.stride(2) == 1 else torch.bmm(vectors.mT, shares.mT).mT
        return out, slopes, None


class DenseAttention(DenseSums):
    """Softmax, weighted sums and attention."""

    def softmax(self, scores: Tensor, many: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Torch's own, where the largest score of every set is finite: FIGURE_DENSE_SOFTMAX."""
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
        weight, log_mass = apply(_Softmax, flat, axis, top)
        return weight.movedim(axis, first).reshape(scores.shape), log_mass

    def weighted_sum(
        self, weight: Tensor, values: Tensor, many: Tensor | None = None, *, exact_zeros: bool = False
    ) -> Tensor:
        """One look at the result says whether zeros had to be exact: FIGURE_DENSE_WEIGHTED."""
        if exact_zeros:
            total = super().weighted_sum(weight, values, many)
            if read(total.isfinite().all()):
                return total
        return super().weighted_sum(weight, values, many, exact_zeros=exact_zeros)

    def attend(
        self, x: Tensor, matrix: Tensor, many: Tensor | None = None, *, queries: int = 1, whole: bool = False
    ) -> tuple[Tensor, Tensor]:
        """FIGURE_DENSE_ATTEND."""
        if self.dims[0] != 1 or learned(many) or not single(x):
            return super().attend(x, matrix, many, queries=queries, whole=whole)
        flat = x.flatten(1, -2)  # a view, as pooled axes lie together in every common layout
        there = None if many is None else many.expand(x.shape[:-1]).flatten(1)
        z, log_mass, _ = apply(_Attend, flat, matrix.to(x.dtype), there)
        if many is not None and not read(z.isfinite().all()):  # something not finite hides where nothing is
            return super().attend(x, matrix, many, queries=queries, whole=whole)
        heads = len(matrix) // queries
        if not whole:  # each head keeps its own share of the channels
            groups = split_channels(z, heads).reshape(len(z), queries, heads, heads, -1)  # (B, K, H, H, C/H)
            z = groups.diagonal(dim1=2, dim2=3).movedim(-1, 2).flatten(2)
        return z, log_mass.reshape(len(z), queries, heads)
