"""Softmax, weighted sums and attention of ragged sets on a CPU, without a tensor of the size of the elements.

Legend: ``N`` elements, ``S`` sets, ``C`` channels, ``K`` vectors per set, ``G`` groups of channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from modalpool.kernels import definition, tuning
from modalpool.kernels.cpu.ragged_sums import RaggedSums
from modalpool.kernels.cpu.rows import (
    Chunk,
    add,
    add_rows,
    chunks,
    combine,
    look_up,
    per_run,
    row_chunks,
    rows_at_once,
    simple,
    take,
)
from modalpool.kernels.second_order import Fast, Grads, Saved
from modalpool.kernels.segments import Segments
from modalpool.kernels.values import Many, moderate, read, single, split_channels


def _weighted(weight: Tensor, x: Tensor, chunk: Chunk) -> Tensor:
    """Σ w x over the runs of a chunk: ``weight (n, K, G)`` and ``x (n, C)`` to ``(b, K · C)``."""
    sums = []
    for share in weight.unbind(1):  # (n, G)
        if share.shape[1] == 1:
            sums.append(add_rows(x, chunk.rows, chunk.offsets, share.squeeze(1).contiguous()))
        else:
            product = split_channels(x, share.shape[1]) * share[..., None]
            sums.append(add_rows(product.flatten(1), chunk.rows, chunk.offsets))
    return torch.cat(sums, dim=1)


def _agree(x: Tensor, grad: Tensor, groups: int, spare: Tensor) -> Tensor:
    """Σ x grad over each group of channels, the gradient of the weights: ``(n, C)``, ``(n, K, C)`` to ``(n, K, G)``."""
    slopes = x.new_empty(len(x), grad.shape[1], groups)
    for k in range(grad.shape[1]):
        product = torch.mul(x, grad[:, k], out=spare[: len(x)])
        torch.sum(split_channels(product, groups), -1, out=slopes[:, k])
    return slopes


def _mix(weight: Tensor, grad: Tensor, out: Tensor) -> None:
    """Write Σ_k weight · grad, the gradient of x: ``(n, K, G)``, ``(n, K, C)`` to ``(n, C)``.

    The gradients are overwritten, and may lie in the memory of ``out``.
    """
    for k in range(grad.shape[1]):
        split_channels(grad[:, k], weight.shape[2]).mul_(weight[:, k, :, None])
        if k:
            out.add_(grad[:, k])
        elif out.data_ptr() != grad.data_ptr():
            out.copy_(grad[:, k])


def _hand_back_into(grad: Tensor, index: Tensor, out: Tensor | None) -> Tensor:
    """The gradients ``(S, K, C)`` of each element's set, ``(n, K, C)``, in the memory of ``out`` if K is one."""
    if out is None or grad.shape[1] > 1:
        return grad.index_select(0, index)
    return torch.index_select(grad, 0, index, out=out[:, None])


class _WeightedSum(Fast):
    """Σ w x over each set, ``(N, K, G)`` and ``(N, C)`` to ``(S, K, C)``."""

    def __init__(self, segments: Segments) -> None:
        self.segments = segments

    def again(self, weight: Tensor, x: Tensor) -> Tensor:
        return definition.Ragged(self.segments).weighted_sum(weight, x)

    def forward(self, weight: Tensor, x: Tensor) -> Tensor:
        segments = self.segments
        vectors, groups = weight.shape[1:]
        if vectors == groups == 1:
            return add(segments, x, weight.flatten()).unsqueeze(1)
        total = per_run(segments, x, vectors * x.shape[1])
        for chunk in chunks(segments, x.shape[1]):
            total[chunk.runs] = _weighted(take(segments, weight, chunk), take(segments, x, chunk), chunk)
        return combine(segments, total).reshape(segments.size, vectors, -1)

    def backward(self, saved: Saved, grads: Grads, wanted: Sequence[bool]) -> Grads:
        (weight, x, _), (grad,) = saved, grads
        slopes = torch.empty_like(weight, memory_format=torch.contiguous_format)
        out = torch.empty_like(x) if wanted[1] else None
        spare = x.new_empty(min(rows_at_once(x), len(x)), x.shape[1])
        for rows in row_chunks(x):
            to = None if out is None else out[rows]
            here = _hand_back_into(grad, self.segments.index[rows], to)
            slopes[rows] = _agree(x[rows], here, weight.shape[2], spare)
            if to is not None:
                _mix(weight[rows], here, to)
        return slopes, out


class _Softmax(Fast):
    """Softmax over each set, ``(N, F)``, and the log of the masses, ``(S, F)``."""

    def __init__(self, segments: Segments) -> None:
        self.segments = segments

    def again(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        return definition.Ragged(self.segments).softmax(scores)

    def forward(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        segments, top = self.segments, None
        if not moderate(scores):
            low = scores.new_full((segments.size, scores.shape[1]), -torch.inf)
            top = low.scatter_reduce_(0, segments.index[:, None].expand_as(scores), scores, "amax")
            top = torch.where(segments.lengths[:, None] > 0, top, 0.0)
            if not read(top.isfinite().all()):
                return self.again(scores)
        weight = scores.exp() if top is None else (scores - look_up(top, segments.index)).exp_()
        total = add(segments, weight)
        log_mass = total.log() if top is None else total.log() + top
        return weight.div_(look_up(total, segments.index)), log_mass

    def backward(self, saved: Saved, grads: Grads, wanted: Sequence[bool]) -> Grads:
        (_, weight, _), (grad, mass_grad), segments = saved, grads, self.segments
        per_set = torch.zeros(segments.size, weight.shape[1], dtype=weight.dtype)
        if grad is not None:
            grad = grad * weight
            per_set = add(segments, grad).neg_()
        if mass_grad is not None:
            per_set = per_set + mass_grad
        slope = weight * look_up(per_set, segments.index)
        return (slope if grad is None else slope.add_(grad),)


def _scores(x: Tensor, matrix: Tensor) -> Tensor:
    """Products x · matrix, ``(N, F)``; wide rows meet two vectors in half the time of one."""
    if len(matrix) == 1 and x.shape[1] >= tuning.PAIRED:
        return torch.mm(x, matrix.repeat(2, 1).T)[:, :1]
    return torch.mm(x, matrix.T)


class _Attend(Fast):
    """Attention with scores x · matrix: a softmax and a weighted sum, whose backward writes the gradient of x once."""

    hidden = 1

    def __init__(self, segments: Segments, vectors: int) -> None:
        self.segments, self.vectors = segments, vectors

    def again(self, x: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
        z, mass = definition.Ragged(self.segments).attend(x, matrix, queries=self.vectors)
        return z, mass.flatten(1)

    def forward(self, x: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weight, log_mass = _Softmax(self.segments).forward(_scores(x, matrix))
        z = _WeightedSum(self.segments).forward(weight.reshape(len(x), self.vectors, -1), x)
        return z, log_mass, weight

    def backward(self, saved: Saved, grads: Grads, wanted: Sequence[bool]) -> Grads:
        (x, matrix, z, _, weight), (grad, mass_grad) = saved, grads
        vectors, groups = self.vectors, len(matrix) // self.vectors
        grad = torch.zeros_like(z) if grad is None else grad
        mean = split_channels(z * grad, groups).sum(-1).flatten(1)  # Σ w dw, per set
        mean = mean if mass_grad is None else mean - mass_grad
        out = torch.empty_like(x) if wanted[0] else None
        slopes = torch.zeros_like(matrix)
        spare = x.new_empty(min(rows_at_once(x), len(x)), x.shape[1])
        for rows in row_chunks(x):
            index, to = self.segments.index[rows], None if out is None else out[rows]
            here = _hand_back_into(grad, index, to)
            slope = _agree(x[rows], here, groups, spare).flatten(1)
            slope = slope.sub_(look_up(mean, index)).mul_(weight[rows])
            slopes.addmm_(slope.T, x[rows])
            if to is not None:
                _mix(weight[rows].reshape(-1, vectors, groups), here, to)
                to.addcmul_(slope, matrix) if len(matrix) == 1 else to.addmm_(slope, matrix)
        return out, slopes


class RaggedAttention(RaggedSums):
    """Softmax, weighted sums and attention."""

    def weighted_sum(self, weight: Tensor, values: Tensor, many: Many = None, *, exact_zeros: bool = False) -> Tensor:
        """No product is written down: with `softmax` 2.3 to 3.5 times as fast forward, 1.6 to 2.0 with the backward."""
        shared = weight.ndim == 3 and (weight.shape[2] < values.shape[-1] or values.shape[-1] == 1)
        if exact_zeros or not shared or not simple(values, many):
            return super().weighted_sum(weight, values, many, exact_zeros=exact_zeros)
        weight = weight.to(values.dtype).expand(len(values), -1, -1)
        total: Tensor = _WeightedSum(self.segments)(weight, values)
        return total

    def softmax(self, scores: Tensor, many: Many = None) -> tuple[Tensor, Tensor]:
        """Moderate scores need no maximum; see `weighted_sum` for the figure."""
        if many is not None or scores.ndim != 2 or not single(scores):
            return super().softmax(scores, many)
        found: tuple[Tensor, Tensor] = _Softmax(self.segments)(scores.contiguous())
        return found

    def attend(
        self, x: Tensor, matrix: Tensor, many: Many = None, *, queries: int = 1, all_channels: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The gradient of x is written once: 2.8 to 3.5 times as fast forward, 2.8 to 3.7 with the backward."""
        if not simple(x, many):
            return super().attend(x, matrix, many, queries=queries, all_channels=all_channels)
        z, log_mass, _ = _Attend(self.segments, len(matrix) if all_channels else queries)(x, matrix.to(x.dtype))
        return z, log_mass.reshape(self.segments.size, queries, -1)
