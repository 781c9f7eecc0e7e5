"""Few elements on a CPU, where what a call costs is the number of its operations.

The compositions of `modalpool.kernels.fused`, with shorter steps where one look at the values says that nothing is
infinite. They are ordinary operations: their gradients, of any order, are torch's own.

Legend: ``N`` elements, ``S`` sets, ``C`` channels, ``K`` vectors per set, ``G`` groups of channels, ``*`` anything.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modalpool.kernels import fused, plain
from modalpool.kernels.bags import add_rows, steps
from modalpool.kernels.choice import VAST, finite, inside, moderate, single, sloped
from modalpool.kernels.cpu_dense import dense_soften, dense_softmax, dense_weighted_sum
from modalpool.kernels.fused import dense_attend, dense_max, dense_min, dense_moments, dense_power, dense_sum
from modalpool.kernels.mean import dense_mean
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


def segment_sum(values: Tensor, segments: Segments, many: Tensor | None = None) -> Tensor:
    """See `modalpool.kernels.plain.segment_sum`."""
    if many is not None or not segments.small or not single(values):
        return plain.segment_sum(values, segments, many)
    if segments.ordered and values.ndim == 2 and not sloped(values):
        return add_rows(values, steps(segments.count), segments.ptr)
    return values.new_zeros((segments.size, *values.shape[1:])).index_add_(0, segments.index, values)


def segment_mean(values: Tensor, segments: Segments) -> Tensor:
    """See `modalpool.kernels.plain.segment_mean`."""
    if not segments.small or not single(values):
        return plain.segment_mean(values, segments)
    if sloped(values):
        ones = values.new_ones(segments.count)  # floats: by whole numbers a division takes longer
        size = values.new_zeros(segments.size).scatter_add_(0, segments.index, ones).clamp_(min=1)
        return segment_sum(values, segments) / plain.align(size, values)
    if segments.ordered:
        return torch.segment_reduce(values, "mean", offsets=segments.ptr, unsafe=True, initial=0)
    low, index = values.new_zeros((segments.size, *values.shape[1:])), _rows(segments, values)
    return low.scatter_reduce_(0, index, values, "mean", include_self=False)


def _rows(segments: Segments, values: Tensor) -> Tensor:
    """The set of each value, as scatter wants it."""
    index = segments.index
    return (index[:, None] if values.ndim == 2 else index.reshape(-1, *[1] * (values.ndim - 1))).expand_as(values)


def segment_max(values: Tensor, segments: Segments, many: Tensor | None = None) -> Tensor:
    """See `modalpool.kernels.plain.segment_max`."""
    if many is not None or not _simply(values):
        return plain.segment_max(values, segments, many)
    low = values.new_full((segments.size, *values.shape[1:]), -torch.inf)
    return low.scatter_reduce_(0, _rows(segments, values), values, "amax")


def segment_min(values: Tensor, segments: Segments, many: Tensor | None = None) -> Tensor:
    """See `modalpool.kernels.plain.segment_min`."""
    if many is not None or not _simply(values):
        return plain.segment_min(values, segments, many)
    high = values.new_full((segments.size, *values.shape[1:]), torch.inf)
    return high.scatter_reduce_(0, _rows(segments, values), values, "amin")


def _simply(values: Tensor) -> bool:
    """Whether torch's own extremes will do: their gradient does, if no value is what they begin with, or nan."""
    return single(values) and not (sloped(values) and not finite(values))


def segment_weighted_sum(
    weight: Tensor, values: Tensor, segments: Segments, many: Tensor | None = None, *, exact_zeros: bool = False
) -> Tensor:
    """See `modalpool.kernels.plain.segment_weighted_sum`."""
    exact = exact_zeros and not finite(values)
    if exact or many is not None or weight.ndim != 3 or weight.shape[1] > 1 or not single(values):
        return plain.segment_weighted_sum(weight, values, segments, many, exact_zeros=exact)
    weight = weight.to(values.dtype)
    if weight.shape[2] in (1, values.shape[1]):
        return segment_sum(weight.squeeze(1) * values, segments).unsqueeze(1)
    product = weight.transpose(1, 2) * plain.split_channels(values, weight.shape[2])  # (N, G, C/G)
    return segment_sum(product, segments).flatten(1).unsqueeze(1)


def segment_softmax(scores: Tensor, segments: Segments, many: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """See `modalpool.kernels.fused.softmax`."""
    if many is not None or not single(scores) or not finite(scores):
        return fused.segment_softmax(scores, segments, many)
    top = plain.segment_max(scores.detach(), segments)
    mass = (scores - top.index_select(0, segments.index)).exp()
    total = segment_sum(mass, segments)  # at least one, and zero where a set is empty
    return mass / total.index_select(0, segments.index), total.log() + top


class _Ragged(fused.Ragged):
    """Ragged sets with the steps above."""

    def sum(self, values: Tensor, many: Tensor | None = None) -> Tensor:
        return segment_sum(values, self.segments, many)

    def max(self, values: Tensor) -> Tensor:
        return segment_max(values, self.segments)

    def softmax(self, scores: Tensor, many: Tensor | None) -> tuple[Tensor, Tensor]:
        return segment_softmax(scores, self.segments, many)

    def weighted_sum(self, weight: Tensor, values: Tensor, many: Tensor | None, *, exact_zeros: bool) -> Tensor:
        return segment_weighted_sum(weight, values, self.segments, many, exact_zeros=exact_zeros)


def segment_attend(
    x: Tensor, matrix: Tensor, segments: Segments, many: Tensor | None = None, *, queries: int = 1, whole: bool = False
) -> tuple[Tensor, Tensor]:
    """See `modalpool.kernels.fused.attend`."""
    if many is None and segments.small and single(x) and not whole and queries == 1:
        scores = torch.nn.functional.linear(x, matrix.to(x.dtype))
        if moderate(scores):
            z, log_mass = _weigh(scores, x, segments)
            return z.unsqueeze(-2), log_mass.unsqueeze(-2)
    return fused.attend(x, matrix, _Ragged(segments), many, queries=queries, whole=whole)


def segment_soften(
    x: Tensor, scale: Tensor | float, segments: Segments, many: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """See `modalpool.kernels.fused.soften`."""
    if many is None and segments.small and single(x):
        scores = x if isinstance(scale, float) and scale == 1 else x * scale
        if moderate(scores):
            return _weigh(scores, x, segments)
    return fused.soften(x, scale, _Ragged(segments), many)


def _weigh(scores: Tensor, x: Tensor, segments: Segments) -> tuple[Tensor, Tensor]:
    """Average ``x`` with weights exp(score), and the log of what they sum to; scores are `moderate`."""
    mass = scores.exp()
    total = segment_sum(mass, segments)
    there = total + torch.finfo(x.dtype).tiny  # which is felt only where a set is empty
    groups = mass.shape[-1]
    if groups in (1, x.shape[-1]):
        return segment_sum(mass * x, segments) / there, total.log()
    product = mass[..., None] * plain.split_channels(x, groups)  # (N, *, G, C/G)
    return (segment_sum(product, segments) / there[..., None]).flatten(-2), total.log()


def segment_moments(x: Tensor, segments: Segments, many: Tensor | None, size: fused.Size) -> tuple[Tensor, Tensor]:
    """See `modalpool.kernels.fused.moments`; in float64 two passes need no correction."""
    if many is not None or not segments.small or x.dtype != torch.float32:
        return fused.moments(x, _Ragged(segments), many, size)
    wide = x.double()
    mean = segment_mean(wide, segments)
    var = segment_mean((wide - mean.index_select(0, segments.index)).square(), segments)
    return mean.to(x.dtype), var.to(x.dtype)


def segment_power(
    x: Tensor, p: Tensor | float, eps: float, segments: Segments, many: Tensor | None, size: fused.Size
) -> Tensor:
    """See `modalpool.kernels.fused.power`: as it is written, where no mean comes near a limit of its type."""
    if many is None and segments.small and single(x) and not isinstance(p, Tensor):
        mean = segment_mean(x.clamp(min=eps) ** p, segments)
        if inside(mean, 1 / VAST, VAST):  # so no set is empty either
            root: Tensor = mean ** (1 / p)
            return root
    return fused.power(x, p, eps, _Ragged(segments), many, size)
