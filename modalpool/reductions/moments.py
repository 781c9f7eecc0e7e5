"""Variance and standard deviation, per channel, in two passes: exact at any offset, and at any magnitude."""

from __future__ import annotations

import torch
from torch import Tensor

from modalpool.kernels import eager, tuning
from modalpool.kernels.values import read
from modalpool.reductions.base import Count, Reduction, State
from modalpool.reductions.options import repr_options
from modalpool.sets import Sets

__all__ = ["Std", "Var"]

_SMALL = 1e-8
"""Beside a mean beyond this, what differs at all differs by a number whose square is one."""


def _power_of_two(top: Tensor) -> Tensor:
    """About ``top``, so that dividing by it rounds nothing; zero where it is zero or infinite."""
    fits = (top > 0) & top.isfinite()
    return torch.where(fits, torch.where(fits, top, 1.0).log2().round().exp2(), 0.0)


def _moments(x: Tensor, sets: Sets) -> State:
    """Mean, and variance relative to the square of a scale ``(set axes, C)``, so that no square leaves its type."""
    if x.is_cpu and eager(x):
        mean, var = sets.moments(x)
        if _ordinary(x, sets, mean, var):
            return mean, var, mean.new_ones(()).expand_as(mean)
    x = sets.clean(x)
    top = sets.max((x - sets.expand(sets.mean(x))).abs().detach())
    scale = _power_of_two(top)
    scale = torch.where(scale > 0, scale, 1.0)
    mean, var = sets.moments(x / sets.expand(scale))
    return mean * scale, var, scale


def _ordinary(x: Tensor, sets: Sets, mean: Tensor, var: Tensor) -> bool:
    """Whether no square came near a limit of its type; what is constant has a variance of zero by right."""
    if var.numel() == 0:
        return True
    least, most = (read(end) for end in var.detach().aminmax())
    if not most < tuning.VAST or least > 1 / tuning.VAST:
        return bool(most < tuning.VAST)
    low = (var <= 1 / tuning.VAST) & (mean.abs() < _SMALL)
    return not read(low.any()) or not read((low & (sets.max(x.detach()) > sets.min(x.detach()))).any())


class Var(Reduction):
    """Measure the variance of each channel: ``z = Σ aᵢ (xᵢ - m)² / (N - correction)`` with m the mean.

    The sum is taken around the mean, so a large offset costs nothing. Parts merge as in Chan, Golub and LeVeque (1979).
    As ``z = Σ wᵢ xᵢ`` with ``wᵢ = aᵢ (xᵢ - m) / (N - correction)`` the shares are exact, and signed.

    Args:
        correction: What is taken off N: 0, or 1 as in Bessel's (torch's default; x-vector heads are trained with it).
            Where N is not larger the result is zero, with gradient zero.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> Pool("b c [t]", "var")(torch.tensor([[[1.0, 3.0]]])).item()
        1.0
        >>> Pool("b c [t]", "var", correction=1)(torch.tensor([[[1.0, 3.0]]])).item()
        2.0
    """

    state_size = 3

    def __init__(self, *, correction: float = 0.0) -> None:
        super().__init__()
        if not correction >= 0:
            raise ValueError(f"correction: expected a number >= 0, got {correction}")
        self.correction = correction

    def in_chunks(self, x: Tensor, sets: Sets) -> bool:
        """See `Reduction.in_chunks`; ragged sets have a kernel."""
        return not sets.frugal(x).moments

    def partial(
        self, x: Tensor, sets: Sets, count: Count, *, with_weights: bool = False
    ) -> tuple[State, Tensor | None]:
        """See `Reduction.partial`; the state is (mean, variance / scale², scale)."""
        mean, var, scale = _moments(x, sets)
        if not with_weights:
            return (mean, var, scale), None
        centred = sets.clean(x) - sets.expand(mean)
        miss = sets.mean(centred)
        slope = self.slope(var, scale, self.share(count))
        return (mean, var, scale), sets.hide(centred - sets.expand(miss)) * sets.uniform(x) * sets.expand(slope)

    def share(self, count: Count) -> Tensor | float:
        """N / (N - correction)."""
        if not self.correction:
            return 1.0
        left = count() - self.correction
        return torch.where(left > 0, count() / torch.where(left > 0, left, 1.0), 0.0)

    def spread(self, var: Tensor, scale: Tensor) -> Tensor:
        """What is made of the variance."""
        return var * scale.square()

    def slope(self, var: Tensor, scale: Tensor, share: Tensor | float) -> Tensor:
        """What turns the weights of the variance without a correction into the result's."""
        return torch.ones_like(var) * share

    def merge(self, a: State, b: State, m: Count, n: Count) -> State:
        """See `Reduction.merge`."""
        share = n() / (m + n).size()
        gap = torch.where(m() * n() > 0, b[0] - a[0], 0.0)
        mean = torch.where(m() > 0, a[0], b[0]) + share * gap
        scale = _power_of_two(gap.detach().abs())
        for own in (a, b):
            scale = torch.maximum(scale, torch.where(own[1] > 0, own[2], 0.0))
        scale = torch.where(scale > 0, scale, 1.0)
        first, second = (own[1] * (own[2] / scale).square() for own in (a, b))
        return mean, (1 - share) * first + share * second + share * (1 - share) * (gap / scale).square(), scale

    def finalize(self, state: State, count: Count) -> Tensor:
        """See `Reduction.finalize`."""
        return self.spread(state[1] * self.share(count), state[2])

    def extra_repr(self) -> str:
        """The options that are not the default."""
        return repr_options(self, correction=0.0)


class Std(Var):
    """Measure the standard deviation of each channel: the root of `Var`, with gradient zero where it is zero.

    ``z = Σ wᵢ xᵢ`` with ``wᵢ = aᵢ (xᵢ - m) / ((N - correction) z)``: exact, signed shares.

    Args:
        correction: See `Var`.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> Pool("b c [t]", "std")(torch.tensor([[[1.0, 5.0]]])).item()
        2.0
    """

    def spread(self, var: Tensor, scale: Tensor) -> Tensor:
        """The root, taken only where it has a slope."""
        there = ~(var <= 0)  # true for nan too, which stays nan
        return torch.where(there, torch.where(there, var, 1.0).sqrt(), 0.0) * scale

    def slope(self, var: Tensor, scale: Tensor, share: Tensor | float) -> Tensor:
        """See `Var.slope`."""
        var = var * share
        return torch.where(var > 0, share * torch.where(var > 0, var, 1.0).rsqrt(), 0.0) / scale
