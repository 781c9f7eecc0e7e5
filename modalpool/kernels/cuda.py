"""The faster path on a GPU, by the names of the definition: Triton kernels, each value read once.

Here, what callers have is turned into the one view that the ops of `modalpool.kernels.cuda_ops` take,
``(A, B, P, G, D)``: set axes, elements, groups that share a multiplicity or a weight, channels of a group. What has no
kernel is the definition, put together from what has.

Legend: ``D`` set axes, ``P`` pooled axes, ``N`` ragged elements, ``S`` ragged sets, ``C`` channels, ``*`` anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from modalpool.kernels import cuda_ops as ops
from modalpool.kernels import fused
from modalpool.kernels.mean import dense_mean
from modalpool.kernels.plain import accumulation_type, share
from modalpool.kernels.segments import Segments

__all__ = [
    "dense_attend",
    "dense_max",
    "dense_mean",
    "dense_min",
    "dense_moments",
    "dense_power",
    "dense_soften",
    "dense_softmax",
    "dense_sum",
    "dense_weighted_sum",
    "segment_attend",
    "segment_max",
    "segment_mean",
    "segment_min",
    "segment_moments",
    "segment_power",
    "segment_soften",
    "segment_softmax",
    "segment_sum",
    "segment_weighted_sum",
]

WIDEST = 4096
"""Channels up to which a tile of attention holds a whole element."""
HEADS = 8
"""Heads that share out the channels, in one tile."""
SCORES = 16
"""Scores per element up to which reading it once for each (from the cache) beats two matrix products."""


@dataclass(frozen=True)
class Where:
    """Which elements make up which set."""

    shape: tuple[int, ...]  # of the sets
    dims: tuple[int, ...] | None = None  # pooled axes of dense sets
    ptr: Tensor | None = None  # of ragged sets
    order: Tensor | None = None

    def elements(self, tensor: Tensor, kept: int, groups: int = 1) -> Tensor:
        """``(element axes, *)`` as ``(A, B, P, G, D)``: ``kept`` axes are elements' too, ``groups`` split the rest."""
        if self.dims is None:
            tensor = tensor[None, None]
        else:
            tensor = tensor.flatten(self.dims[0], self.dims[-1])
            axes = len(self.shape)
            tensor = tensor.flatten(0, axes - 2) if axes > 2 else tensor[(None,) * (2 - axes)]
        front = tensor.shape[3 : 3 + kept]
        return tensor.reshape(*tensor.shape[:3], prod(front) * groups, prod(tensor.shape[3 + kept :]) // groups)

    def times(self, many: Tensor | None, kept: int, groups: int = 1) -> Tensor | None:
        """Multiplicities as ``(A, B, P, G)``."""
        if many is None:
            return None
        many = self.elements(many, kept)
        return many.expand(*many.shape[:4], groups).flatten(3)


def _ragged(segments: Segments) -> Where:
    return Where((segments.size,), ptr=segments.ptr.contiguous(), order=segments.order)


def _dense(shape: torch.Size, dims: tuple[int, ...]) -> Where:
    return Where(tuple(shape[: dims[0]]), dims)


def _learned(many: Tensor | None) -> bool:
    """Multiplicities that need a gradient are left to the definition."""
    return many is not None and many.requires_grad


def _sum(values: Tensor, where: Where, many: Tensor | None) -> Tensor:
    first = 1 if where.dims is None else where.dims[-1] + 1
    rest = values.shape[first:]
    kept = 0 if many is None else many.ndim - first
    x = where.elements(values, kept)
    z: Tensor = ops.set_sum(x, None, where.times(many, kept), where.ptr, where.order, False)
    return z.reshape(*where.shape, *rest)


def _max(values: Tensor, where: Where, many: Tensor | None) -> Tensor:
    first = 1 if where.dims is None else where.dims[-1] + 1
    kept = 0 if many is None else many.ndim - first
    x = where.elements(values, kept)
    ties = x.requires_grad and torch.is_grad_enabled()
    top: Tensor = ops.set_max(x, where.times(many, kept), where.ptr, where.order, ties)[0]
    return top.reshape(*where.shape, *values.shape[first:])


def _weighted_sum(weight: Tensor, values: Tensor, where: Where, many: Tensor | None, exact_zeros: bool) -> Tensor:
    kept = values.ndim - 2 if where.dims is None else 0
    vectors, groups = weight.shape[-2:]
    weight = weight.expand(*values.shape[:-1], vectors, groups)
    each = groups == values.shape[-1] > 1
    groups = 1 if each else groups
    share = where.elements(weight.movedim(-2, -1), kept, 1)  # (A, B, P, kept, groups · K)
    share = share.reshape(*share.shape[:4], weight.shape[-1], vectors).movedim(-1, 3)  # (A, B, P, K, kept, groups)
    share = share if each else share.flatten(4).unsqueeze(-1)
    x = where.elements(values, kept, groups)
    z: Tensor = ops.set_sum(x, share, where.times(many, kept, groups), where.ptr, where.order, exact_zeros)
    front = values.shape[1:-1] if where.dims is None else ()
    z = z.reshape(*z.shape[:2], prod(front), groups, z.shape[-1]).movedim(1, 2)  # (S, kept, K, groups, D)
    return z.reshape(*where.shape, *front, vectors, values.shape[-1])


def _soften(x: Tensor, scale: Tensor | float, where: Where, many: Tensor | None) -> tuple[Tensor, Tensor]:
    kept = x.ndim - 2 if where.dims is None else 0
    rate = None
    if isinstance(scale, Tensor):
        rate = scale.to(accumulation_type(x.dtype)).expand(x.shape[-1]).contiguous()
    elif scale != 1:
        rate = x.new_full((x.shape[-1],), scale, dtype=accumulation_type(x.dtype))
    seen = where.elements(x, kept)
    z, log_mass, _, _ = ops.set_soften(seen, rate, where.times(many, kept), where.ptr, where.order)
    shape = (*where.shape, *(x.shape[1:] if where.dims is None else x.shape[-1:]))
    return z.reshape(shape), log_mass.reshape(shape)


def _attend(
    x: Tensor, matrix: Tensor, where: Where, many: Tensor | None, queries: int, whole: bool
) -> tuple[Tensor, Tensor]:
    heads = matrix.shape[0] // queries
    by_query = (queries * heads, 1) if whole else (queries, heads)
    seen = where.elements(x, 0, by_query[1])
    times = where.times(many, 0)
    rows = matrix.to(accumulation_type(x.dtype)).reshape(*by_query, x.shape[-1])
    z, log_mass, _, _ = ops.set_attend(
        seen, rows.contiguous(), None if times is None else times[..., 0], where.ptr, where.order
    )
    return z.reshape(*where.shape, queries * (heads if whole else 1), x.shape[-1]), log_mass.reshape(
        *where.shape, queries, heads
    )


class _Ragged(fused.Ragged):
    """Ragged sets whose sums and maxima are kernels."""

    def sum(self, values: Tensor, many: Tensor | None = None) -> Tensor:
        return segment_sum(values, self.segments, many)

    def max(self, values: Tensor) -> Tensor:
        return segment_max(values, self.segments)

    def weighted_sum(self, weight: Tensor, values: Tensor, many: Tensor | None, *, exact_zeros: bool) -> Tensor:
        return segment_weighted_sum(weight, values, self.segments, many, exact_zeros=exact_zeros)


def segment_sum(values: Tensor, segments: Segments, many: Tensor | None = None) -> Tensor:
    """Sum ``(N, *)`` over each set: ``(S, *)``."""
    if _learned(many):
        return fused.segment_sum(values, segments, many)
    return _sum(values, _ragged(segments), many)


def segment_mean(values: Tensor, segments: Segments) -> Tensor:
    """See `modalpool.kernels.plain.segment_mean`."""
    return share(segment_sum(values, segments), segments)


def segment_max(values: Tensor, segments: Segments, many: Tensor | None = None) -> Tensor:
    """Maximum of ``(N, *)`` over each set, ``(S, *)``; -inf where a set is empty; ties share the gradient."""
    return _max(values, _ragged(segments), many)


def segment_min(values: Tensor, segments: Segments, many: Tensor | None = None) -> Tensor:
    """Minimum of ``(N, *)`` over each set, ``(S, *)``; inf where a set is empty; ties share the gradient."""
    return -segment_max(-values, segments, many)


def segment_weighted_sum(
    weight: Tensor, values: Tensor, segments: Segments, many: Tensor | None = None, *, exact_zeros: bool = False
) -> Tensor:
    """Sum of weight ``(N, *, K, G)`` times value ``(N, *, C)`` over each set: ``(S, *, K, C)``."""
    return _weighted_sum(weight, values, _ragged(segments), many, exact_zeros)


def segment_softmax(scores: Tensor, segments: Segments, many: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """See `modalpool.kernels.fused.softmax`."""
    return fused.softmax(scores, _Ragged(segments), many)


def segment_soften(
    x: Tensor, scale: Tensor | float, segments: Segments, many: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """See `modalpool.kernels.fused.soften`."""
    if _learned(many):
        return fused.segment_soften(x, scale, segments, many)
    return _soften(x, scale, _ragged(segments), many)


def segment_attend(
    x: Tensor, matrix: Tensor, segments: Segments, many: Tensor | None = None, *, queries: int = 1, whole: bool = False
) -> tuple[Tensor, Tensor]:
    """See `modalpool.kernels.fused.attend`."""
    if _learned(many) or x.ndim != 2 or _too_many(x, matrix, queries, whole):
        return fused.attend(x, matrix, _Ragged(segments), many, queries=queries, whole=whole)
    return _attend(x, matrix, _ragged(segments), many, queries, whole)


def segment_moments(x: Tensor, segments: Segments, many: Tensor | None, size: fused.Size) -> tuple[Tensor, Tensor]:
    """See `modalpool.kernels.fused.moments`."""
    return fused.moments(x, _Ragged(segments), many, size)


def _too_many(x: Tensor, matrix: Tensor, queries: int, whole: bool) -> bool:
    """Whether a tile cannot hold an element, or would be read too often."""
    heads = 1 if whole else matrix.shape[0] // queries
    return x.shape[-1] > WIDEST or heads > HEADS or matrix.shape[0] > SCORES


class _Dense(fused.Dense):
    """Dense sets whose masked sums and maxima are kernels."""

    def sum(self, values: Tensor, many: Tensor | None = None) -> Tensor:
        return dense_sum(values, self.dims, many)

    def max(self, values: Tensor) -> Tensor:
        return dense_max(values, self.dims)


def dense_sum(values: Tensor, dims: tuple[int, ...], many: Tensor | None = None) -> Tensor:
    """Sum ``(D, P, *)`` over the pooled axes: ``(D, *)``."""
    if many is None:
        return values.sum(dims, dtype=accumulation_type(values.dtype))
    if _learned(many):
        return fused.dense_sum(values, dims, many)
    return _sum(values, _dense(values.shape, dims), many.expand(values.shape[: dims[-1] + 1]))


def dense_max(values: Tensor, dims: tuple[int, ...], many: Tensor | None = None) -> Tensor:
    """Maximum of ``(D, P, *)`` over the pooled axes, ``(D, *)``; ties share the gradient."""
    many = None if many is None else many.expand(values.shape[: dims[-1] + 1])
    return _max(values, _dense(values.shape, dims), many)


def dense_min(values: Tensor, dims: tuple[int, ...], many: Tensor | None = None) -> Tensor:
    """Minimum of ``(D, P, *)`` over the pooled axes, ``(D, *)``; ties share the gradient."""
    return -dense_max(-values, dims, many)


def dense_weighted_sum(
    weight: Tensor, values: Tensor, dims: tuple[int, ...], many: Tensor | None = None, *, exact_zeros: bool = False
) -> Tensor:
    """Sum of weight ``(D, P, K, G)`` times value ``(D, P, C)`` over the pooled axes: ``(D, K, C)``."""
    if many is None and not exact_zeros and weight.shape[-2] > 1 and weight.shape[-1] < values.shape[-1]:
        return fused.dense_weighted_sum(weight, values, dims)  # a matrix product
    many = None if many is None else many.expand(values.shape[:-1])
    return _weighted_sum(weight, values, _dense(values.shape, dims), many, exact_zeros)


def dense_softmax(scores: Tensor, dims: tuple[int, ...], many: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """See `modalpool.kernels.fused.softmax`."""
    return fused.softmax(scores, _Dense(dims), many)


def dense_soften(
    x: Tensor, scale: Tensor | float, dims: tuple[int, ...], many: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """See `modalpool.kernels.fused.soften`."""
    if _learned(many):
        return fused.dense_soften(x, scale, dims, many)
    many = None if many is None else many.expand(x.shape[:-1])
    return _soften(x, scale, _dense(x.shape, dims), many)


def dense_attend(
    x: Tensor,
    matrix: Tensor,
    dims: tuple[int, ...],
    many: Tensor | None = None,
    *,
    queries: int = 1,
    whole: bool = False,
) -> tuple[Tensor, Tensor]:
    """See `modalpool.kernels.fused.attend`."""
    if _learned(many) or _too_many(x, matrix, queries, whole):
        return fused.dense_attend(x, matrix, dims, many, queries=queries, whole=whole)
    many = None if many is None else many.expand(x.shape[:-1])
    return _attend(x, matrix, _dense(x.shape, dims), many, queries, whole)


def dense_moments(x: Tensor, dims: tuple[int, ...], many: Tensor | None, size: fused.Size) -> tuple[Tensor, Tensor]:
    """See `modalpool.kernels.fused.moments`."""
    return fused.moments(x, _Dense(dims), many, size)


def segment_power(
    x: Tensor, p: Tensor | float, eps: float, segments: Segments, many: Tensor | None, size: fused.Size
) -> Tensor:
    """See `modalpool.kernels.fused.power`."""
    return fused.power(x, p, eps, _Ragged(segments), many, size)


def dense_power(
    x: Tensor, p: Tensor | float, eps: float, dims: tuple[int, ...], many: Tensor | None, size: fused.Size
) -> Tensor:
    """See `modalpool.kernels.fused.power`."""
    return fused.power(x, p, eps, _Dense(dims), many, size)
