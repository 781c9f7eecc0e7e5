"""Sets: a batch of sets of vectors, and the few operations every pooling is written with.

This is the only file that knows about masks and segments. An *element tensor* has the element axes first and anything
after them; the operations return a *set tensor* with the set axes first and the same after them:

    DenseSets    element axes (b, kept…, pooled…)    set axes (b, kept…)
    RaggedSets   element axes (element, kept…)       set axes (set, kept…)

``weight`` is a multiplicity: weight 2 means the element is there twice, weight 0 that it is not there. So there is one
rule for hard masks and soft weights, and N, the size of a set, is the sum of its weights. An element of weight 0 that
is not masked is felt by the slope of that weight, and by nothing else.

Half-precision values are read as they are and added up in float32. What lies outside the mask is replaced before any
arithmetic, so it may be NaN or inf without a trace in the output or in a gradient.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from modalpool import kernels
from modalpool.kernels import Frugal, Segments, accumulation_type, path
from modalpool.layout import Axes

__all__ = ["Coords", "DenseSets", "RaggedSets", "Sets", "accumulation_type"]

Coords = Tensor | Callable[[], Tensor | None] | None
"""Positions, or how to find them, or that they are unknown."""


class Sets(ABC):
    """A batch of sets.

    Args:
        group: What the kernels need to know of the sets: the pooled axes, or the segments.
        mask: Which elements are there, bool over the element axes; None = all.
        weight: Multiplicity of each element, non-negative and zero outside the mask; None = one each.
        coords: Position of each element, ``(element axes, n)`` in [0, 1], or how to find it; None = unknown.
    """

    def __init__(
        self, group: tuple[int, ...] | Segments, mask: Tensor | None, weight: Tensor | None, coords: Coords
    ) -> None:
        self.group = group
        self.mask = mask
        self.weight = weight
        self.many = mask if weight is None else weight
        """The multiplicity of each element, as the kernels take it."""
        self._coords = coords
        self._count: Tensor | None = None

    @property
    def coords(self) -> Tensor | None:
        """Position of each element; worked out only when a rule looks at it."""
        return self._coords() if callable(self._coords) else self._coords

    @property
    def full(self) -> bool:
        """Whether it is known, without looking, that no set is empty."""
        return False

    @property
    def differentiable(self) -> bool:
        """Whether a gradient with respect to weights or coordinates is wanted."""
        given = (self.weight, None if callable(self._coords) else self._coords)
        return any(tensor is not None and tensor.requires_grad for tensor in given)

    def frugal(self, x: Tensor, scores: int = 1) -> Frugal:
        """Which operations on ``x`` need no memory of its size; attention has so many scores an element."""
        return path(x, self.group).frugal(x, self.many, scores)

    @abstractmethod
    def expand(self, per_set: Tensor) -> Tensor:
        """Give every element its set's value: set tensor to element tensor."""

    def count(self, like: Tensor) -> Tensor:
        """N, the size of each set (sum of its weights), ``(set axes, 1)`` in the accumulation type of ``like``.

        It is added up once, so asking again costs nothing.
        """
        dtype = accumulation_type(like.dtype)
        if self._count is None or self._count.dtype != dtype:
            self._count = self._count_up(like, dtype)
        return self._count

    @abstractmethod
    def _count_up(self, like: Tensor, dtype: torch.dtype) -> Tensor:
        """N, added up, in a type; ``like`` says where, and how many kept axes there are."""

    def sum(self, values: Tensor) -> Tensor:
        """Σ over each set."""
        return path(values, self.group).sum(values, self.many)

    def tally(self, values: Tensor) -> Tensor:
        """Σ over each set of values that are clean already, every element once."""
        return path(values, self.group).sum(values)

    def max(self, values: Tensor) -> Tensor:
        """Maximum over each set; -inf where a set is empty; ties share the gradient evenly."""
        return path(values, self.group).max(values, self.many)

    def min(self, values: Tensor) -> Tensor:
        """Minimum over each set; inf where a set is empty; ties share the gradient evenly."""
        return path(values, self.group).min(values, self.many)

    def softmax(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Weights proportional to multiplicity · exp(score) in each set, and the log of what they were divided by.

        Returns:
            ``(weights, log_mass)``: an element tensor that sums to one over each set (all zero if it is empty), and a
            set tensor. Two chunks of a set are joined by averaging them with weights proportional to exp(log_mass).
        """
        return path(scores, self.group).softmax(scores, self.many)

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
        return path(values, self.group).weighted_sum(weight, values, self.many, exact_zeros=exact_zeros)

    def attend(self, x: Tensor, matrix: Tensor, *, queries: int, all_channels: bool = False) -> tuple[Tensor, Tensor]:
        """Average with weights softmax(x · matrix); see `modalpool.kernels.Group.attend`."""
        return path(x, self.group).attend(x, matrix, self.many, queries=queries, all_channels=all_channels)

    def soften(self, x: Tensor, scale: Tensor | float) -> tuple[Tensor, Tensor]:
        """Average each channel with weights softmax(x · scale); see `modalpool.kernels.Group.soften`."""
        return path(x, self.group).soften(x, scale, self.many)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel; see `modalpool.kernels.Group.moments`."""
        return path(x, self.group).moments(x, self.many, self.size)

    def power(self, x: Tensor, p: Tensor | float, eps: float) -> Tensor:
        """Power mean of each channel; see `modalpool.kernels.Group.power`."""
        return path(x, self.group).power(x, p, eps, self.many, self.size)

    def clean(self, values: Tensor, outside: float = 0.0) -> Tensor:
        """``values`` in the accumulation type, with ``outside`` where an element is not there.

        What a weight of zero hides is kept if it is finite and the weight's slope may be asked for: `multiply` follows.
        """
        return kernels.clean(values, self.many, outside)

    def hide(self, values: Tensor, outside: float = 0.0) -> Tensor:
        """The same, and never anything of an element that is not there."""
        return kernels.hide(values, self.mask, outside)

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
        mask: As of all `Sets`, and so ``weight`` and ``coords``.
        axes: The input's own, where the elements came in another order than the canonical one.
    """

    def __init__(
        self,
        shape: torch.Size,
        pooled: int,
        *,
        mask: Tensor | None = None,
        weight: Tensor | None = None,
        coords: Coords = None,
        axes: Axes | None = None,
    ) -> None:
        self.dims = tuple(range(len(shape) - pooled, len(shape)))
        super().__init__(self.dims, mask, weight, coords)
        self.axes = axes
        self.shape = shape

    @property
    def full(self) -> bool:
        return self.mask is None  # a pooled axis of size zero comes with one

    def expand(self, per_set: Tensor) -> Tensor:
        """Insert the pooled axes with size one: broadcasting does the rest."""
        sets = self.dims[0]
        return per_set.reshape(*per_set.shape[:sets], *[1] * len(self.dims), *per_set.shape[sets:])

    def _count_up(self, like: Tensor, dtype: torch.dtype) -> Tensor:
        sets = self.shape[: self.dims[0]]
        if self.mask is None:
            size = math.prod(self.shape[self.dims[0] :])
            return torch.full((*sets, 1), size, dtype=dtype, device=like.device)
        there = self.mask if self.weight is None else self.weight
        return there.sum(self.dims, dtype=dtype).unsqueeze(-1)

    def size(self, like: Tensor) -> Tensor:
        """N with empty sets counted as one, to divide by."""
        return self.count(like) if self.mask is None else super().size(like)

    def mean(self, values: Tensor) -> Tensor:
        """The mean; without a mask it is torch's own, to the bit: there is nothing to choose but for half precision."""
        if self.mask is not None:
            return super().mean(values)
        # torch adds up in the order of the axes it is shown, so show it the input's own.
        axes = self.axes
        shown, dims = (values, self.dims) if axes is None else (values.permute(axes.inverse), axes.pooled)
        half = values.dtype in (torch.float16, torch.bfloat16)
        mean = path(shown, dims).mean(shown) if half else shown.mean(dims)
        return mean if axes is None else mean.permute(axes.back)


class RaggedSets(Sets):
    """Sets of any sizes whose elements lie along one axis, in any order.

    Args:
        segments: The set of each element.
        mask: As of all `Sets`, and so ``weight`` and ``coords``.
    """

    def __init__(
        self, segments: Segments, *, mask: Tensor | None = None, weight: Tensor | None = None, coords: Coords = None
    ) -> None:
        super().__init__(segments, mask, weight, coords)
        self.segments = segments

    @property
    def full(self) -> bool:
        return self.mask is None and self.segments.full

    def size(self, like: Tensor) -> Tensor:
        """N with empty sets counted as one, to divide by."""
        return self.count(like).clamp(min=1) if self.mask is None else super().size(like)

    def mean(self, values: Tensor) -> Tensor:
        return super().mean(values) if self.mask is not None else path(values, self.segments).mean(values)

    def expand(self, per_set: Tensor) -> Tensor:
        """Look every element's set up."""
        return per_set.index_select(0, self.segments.index)

    def _count_up(self, like: Tensor, dtype: torch.dtype) -> Tensor:
        if self.mask is None:
            count = self.segments.lengths.to(dtype)
            kept = like.shape[1:-1]
            return count.reshape(-1, *[1] * len(kept), 1).expand(-1, *kept, 1) if kept else count[:, None]
        return self.tally((self.mask if self.weight is None else self.weight).to(dtype)).unsqueeze(-1)
