"""Variance and standard deviation, per channel, in two passes: exact at any offset."""

from __future__ import annotations

import torch
from torch import Tensor

from modalpool.reductions.base import Count, Reduction, State
from modalpool.sets import Sets

__all__ = ["Std", "Var"]


class Var(Reduction):
    """Measure the variance of each channel: ``z = Σ aᵢ (xᵢ - m)² / N`` with m the mean (no Bessel correction).

    The sum is taken around the mean, so a large offset costs nothing. Parts merge as in Chan, Golub and LeVeque (1979).
    As ``z = Σ wᵢ xᵢ`` with ``wᵢ = aᵢ (xᵢ - m) / N`` the shares are exact, and signed.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> Pool("b c [t]", "var")(torch.tensor([[[1.0, 3.0]]])).item()
        1.0
    """

    state_size = 2

    def in_chunks(self, x: Tensor, sets: Sets) -> bool:
        """See `Reduction.in_chunks`; ragged sets have a kernel."""
        return not sets.frugal(x).moments

    def partial(
        self, x: Tensor, sets: Sets, count: Count, *, with_weights: bool = False
    ) -> tuple[State, Tensor | None]:
        """See `Reduction.partial`; the state is (mean, variance)."""
        mean, var = sets.moments(x)
        if not with_weights:
            return (mean, var), None
        centred = sets.clean(x) - sets.expand(mean)
        miss = sets.mean(centred)
        weight = sets.clean(centred - sets.expand(miss)) * sets.uniform(x) * sets.expand(self.slope(var))
        return (mean, var), weight

    def of_variance(self, var: Tensor) -> Tensor:
        """What is made of the variance."""
        return var

    def slope(self, var: Tensor) -> Tensor:
        """What turns the variance's weights into the result's: result / variance."""
        return torch.ones_like(var)

    def merge(self, a: State, b: State, m: Count, n: Count) -> State:
        """See `Reduction.merge`."""
        share = n() / (m + n).size()
        gap = torch.where(m() * n() > 0, b[0] - a[0], 0.0)
        mean = torch.where(m() > 0, a[0], b[0]) + share * gap
        return mean, (1 - share) * a[1] + share * b[1] + share * (1 - share) * gap.square()

    def finalize(self, state: State, count: Count) -> Tensor:
        """See `Reduction.finalize`."""
        return self.of_variance(state[1])


class Std(Var):
    """Measure the standard deviation of each channel: the root of `Var`, with gradient zero where it is zero.

    ``z = Σ wᵢ xᵢ`` with ``wᵢ = aᵢ (xᵢ - m) / (N z)``: exact, signed shares.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> Pool("b c [t]", "std")(torch.tensor([[[1.0, 5.0]]])).item()
        2.0
    """

    def slope(self, var: Tensor) -> Tensor:
        """See `Var.slope`."""
        return torch.where(var > 0, torch.where(var > 0, var, 1.0).rsqrt(), 0.0)

    def of_variance(self, var: Tensor) -> Tensor:
        """The root, taken only where it has a slope."""
        there = ~(var <= 0)  # true for nan too, which stays nan
        return torch.where(there, torch.where(there, var, 1.0).sqrt(), 0.0)
