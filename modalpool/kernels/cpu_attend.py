"""Weighted sums and attention over ragged sets on a CPU, without a tensor of the size of the elements.

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
from modalpool.kernels.bags import Bags, bags_of, look_up, row_chunks, rows_at_once, simple
from modalpool.kernels.choice import apply, known, single
from modalpool.kernels.differentiate import plainly, vector_product
from modalpool.kernels.segments import Segments

__all__ = ["segment_attend", "segment_softmax", "segment_weighted_sum"]

MODERATE = 40.0
"""Up to what size scores are exponentiated as they are: a set of them can neither overflow nor vanish in float32."""


def _weighted(weight: Tensor, x: Tensor, bags: Bags) -> Tensor:
    """Σ w x: ``weight (N, K, G)``, ``x (N, C)`` to ``(S, K, C)``; a row of x is G rows of a group each."""
    groups = weight.shape[2]
    flat = x.reshape(-1, x.shape[1] // groups)
    weight = weight if bags.order is None else weight[bags.order]
    sums = [
        [bags.add_rows(flat, bags.rows * groups + g, weight[:, k, g].contiguous()) for g in range(groups)]
        for k in range(weight.shape[1])
    ]
    stacked = torch.stack([torch.cat(row, dim=-1) for row in sums], dim=1)  # (B, K, C)
    return bags.combine(stacked.flatten(1)).reshape(-1, *stacked.shape[1:])


def _pull(x: Tensor, grad: Tensor, weight: Tensor, out: Tensor | None, spare: Tensor) -> Tensor:
    """What a weighted sum's gradient does to some elements.

    Args:
        x: Elements ``(n, C)``.
        grad: Gradient of the vectors of each element's set, ``(n, K, C)``; is overwritten.
        weight: ``(n, K, G)``.
        out: Where Σ_k weight · grad, the gradient of x, is written, ``(n, C)``; may be the memory of ``grad``.
        spare: Memory for ``n · C`` values.

    Returns:
        The gradient of the weights, how x and grad agree in each group of channels, ``(n, K, G)``.
    """
    spare = spare[: len(x)]
    slopes = torch.empty_like(weight, memory_format=torch.contiguous_format)
    groups = weight.shape[2]
    for k in range(weight.shape[1]):
        torch.mul(x, grad[:, k], out=spare)
        torch.sum(plain.split_channels(spare, groups), -1, out=slopes[:, k])
        if out is not None:
            plain.split_channels(grad[:, k], groups).mul_(weight[:, k, :, None])
            if k:
                out.add_(grad[:, k])
            elif out.data_ptr() != grad.data_ptr():
                out.copy_(grad[:, k])
    return slopes


def _spread_into(grad: Tensor, index: Tensor, out: Tensor | None) -> Tensor:
    """The gradients ``(S, K, C)`` of each element's set, ``(n, K, C)``, in the memory of ``out`` if K is one."""
    if out is None or grad.shape[1] > 1:
        return grad.index_select(0, index)
    return torch.index_select(grad, 0, index, out=out[:, None])


class _WeightedSum(Function):
    """Σ w x over each set, ``(N, K, G)`` and ``(N, C)`` to ``(S, K, C)``."""

    @staticmethod
    def forward(weight: Tensor, x: Tensor, segments: Segments) -> Tensor:
        return _weighted(weight.detach(), x.detach(), bags_of(segments))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        weight, x, ctx.segments = inputs
        ctx.save_for_backward(weight, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, x = ctx.saved_tensors
        if plainly(grad):
            again = lambda weight, x: plain.segment_weighted_sum(weight, x, ctx.segments)  # noqa: E731
            return *vector_product(again, [weight, x], [grad]), None
        slopes = torch.empty_like(weight, memory_format=torch.contiguous_format)
        out = torch.empty_like(x) if ctx.needs_input_grad[1] else None
        spare = x.new_empty(min(rows_at_once(x), len(x)), x.shape[1])
        for rows in row_chunks(x):
            to = None if out is None else out[rows]
            here = _spread_into(grad, ctx.segments.index[rows], to)
            slopes[rows] = _pull(x[rows], here, weight[rows], to, spare)
        return slopes, out, None


def segment_weighted_sum(
    weight: Tensor, values: Tensor, segments: Segments, many: Tensor | None = None, *, exact_zeros: bool = False
) -> Tensor:
    """See `modalpool.kernels.plain.segment_weighted_sum`."""
    shared = weight.ndim == 3 and (weight.shape[2] < values.shape[-1] or values.shape[-1] == 1)
    if exact_zeros or not shared or not simple(values, many):
        return plain.segment_weighted_sum(weight, values, segments, many, exact_zeros=exact_zeros)
    total: Tensor = apply(_WeightedSum, weight.to(values.dtype).expand(len(values), -1, -1), values, segments)
    return total


def _softmax(scores: Tensor, bags: Bags) -> tuple[Tensor, Tensor] | None:
    """Weights ``(N, F)`` and log masses ``(S, F)`` of finite scores."""
    segments, top = bags.segments, None
    if not _moderate(scores):
        low = scores.new_full((segments.size, scores.shape[1]), -torch.inf)
        top = low.scatter_reduce_(0, segments.index[:, None].expand_as(scores), scores, "amax")
        top = torch.where(segments.lengths[:, None] > 0, top, 0.0)
        if not known(top.isfinite().all()):
            return None
    weight = scores.exp() if top is None else (scores - look_up(top, segments.index)).exp_()
    total = bags.add(weight)
    log_mass = total.log() if top is None else total.log() + top
    return weight.div_(look_up(total, segments.index)), log_mass


def _moderate(scores: Tensor) -> bool:
    """Whether no score is so large or small that its exponential has to be taken around the set's maximum."""
    if scores.numel() == 0:
        return True
    least, most = scores.aminmax()
    return bool(known(least) >= -MODERATE and known(most) <= MODERATE)


class _Softmax(Function):
    """Softmax over each set, ``(N, F)``, and the log of the masses, ``(S, F)``."""

    @staticmethod
    def forward(scores: Tensor, segments: Segments) -> tuple[Tensor, Tensor]:
        scores = scores.detach()
        found = _softmax(scores, bags_of(segments))
        return fused.segment_softmax(scores, segments) if found is None else found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        scores, ctx.segments = inputs
        ctx.save_for_backward(scores, output[0])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, mass_grad: Tensor | None) -> tuple[Tensor | None, ...]:
        scores, weight = ctx.saved_tensors
        if plainly(grad, mass_grad):
            again = lambda scores: fused.segment_softmax(scores, ctx.segments)  # noqa: E731
            return *vector_product(again, [scores], [grad, mass_grad]), None
        bags = bags_of(ctx.segments)
        per_set = torch.zeros(ctx.segments.size, weight.shape[1], dtype=weight.dtype)
        if grad is not None:
            grad = grad * weight
            per_set = bags.add(grad).neg_()
        if mass_grad is not None:
            per_set = per_set + mass_grad
        slope = weight * look_up(per_set, ctx.segments.index)
        return slope if grad is None else slope.add_(grad), None


def segment_softmax(scores: Tensor, segments: Segments, many: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """See `modalpool.kernels.fused.softmax`."""
    if many is not None or scores.ndim != 2 or not single(scores):
        return fused.segment_softmax(scores, segments, many)
    found: tuple[Tensor, Tensor] = apply(_Softmax, scores.contiguous(), segments)
    return found


class _Attend(Function):
    """Attention with scores x · matrix; the gradient of x is written once, for scores and values together."""

    @staticmethod
    def forward(
        x: Tensor, matrix: Tensor, segments: Segments, queries: int, whole: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        x, matrix, bags = x.detach(), matrix.detach(), bags_of(segments)
        scores = x.new_empty(len(x), len(matrix))
        if len(matrix) == 1:  # faster than a product with a vector
            spare = x.new_empty(min(rows_at_once(x), len(x)), x.shape[1])
            for rows in row_chunks(x):
                part = x[rows]
                torch.sum(torch.mul(part, matrix, out=spare[: len(part)]), 1, keepdim=True, out=scores[rows])
        else:
            torch.mm(x, matrix.T, out=scores)
        weight, log_mass = _softmax(scores, bags) or fused.segment_softmax(scores, segments)
        shape = (len(x), len(matrix), 1) if whole else (len(x), queries, len(matrix) // queries)
        return _weighted(weight.reshape(shape), x, bags), log_mass, weight

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        x, matrix, ctx.segments, ctx.queries, ctx.whole = inputs
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
                z, mass = fused.segment_attend(x, matrix, ctx.segments, queries=ctx.queries, whole=ctx.whole)
                return z, mass.flatten(1)

            return *vector_product(again, [x, matrix], [grad, mass_grad]), None, None, None
        grad = torch.zeros_like(z) if grad is None else grad
        vectors = grad.shape[1]
        groups = len(matrix) // vectors
        mean = plain.split_channels(z * grad, groups).sum(-1).flatten(1)  # Σ w dw, per set
        mean = mean if mass_grad is None else mean - mass_grad
        out = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        slopes = torch.zeros_like(matrix)
        weight = weight.reshape(len(x), vectors, groups)
        spare = x.new_empty(min(rows_at_once(x), len(x)), x.shape[1])
        for rows in row_chunks(x):
            part, index, share = x[rows], ctx.segments.index[rows], weight[rows]
            to = None if out is None else out[rows]
            slope = _pull(part, _spread_into(grad, index, to), share, to, spare).flatten(1)
            slope = slope.sub_(look_up(mean, index)).mul_(share.flatten(1))
            slopes.addmm_(slope.T, part)
            if to is not None:
                to.addcmul_(slope, matrix) if len(matrix) == 1 else to.addmm_(slope, matrix)
        return out, slopes, None, None, None


def segment_attend(
    x: Tensor, matrix: Tensor, segments: Segments, many: Tensor | None = None, *, queries: int = 1, whole: bool = False
) -> tuple[Tensor, Tensor]:
    """See `modalpool.kernels.fused.attend`."""
    if not simple(x, many):
        return fused.segment_attend(x, matrix, segments, many, queries=queries, whole=whole)
    z, log_mass, _ = apply(_Attend, x, matrix.to(x.dtype), segments, queries, whole)
    return z, log_mass.reshape(segments.size, queries, -1)
