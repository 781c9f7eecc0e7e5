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
from typing import Any

import torch
from torch import Tensor

from modalpool import kernels
from modalpool.kernels import Segments, accumulation_type, path

__all__ = ["Coords", "DenseSets", "RaggedSets", "Sets", "accumulation_type"]

Coords = Tensor | Callable[[], Tensor] | None
"""Positions, or how to find them, or that they are unknown."""


class Sets(ABC):
    """A batch of sets.

    Args:
        group: What the kernels need to know of the sets: the pooled axes, or the segments.
        mask: Which elements are there, bool over the element axes; None = all.
        weight: Multiplicity of each element, non-negative and zero outside the mask; None = one each.
        coords: Position of each element, ``(element axes, n)`` in [0, 1], or how to find it; None = unknown.
    """

    kind: str
    """What the names of the kernels for these sets begin with."""

    def __init__(self, group: Any, mask: Tensor | None, weight: Tensor | None, coords: Coords) -> None:
        self.group = group
        self.mask = mask
        self.weight = weight
        self._coords = coords

    @property
    def coords(self) -> Tensor | None:
        """Position of each element; worked out only when a rule looks at it."""
        return self._coords() if callable(self._coords) else self._coords

    @property
    def many(self) -> Tensor | None:
        """The multiplicity of each element, as the kernels take it: the weight, or else the mask."""
        return self.mask if self.weight is None else self.weight

    def _kernel(self, operation: str, values: Tensor) -> Callable[..., Any]:
        """The kernel of an operation for these sets and values."""
        kernel: Callable[..., Any] = getattr(path(values), f"{self.kind}_{operation}")
        return kernel

    @abstractmethod
    def expand(self, per_set: Tensor) -> Tensor:
        """Give every element its set's value: set tensor to element tensor."""

    @abstractmethod
    def count(self, like: Tensor) -> Tensor:
        """N, the size of each set (sum of its weights), ``(set axes, 1)`` in the accumulation type of ``like``."""

    def sum(self, values: Tensor) -> Tensor:
        """Σ over each set."""
        total: Tensor = self._kernel("sum", values)(values, self.group, self.many)
        return total

    def tally(self, values: Tensor) -> Tensor:
        """Σ over each set of values that are clean already, every element once."""
        total: Tensor = self._kernel("sum", values)(values, self.group)
        return total

    def max(self, values: Tensor) -> Tensor:
        """Maximum over each set; -inf where a set is empty; ties share the gradient evenly."""
        top: Tensor = self._kernel("max", values)(values, self.group, self.many)
        return top

    def softmax(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Weights proportional to multiplicity · exp(score) in each set, and the log of what they were divided by.

        Returns:
            ``(weights, log_mass)``: an element tensor that sums to one over each set (all zero if it is empty), and a
            set tensor. Two parts of a set are joined by averaging them with weights proportional to exp(log_mass).
        """
        both: tuple[Tensor, Tensor] = self._kernel("softmax", scores)(scores, self.group, self.many)
        return both

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
        kernel = self._kernel("weighted_sum", values)
        total: Tensor = kernel(weight, values, self.group, self.many, exact_zeros=exact_zeros)
        return total

    def attend(self, x: Tensor, matrix: Tensor, *, queries: int, whole: bool = False) -> tuple[Tensor, Tensor]:
        """Average with weights softmax(x · matrix); see `modalpool.kernels.fused.attend`."""
        kernel = self._kernel("attend", x)
        both: tuple[Tensor, Tensor] = kernel(x, matrix, self.group, self.many, queries=queries, whole=whole)
        return both

    def soften(self, x: Tensor, scale: Tensor | float) -> tuple[Tensor, Tensor]:
        """Average each channel with weights softmax(x · scale); see `modalpool.kernels.fused.soften`."""
        both: tuple[Tensor, Tensor] = self._kernel("soften", x)(x, scale, self.group, self.many)
        return both

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel; see `modalpool.kernels.fused.moments`."""
        both: tuple[Tensor, Tensor] = self._kernel("moments", x)(x, self.group, self.many, self.size(x))
        return both

    def clean(self, values: Tensor, outside: float = 0.0) -> Tensor:
        """``values`` in the accumulation type, with ``outside`` where an element is not there."""
        return kernels.clean(values, self.mask, outside)

    def multiply(self, values: Tensor) -> Tensor:
        """``values`` times the multiplicity of each element (``values`` must be clean)."""
        return kernels.multiply(values, self.weight)

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

    kind = "dense"

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
        self.dims = tuple(range(len(shape) - pooled, len(shape)))
        super().__init__(self.dims, mask, weight, coords)
        self.order = order
        self.shape = shape

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
        segments: The set of each element.
        mask: See `Sets`.
        weight: See `Sets`.
        coords: See `Sets`.
    """

    kind = "segment"

    def __init__(
        self, segments: Segments, *, mask: Tensor | None = None, weight: Tensor | None = None, coords: Coords = None
    ) -> None:
        super().__init__(segments, mask, weight, coords)
        self.segments = segments

    def expand(self, per_set: Tensor) -> Tensor:
        """Look every element's set up."""
        return per_set.index_select(0, self.segments.index)

    def count(self, like: Tensor) -> Tensor:
        """N of each set."""
        dtype = accumulation_type(like.dtype)
        if self.mask is None:
            count = self.segments.lengths.to(dtype)
            return count.reshape(-1, *[1] * (like.ndim - 1)).expand(-1, *like.shape[1:-1], 1)
        return self.tally((self.mask if self.weight is None else self.weight).to(dtype)).unsqueeze(-1)
