"""Several set operations in one, as compositions: what a fused kernel has to give.

They are written once for dense and ragged sets: a *group* is what adds up, takes maxima and hands a set's value back to
its elements.

Legend: ``E`` element axes, ``D`` set axes, ``F`` scores, ``C`` channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from modalpool.kernels import plain
from modalpool.kernels.plain import (
    dense_max,
    dense_min,
    dense_sum,
    dense_weighted_sum,
    segment_max,
    segment_mean,
    segment_min,
    segment_sum,
    segment_weighted_sum,
)
from modalpool.kernels.segments import Segments

__all__ = [
    "Dense",
    "Group",
    "Ragged",
    "Size",
    "attend",
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
    "moments",
    "power",
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
    "soften",
    "softmax",
]


@dataclass(frozen=True)
class Dense:
    """The sets of a dense batch, pooled over ``dims``."""

    dims: tuple[int, ...]

    def sum(self, values: Tensor, many: Tensor | None = None) -> Tensor:
        """Σ over each set."""
        return plain.dense_sum(values, self.dims, many)

    def max(self, values: Tensor) -> Tensor:
        """Maximum over each set."""
        return plain.dense_max(values, self.dims)

    def weighted_sum(self, weight: Tensor, values: Tensor, many: Tensor | None, *, exact_zeros: bool) -> Tensor:
        """Σ w x over each set."""
        return plain.dense_weighted_sum(weight, values, self.dims, many, exact_zeros=exact_zeros)

    def softmax(self, scores: Tensor, many: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `softmax`."""
        return softmax(scores, self, many)

    def expand(self, per_set: Tensor) -> Tensor:
        """Insert the pooled axes with size one: broadcasting does the rest."""
        sets = self.dims[0]
        return per_set.reshape(*per_set.shape[:sets], *[1] * len(self.dims), *per_set.shape[sets:])


@dataclass(frozen=True)
class Ragged:
    """Ragged sets."""

    segments: Segments

    def sum(self, values: Tensor, many: Tensor | None = None) -> Tensor:
        """Σ over each set."""
        return plain.segment_sum(values, self.segments, many)

    def max(self, values: Tensor) -> Tensor:
        """Maximum over each set."""
        return plain.segment_max(values, self.segments)

    def weighted_sum(self, weight: Tensor, values: Tensor, many: Tensor | None, *, exact_zeros: bool) -> Tensor:
        """Σ w x over each set."""
        return plain.segment_weighted_sum(weight, values, self.segments, many, exact_zeros=exact_zeros)

    def softmax(self, scores: Tensor, many: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `softmax`."""
        return softmax(scores, self, many)

    def expand(self, per_set: Tensor) -> Tensor:
        """Look every element's set up."""
        return per_set.index_select(0, self.segments.index)


Group = Dense | Ragged
Size = Callable[[Tensor], Tensor]
"""N of each set, ``(D, 1)``, to divide sums of a tensor by; never zero."""


def softmax(scores: Tensor, group: Group, many: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Weights ``(E, F)`` proportional to multiplicity · exp(score) in each set, and the log of their sum ``(D, F)``.

    The weights sum to one over each set (all are zero if it is empty, and the log is -inf).
    """
    scores = plain.clean(scores, many, -torch.inf)
    top = group.max(scores.detach())
    shift = group.expand(top)
    # Infinite scores tie with each other, so that inf - inf never happens.
    tied = (scores == shift) & scores.isinf()
    mass = torch.exp(torch.where(tied, 0.0, scores - shift))
    mass = plain.multiply(plain.clean(mass, many), many)
    total = group.sum(mass)
    there = total != 0  # true for nan too, which stays nan
    safe = torch.where(there, total, 1.0)
    log_mass = torch.where(there, torch.where(there, top, 0.0) + safe.log(), -torch.inf)
    return mass / group.expand(safe), log_mass


def attend(
    x: Tensor, matrix: Tensor, group: Group, many: Tensor | None = None, *, queries: int = 1, whole: bool = False
) -> tuple[Tensor, Tensor]:
    """Average ``x`` with weights softmax(x · matrix): ``(D, K, C)``, and the log mass ``(D, K, H)``.

    Args:
        x: Elements ``(E, C)``.
        matrix: One vector per query and head, ``(K · H, C)``, the temperature in it.
        group: The sets.
        many: Multiplicity of each element.
        queries: K.
        whole: Whether every head pools all channels, ``(D, K · H, C)``, or each its share of them.
    """
    x = plain.clean(x, many)
    weight, log_mass = group.softmax(torch.nn.functional.linear(x, matrix.to(x.dtype)), many)
    by_query = (queries, matrix.shape[0] // queries)
    weight = weight[..., None] if whole else weight.reshape(*weight.shape[:-1], *by_query)
    z = group.weighted_sum(weight, x, many, exact_zeros=False)
    return z, log_mass.reshape(*log_mass.shape[:-1], *by_query)


def soften(x: Tensor, scale: Tensor | float, group: Group, many: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Average each channel of ``x`` with weights softmax(x · scale): ``(D, C)``, and the log mass ``(D, C)``."""
    x = plain.clean(x, many)
    weight, log_mass = group.softmax(x * scale, many)
    return group.weighted_sum(weight[..., None, :], x, many, exact_zeros=True).squeeze(-2), log_mass


def moments(x: Tensor, group: Group, many: Tensor | None, size_of: Size) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel, ``(D, C)``, in two passes."""
    x = plain.clean(x, many)
    size = size_of(x)
    mean = group.sum(x, many) / size
    centred = x - group.expand(mean)
    # The mean is rounded; what it misses by is taken off again (the corrected two-pass formula). It has no slope.
    miss = group.sum(centred.detach(), many) / size
    var = (group.sum(centred.square(), many) / size - miss.square()).clamp(min=0)
    return mean, var


def power(x: Tensor, p: Tensor | float, eps: float, group: Group, many: Tensor | None, size: Size) -> Tensor:
    """Power mean (Σ max(x, ε)^p / N)^(1/p) of each channel, ``(D, C)``.

    It is computed relative to the largest value, so that no p overflows. An empty set gives a number.
    """
    x = plain.clean(x, many, eps).clamp(min=eps)
    top = group.max(x.detach()).clamp(eps, torch.finfo(x.dtype).max)  # -inf where a set is empty
    inner = group.sum((x / group.expand(top)) ** p, many) / size(x)
    inner = torch.where(inner == 0, 1.0, inner)  # the root has no slope at zero
    return top * inner ** (1 / p)


def segment_softmax(scores: Tensor, segments: Segments, many: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """See `softmax`."""
    return softmax(scores, Ragged(segments), many)


def segment_attend(
    x: Tensor, matrix: Tensor, segments: Segments, many: Tensor | None = None, *, queries: int = 1, whole: bool = False
) -> tuple[Tensor, Tensor]:
    """See `attend`."""
    return attend(x, matrix, Ragged(segments), many, queries=queries, whole=whole)


def segment_soften(
    x: Tensor, scale: Tensor | float, segments: Segments, many: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """See `soften`."""
    return soften(x, scale, Ragged(segments), many)


def segment_moments(x: Tensor, segments: Segments, many: Tensor | None, size: Size) -> tuple[Tensor, Tensor]:
    """See `moments`."""
    return moments(x, Ragged(segments), many, size)


def segment_power(
    x: Tensor, p: Tensor | float, eps: float, segments: Segments, many: Tensor | None, size: Size
) -> Tensor:
    """See `power`."""
    return power(x, p, eps, Ragged(segments), many, size)


def dense_mean(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The plain mean over axes: torch's own, to the bit."""
    return values.mean(dims, dtype=plain.accumulation_type(values.dtype))


def dense_softmax(scores: Tensor, dims: tuple[int, ...], many: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """See `softmax`."""
    return softmax(scores, Dense(dims), many)


def dense_attend(
    x: Tensor,
    matrix: Tensor,
    dims: tuple[int, ...],
    many: Tensor | None = None,
    *,
    queries: int = 1,
    whole: bool = False,
) -> tuple[Tensor, Tensor]:
    """See `attend`."""
    return attend(x, matrix, Dense(dims), many, queries=queries, whole=whole)


def dense_soften(
    x: Tensor, scale: Tensor | float, dims: tuple[int, ...], many: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """See `soften`."""
    return soften(x, scale, Dense(dims), many)


def dense_moments(x: Tensor, dims: tuple[int, ...], many: Tensor | None, size: Size) -> tuple[Tensor, Tensor]:
    """See `moments`."""
    return moments(x, Dense(dims), many, size)


def dense_power(
    x: Tensor, p: Tensor | float, eps: float, dims: tuple[int, ...], many: Tensor | None, size: Size
) -> Tensor:
    """See `power`."""
    return power(x, p, eps, Dense(dims), many, size)
