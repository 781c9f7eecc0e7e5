"""What every operation on sets is: ordinary torch operations, which differentiate twice, compile and export.

A *group* is the sets of a call as kernels see them, and its methods are the operations: `Dense` pools some axes of a
tensor, `Ragged` has its sets along the first. A fast path inherits one of the two and says a method in another way;
what it does not say is what is said here, made of what it does say. The numbers are the same, to rounding.

Legend: ``E`` element axes and ``D`` set axes (dense: set axes, then ``P`` pooled ones; ragged: ``N`` elements of ``S``
sets), ``K`` vectors per set, ``C`` channels, ``G`` groups of them that share a weight, ``F`` scores, ``*`` anything.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from modalpool.kernels.segments import Segments
from modalpool.kernels.values import (
    Many,
    accumulation_type,
    align,
    clean,
    hide,
    multiply,
    sloped,
    split_channels,
    steep,
)

MOST = 40.0
"""How far a score, or a ratio, of multiplicity zero may be above all others before its slope stops to grow: e^40."""
Size = Callable[[Tensor], Tensor]
"""N of each set, ``(D, 1)``, to divide sums of a tensor by; never zero."""


class Frugal(NamedTuple):
    """Which operations need no memory of the size of their input, so that nothing is won by going in chunks.

    Sums, means and extremes are not asked: a kernel reads each value once, and makes nothing of it.
    """

    attend: bool = False
    soften: bool = False
    moments: bool = False
    power: bool = False


class Group(ABC):
    """Sets, and the operations on their elements; ``many`` is the multiplicity of each element (None = each once)."""

    @abstractmethod
    def sum(self, values: Tensor, many: Many = None) -> Tensor:
        """Σ over each set: ``(E, *)`` to ``(D, *)``."""

    @abstractmethod
    def mean(self, values: Tensor) -> Tensor:
        """Σ / N over each set, every element once; zero where a ragged set is empty."""

    def max(self, values: Tensor, many: Many = None) -> Tensor:
        """Maximum over each set; -inf where it is empty; ties share the gradient."""
        return self.extreme(values, many, least=False)

    def min(self, values: Tensor, many: Many = None) -> Tensor:
        """Minimum over each set; inf where it is empty; ties share the gradient."""
        return self.extreme(values, many, least=True)

    @abstractmethod
    def extreme(self, values: Tensor, many: Many = None, *, least: bool) -> Tensor:
        """The minimum or the maximum."""

    @abstractmethod
    def weighted_sum(self, weight: Tensor, values: Tensor, many: Many = None, *, exact_zeros: bool = False) -> Tensor:
        """Sum of weight ``(E, K, G)`` times value ``(E, C)`` over each set: ``(D, K, C)``.

        The weight contains the multiplicities already. With ``exact_zeros``, 0 · inf is 0: zero weights are common.
        """

    @abstractmethod
    def expand(self, per_set: Tensor) -> Tensor:
        """Give every element its set's value, ``(D, *)`` to what broadcasts to ``(E, *)``."""

    def frugal(self, x: Tensor, many: Many, scores: int = 1) -> Frugal:
        """Which operations on ``x`` need no memory of its size; attention has so many scores an element."""
        return Frugal()

    def softmax(self, scores: Tensor, many: Many = None) -> tuple[Tensor, Tensor]:
        """Weights ``(E, F)`` proportional to multiplicity · exp(score), and the log of their sum, ``(D, F)``.

        The weights sum to one over each set (all are zero if it is empty, and the log is -inf).
        """
        scores = clean(scores, many, -torch.inf)
        loose = steep(many)  # scores of multiplicity zero are still here, and may be above all others
        top = self.max(scores.detach(), many if loose else None)
        shift = self.expand(top)
        # Infinite scores tie with each other, so that inf - inf never happens.
        tied = (scores == shift) & scores.isinf()
        over = torch.where(tied, 0.0, scores - shift)
        mass = torch.exp(torch.where(shift == -torch.inf, 0.0, over).clamp(max=MOST) if loose else over)
        mass = multiply(clean(mass, many), many)
        total = self.sum(mass)
        there = total != 0  # true for nan too, which stays nan
        safe = torch.where(there, total, 1.0)
        log_mass = torch.where(there, torch.where(there, top, 0.0) + safe.log(), -torch.inf)
        return mass / self.expand(safe), log_mass

    def attend(
        self, x: Tensor, matrix: Tensor, many: Many = None, *, queries: int = 1, all_channels: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Average ``x`` with weights softmax(x · matrix): ``(D, K, C)``, and the log mass ``(D, K, H)``.

        Args:
            x: Elements ``(E, C)``.
            matrix: One vector per query and head, ``(K · H, C)``, the temperature in it.
            many: Multiplicity of each element.
            queries: K.
            all_channels: Whether every head pools all channels, ``(D, K · H, C)``, or each its share of them.
        """
        x = clean(x, many)
        weight, log_mass = self.softmax(torch.nn.functional.linear(x, matrix.to(x.dtype)), many)
        by_query = (queries, matrix.shape[0] // queries)
        weight = weight[..., None] if all_channels else weight.reshape(*weight.shape[:-1], *by_query)
        return self.weighted_sum(weight, x, many), log_mass.reshape(*log_mass.shape[:-1], *by_query)

    def soften(self, x: Tensor, scale: Tensor | float, many: Many = None) -> tuple[Tensor, Tensor]:
        """Average each channel of ``x`` with weights softmax(x · scale): ``(D, C)``, and the log mass ``(D, C)``."""
        x = clean(x, many)
        weight, log_mass = self.softmax(x if isinstance(scale, float) and scale == 1 else x * scale, many)
        return self.weighted_sum(weight[..., None, :], x, many, exact_zeros=True).squeeze(-2), log_mass

    def moments(self, x: Tensor, many: Many, size_of: Size) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel, ``(D, C)``, in two passes."""
        x = clean(x, many)
        size = size_of(x)
        mean = self.sum(x, many) / size
        centred = x - self.expand(mean)
        # The mean is rounded; what it misses by is taken off again (the corrected two-pass formula). It has no slope.
        miss = self.sum(centred.detach(), many) / size
        var = (self.sum(centred.square(), many) / size - miss.square()).clamp(min=0)
        return mean, var

    def power(self, x: Tensor, p: Tensor | float, eps: float, many: Many, size_of: Size) -> Tensor:
        """Power mean (Σ max(x, ε)^p / N)^(1/p) of each channel, ``(D, C)``.

        It is computed relative to the largest value, so that no p overflows. An empty set gives a number.
        """
        x = clean(x, many, eps).clamp(min=eps)
        top = self.max(x.detach(), many if steep(many) else None)  # -inf where a set is empty
        top = top.clamp(eps, torch.finfo(x.dtype).max)
        ratio = x / self.expand(top)
        if steep(many):
            most = (MOST / p).exp() if isinstance(p, Tensor) else math.exp(min(MOST / p, MOST))
            ratio = torch.minimum(ratio, torch.as_tensor(most).to(ratio))
        inner = self.sum(ratio**p, many) / size_of(x)
        inner = torch.where(inner == 0, 1.0, inner)  # the root has no slope at zero
        return top * inner ** (1 / p)


class Dense(Group):
    """The sets of a dense batch, pooled over ``dims``, which lie side by side."""

    def __init__(self, dims: tuple[int, ...]) -> None:
        self.dims = dims

    def sum(self, values: Tensor, many: Many = None) -> Tensor:
        """Torch's own sum of clean values."""
        return multiply(clean(values, many), many).sum(self.dims)

    def mean(self, values: Tensor) -> Tensor:
        """Torch's own mean, to the bit."""
        return values.mean(self.dims, dtype=accumulation_type(values.dtype))

    def extreme(self, values: Tensor, many: Many = None, *, least: bool) -> Tensor:
        """Torch's own, of an infinity where nothing is there."""
        values = hide(values, many, torch.inf if least else -torch.inf)
        return values.amin(self.dims) if least else values.amax(self.dims)

    def weighted_sum(self, weight: Tensor, values: Tensor, many: Many = None, *, exact_zeros: bool = False) -> Tensor:
        """A matrix product, where channels share weights."""
        values = clean(values, many)
        weight = weight.to(values.dtype)
        if weight.shape[-1] == values.shape[-1] > 1:  # one weight per channel: nothing for a matrix product to share
            values = values[..., None, :]
            if exact_zeros:
                values = torch.where((weight == 0) & ~values.isfinite(), 0.0, values)
            return (weight * values).sum(self.dims)
        first, last = self.dims[0], self.dims[-1]
        weight = weight.expand(*values.shape[:-1], *weight.shape[-2:]).flatten(first, last)  # (D, N, K, G)
        values = split_channels(values.flatten(first, last), weight.shape[-1])  # (D, N, G, C/G)
        weight = weight.movedim(-3, -1).transpose(-3, -2)  # (D, G, K, N)
        values = values.transpose(-3, -2)  # (D, G, N, C/G)
        if not exact_zeros:
            total = weight @ values  # (D, G, K, C/G)
        else:  # 0 · inf is not a number, but an element without weight is not there: add the infinities apart
            finite = torch.where(values.isfinite(), values, 0.0)
            up = ((values == torch.inf) | values.isnan()).to(values.dtype)
            down = ((values == -torch.inf) | values.isnan()).to(values.dtype)
            meets = (weight != 0).to(values.dtype)
            total = weight @ finite
            total = total + torch.where(meets @ up > 0, torch.inf, 0.0)
            total = total + torch.where(meets @ down > 0, -torch.inf, 0.0)
        return total.transpose(-3, -2).flatten(-2)

    def expand(self, per_set: Tensor) -> Tensor:
        """Insert the pooled axes with size one: broadcasting does the rest."""
        sets = self.dims[0]
        return per_set.reshape(*per_set.shape[:sets], *[1] * len(self.dims), *per_set.shape[sets:])


class Ragged(Group):
    """Sets of any sizes along the first axis, as ``segments`` says."""

    def __init__(self, segments: Segments) -> None:
        self.segments = segments

    def sum(self, values: Tensor, many: Many = None) -> Tensor:
        """Values are added one after the other for a run, and runs in float64."""
        values, segments = multiply(clean(values, many), many), self.segments
        widen = not values.is_mps  # where there is no float64
        total = values.new_zeros((segments.size, *values.shape[1:]))
        if torch.compiler.is_compiling() and widen:
            # Compiled code widens each value as it adds it, so it needs no runs. (An unsorted index would need a sort
            # for them, which Inductor gets wrong when sizes are dynamic; and asking how many elements there are is a
            # guard.)
            return total.double().index_add(0, segments.index, values.double()).to(values.dtype)
        if torch.compiler.is_compiling() or segments.short:
            return total.index_add(0, segments.index, values)
        run, owner = segments.runs
        sums = values.new_zeros((owner.shape[0], *values.shape[1:])).index_add(0, run, values)
        if widen:
            sums = sums.double()
        return total.to(sums.dtype).index_add(0, owner, sums).to(values.dtype)

    def mean(self, values: Tensor) -> Tensor:
        """The sum, divided by how many elements a set has, or by one."""
        total = self.sum(values)
        return total / align(self.segments.lengths.clamp(min=1), total)

    def extreme(self, values: Tensor, many: Many = None, *, least: bool) -> Tensor:
        """A scatter; where a gradient is wanted, the mean over the elements that attain it, differentiable twice."""
        if least:
            return -self.extreme(-values, many, least=False)
        values = hide(values, many, -torch.inf)
        index = self.segments.index.reshape(-1, *[1] * (values.ndim - 1)).expand_as(values)
        low = values.new_full((self.segments.size, *values.shape[1:]), -torch.inf)
        if not sloped(values):  # it may still carry a forward-mode tangent
            return low.scatter_reduce(0, index, values, "amax")
        top = low.scatter_reduce(0, index, values.detach(), "amax")
        best = values.detach() == self.expand(top)
        share = best.to(values.dtype)
        share = share / self.expand(self.sum(share).clamp(min=1))
        mean = self.sum(torch.where(best, share * values, 0.0))
        # A mean of equals is rounded, they are not.
        return torch.where(mean.isfinite(), top + (mean - mean.detach()), mean)

    def weighted_sum(self, weight: Tensor, values: Tensor, many: Many = None, *, exact_zeros: bool = False) -> Tensor:
        """A sum of products; elements may have more axes, ``(N, *, K, G)`` and ``(N, *, C)`` to ``(S, *, K, C)``."""
        values = clean(values, many)
        weight = weight.to(values.dtype).expand(*values.shape[:-1], *weight.shape[-2:])
        groups = split_channels(values, weight.shape[-1])  # (N, *, G, C/G)
        vectors = []
        for k in range(weight.shape[-2]):
            share = weight[..., k, :, None]
            kept = torch.where((share == 0) & ~groups.isfinite(), 0.0, groups) if exact_zeros else groups
            vectors.append(self.sum((share * kept).flatten(-2)))
        return torch.stack(vectors, dim=-2)

    def expand(self, per_set: Tensor) -> Tensor:
        """Look every element's set up."""
        return per_set.index_select(0, self.segments.index)
