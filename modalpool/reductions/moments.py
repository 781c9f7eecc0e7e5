"""Variance and standard deviation, per channel, in two passes: exact at any offset."""

from __future__ import annotations

import torch
from torch import Tensor

from modalpool.reductions.base import Reduction, State
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

    zero_if_empty = True
    state_size = 3

    def in_chunks(self, x: Tensor, sets: Sets) -> bool:
        """See `Reduction.in_chunks`; ragged sets have a kernel."""
        return not sets.frugal(x).moments

    def partial(self, x: Tensor, sets: Sets, *, with_weights: bool = False) -> tuple[State, Tensor | None]:
        """See `Reduction.partial`; the state is (count, mean, variance)."""
        mean, var = sets.moments(x)
        state = (sets.count(x)[..., None, :], mean[..., None, :], var[..., None, :])
        if not with_weights:
            return state, None
        centred = sets.clean(x) - sets.expand(mean)
        miss = sets.mean(centred)
        slope = self.slope(var)
        weight = sets.clean(centred - sets.expand(miss)) * sets.uniform(x) * sets.expand(slope)
        return state, weight[..., None, :]

    def pool(self, x: Tensor, sets: Sets) -> Tensor | None:
        """See `Reduction.pool`."""
        return self.spread(sets.moments(x)[1])

    def spread(self, var: Tensor) -> Tensor:
        """What is made of the variance."""
        return var

    def slope(self, var: Tensor) -> Tensor:
        """What turns the variance's weights into the result's: result / variance."""
        return torch.ones_like(var)

    def merge(self, a: State, b: State) -> State:
        """See `Reduction.merge`."""
        count = a[0] + b[0]
        share = b[0] / torch.where(count > 0, count, 1.0)
        gap = torch.where(a[0] * b[0] > 0, b[1] - a[1], 0.0)
        mean = torch.where(a[0] > 0, a[1], b[1]) + share * gap
        var = (1 - share) * a[2] + share * b[2] + share * (1 - share) * gap.square()
        return count, mean, var

    def finalize(self, state: State) -> Tensor:
        """See `Reduction.finalize`."""
        return self.spread(state[2])


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

    def spread(self, var: Tensor) -> Tensor:
        """See `Var.spread`; the root is only taken where it has a slope."""
        there = ~(var <= 0)  # true for nan too, which stays nan
        return torch.where(there, torch.where(there, var, 1.0).sqrt(), 0.0)
