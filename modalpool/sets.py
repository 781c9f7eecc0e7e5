"""Sets: a batch of sets of vectors, and the few operations every pooling is written with.

This is the only file that knows about masks and segments. An *element tensor* has the element axes first and anything
after them; the operations return a *set tensor* with the set axes first and the same after them:

    DenseSets    element axes (b, kept…, pooled…)    set axes (b, kept…)
    RaggedSets   element axes (element, kept…)       set axes (set, kept…)

``weight`` is a multiplicity: weight 2 means the element is there twice, weight 0 that it is not there. So there is one
rule for hard masks and soft weights, and N, the size of a set, is the sum of its weights.

Half-precision values are read as they are and added up in float32. What lies outside the mask is replaced before any
arithmetic, so it may be NaN or inf without a trace in the output or in a gradient.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from modalpool import kernels
from modalpool.kernels import Segments

__all__ = ["Coords", "DenseSets", "RaggedSets", "Sets", "accumulation_type"]

Coords = Tensor | Callable[[], Tensor] | None
"""Positions, or how to find them, or that they are unknown."""


def accumulation_type(dtype: torch.dtype) -> torch.dtype:
    """The type sums are kept in: float32 for half precision, otherwise the type itself."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _align(small: Tensor, large: Tensor) -> Tensor:
    """Append axes of size one to ``small`` until it has as many axes as ``large``."""
    return small.reshape(*small.shape, *[1] * (large.ndim - small.ndim))


class Sets(ABC):
    """A batch of sets.

    Args:
        mask: Which elements are there, bool over the element axes; None = all.
        weight: Multiplicity of each element, non-negative and zero outside the mask; None = one each.
        coords: Position of each element, ``(element axes, n)`` in [0, 1], or how to find it; None = unknown.
    """

    def __init__(self, mask: Tensor | None, weight: Tensor | None, coords: Coords) -> None:
        self.mask = mask
        self.weight = weight
        self._coords = coords

    @property
    def coords(self) -> Tensor | None:
        """Position of each element; worked out only when a rule looks at it."""
        return self._coords() if callable(self._coords) else self._coords

    @abstractmethod
    def _sum(self, values: Tensor) -> Tensor: ...

    @abstractmethod
    def _max(self, values: Tensor) -> Tensor: ...

    @abstractmethod
    def _weighted_sum(self, weight: Tensor, values: Tensor, exact_zeros: bool) -> Tensor: ...

    @abstractmethod
    def expand(self, per_set: Tensor) -> Tensor:
        """Give every element its set's value: set tensor to element tensor."""

    @abstractmethod
    def count(self, like: Tensor) -> Tensor:
        """N, the size of each set (sum of its weights), ``(set axes, 1)`` in the accumulation type of ``like``."""

    def clean(self, values: Tensor, outside: float = 0.0) -> Tensor:
        """``values`` in the accumulation type, with ``outside`` where an element is not there."""
        values = values.to(accumulation_type(values.dtype))
        return values if self.mask is None else torch.where(_align(self.mask, values), values, outside)

    def multiply(self, values: Tensor) -> Tensor:
        """``values`` times the multiplicity of each element (``values`` must be clean)."""
        return values if self.weight is None else _align(self.weight.to(values.dtype), values) * values

    def sum(self, values: Tensor) -> Tensor:
        """Σ over each set."""
        return self._sum(self.multiply(self.clean(values)))

    def tally(self, values: Tensor) -> Tensor:
        """Σ over each set of values that are clean already, every element once."""
        return self._sum(values)

    def mean(self, values: Tensor) -> Tensor:
        """Σ / N over each set, for values ``(element axes, C)``; zero where a set is empty."""
        return self.sum(values) / self.size(values)

    def size(self, like: Tensor) -> Tensor:
        """N with empty sets counted as one, to divide by."""
        count = self.count(like)
        return torch.where(count > 0, count, 1.0)

    def uniform(self, like: Tensor) -> Tensor:
        """The weights of a mean, multiplicity / N, ``(element axes, 1)``."""
        ones = torch.ones_like(like[..., :1], dtype=accumulation_type(like.dtype))
        return self.multiply(self.clean(ones)) / self.expand(self.size(like))

    def max(self, values: Tensor) -> Tensor:
        """Maximum over each set; -inf where a set is empty; ties share the gradient evenly."""
        return self._max(self.clean(values, -torch.inf))

    def softmax(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Weights proportional to multiplicity · exp(score) in each set, and the log of what they were divided by.

        Returns:
            ``(weights, log_mass)``: an element tensor that sums to one over each set (all zero if it is empty), and a
            set tensor. Two parts of a set are joined by averaging them with weights proportional to exp(log_mass).
        """
        scores = self.clean(scores, -torch.inf)
        top = self._max(scores.detach())
        shift = self.expand(top)
        # Infinite scores tie with each other, so that inf - inf never happens.
        tied = (scores == shift) & scores.isinf()
        mass = self.multiply(self.clean(torch.exp(torch.where(tied, 0.0, scores - shift))))
        total = self._sum(mass)
        there = total != 0  # true for nan too, which stays nan
        safe = torch.where(there, total, 1.0)
        log_mass = torch.where(there, torch.where(there, top, 0.0) + safe.log(), -torch.inf)
        return mass / self.expand(safe), log_mass

    def weighted_sum(self, weight: Tensor, values: Tensor, *, exact_zeros: bool = False) -> Tensor:
        """Σ w x over each set, the one operation every linear rule ends in.

        Args:
            weight: ``(element axes, K, G)``: K vectors per set; channels in G groups that share a weight. It already
                contains the multiplicities and is zero outside the mask.
            values: ``(element axes, C)``.
            exact_zeros: Whether zero weights are common and infinite values must not meet them.

        Returns:
            ``(set axes, K, C)``.
        """
        values = self.clean(values)
        return self._weighted_sum(weight.to(values.dtype), values, exact_zeros)


class DenseSets(Sets):
    """Sets along the batch and kept axes of a dense tensor.

    Args:
        shape: Sizes of the element axes, set axes first.
        pooled: How many of them are pooled (the last ones).
        mask: See `Sets`.
        weight: See `Sets`.
        coords: See `Sets`.
        order: The permutation that made the elements canonical; None = they came so.
    """

    def __init__(
        self,
        shape: torch.Size,
        pooled: int,
        *,
        mask: Tensor | None = None,
        weight: Tensor | None = None,
        coords: Coords = None,
        order: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(mask, weight, coords)
        self.order = order
        self.shape = shape
        self.dims = tuple(range(len(shape) - pooled, len(shape)))

    def _sum(self, values: Tensor) -> Tensor:
        return kernels.dense_sum(values, self.dims)

    def _max(self, values: Tensor) -> Tensor:
        return kernels.dense_max(values, self.dims)

    def _weighted_sum(self, weight: Tensor, values: Tensor, exact_zeros: bool) -> Tensor:
        return kernels.dense_weighted_sum(weight, values, self.dims, exact_zeros=exact_zeros)

    def expand(self, per_set: Tensor) -> Tensor:
        """Insert the pooled axes with size one: broadcasting does the rest."""
        sets = self.dims[0]
        return per_set.reshape(*per_set.shape[:sets], *[1] * len(self.dims), *per_set.shape[sets:])

    def count(self, like: Tensor) -> Tensor:
        """N of each set."""
        dtype = accumulation_type(like.dtype)
        sets = self.shape[: self.dims[0]]
        if self.mask is None:
            size = 1
            for n in self.shape[self.dims[0] :]:
                size = size * n
            return torch.full((*sets, 1), size, dtype=dtype, device=like.device)
        there = self.mask if self.weight is None else self.weight
        return there.sum(self.dims, dtype=dtype).unsqueeze(-1)

    def mean(self, values: Tensor) -> Tensor:
        """The mean; without a mask it is torch's own, to the bit."""
        if self.mask is None:
            dtype = accumulation_type(values.dtype)
            if self.order is None:
                return values.mean(self.dims, dtype=dtype)
            # torch adds up in the order of the axes it is shown, so show it the input's own.
            inverse = sorted(range(values.ndim), key=self.order.__getitem__)
            mean = values.permute(inverse).mean([self.order[i] for i in self.dims], dtype=dtype)
            left = [axis for i, axis in enumerate(self.order) if i not in self.dims]
            return mean.permute([sorted(left).index(axis) for axis in left])
        return super().mean(values)


class RaggedSets(Sets):
    """Sets of any sizes whose elements lie along one axis, in any order.

    Args:
        index: Set of each element, ``(N,)``.
        size: Number of sets S.
        ordered: Whether ``index`` is known to be non-decreasing (it is when it comes from ``ptr``).
        mask: See `Sets`.
        weight: See `Sets`.
        coords: See `Sets`.
    """

    def __init__(
        self,
        index: Tensor,
        size: int,
        *,
        ordered: bool = False,
        mask: Tensor | None = None,
        weight: Tensor | None = None,
        coords: Coords = None,
    ) -> None:
        super().__init__(mask, weight, coords)
        self.segments = Segments(index, size, ordered=ordered)

    def _sum(self, values: Tensor) -> Tensor:
        return kernels.segment_sum(values, self.segments)

    def _max(self, values: Tensor) -> Tensor:
        return kernels.segment_max(values, self.segments)

    def _weighted_sum(self, weight: Tensor, values: Tensor, exact_zeros: bool) -> Tensor:
        weight = weight.expand(*values.shape[:-1], *weight.shape[-2:])
        return kernels.segment_weighted_sum(weight, values, self.segments, exact_zeros=exact_zeros)

    def expand(self, per_set: Tensor) -> Tensor:
        """Look every element's set up."""
        return per_set.index_select(0, self.segments.index)

    def count(self, like: Tensor) -> Tensor:
        """N of each set."""
        dtype = accumulation_type(like.dtype)
        if self.mask is None:
            there = torch.ones(*like.shape[:-1], dtype=dtype, device=like.device)
        else:
            there = (self.mask if self.weight is None else self.weight).to(dtype)
        return self._sum(there).unsqueeze(-1)
