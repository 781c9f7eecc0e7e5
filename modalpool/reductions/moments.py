"""Variance and standard deviation, per channel, in two passes: exact at any offset, and at any magnitude."""

from __future__ import annotations

import torch
from torch import Tensor

from modalpool.kernels import eager, tuning
from modalpool.kernels.values import read
from modalpool.reductions.base import Count, Partial, Reduction, State
from modalpool.sets import Sets

__all__ = ["Std", "Var", "deviation", "inverse", "join_deviations", "moments", "scale_of"]

_SMALL = 1e-8
"""Beside a mean beyond this, what differs at all differs by a number whose square is one."""


def scale_of(top: Tensor) -> Tensor:
    """A power of two, to divide what ``top`` is the largest of: nothing is rounded, and no square leaves its type."""
    fits = (top > 0) & top.isfinite()
    scale = (torch.where(fits, top, 2.0) / 2).log2().round().exp2()
    return torch.where(scale > 0, scale, 1.0)


def moments(x: Tensor, sets: Sets) -> tuple[Tensor, Tensor, Tensor | float | None]:
    """Mean, and variance relative to the square of a scale ``(set axes, C)``, so that no square leaves its type.

    None is a scale of one where no variance is zero either.
    """
    if x.is_cpu and eager(x):
        mean, var = sets.moments(x)
        if var.numel() == 0:
            return mean, var, 1.0
        least, most = (read(end) for end in var.detach().aminmax())
        if most < tuning.VAST and (least > 1 / tuning.VAST or _constant(x, sets, mean, var)):
            return mean, var, None if least > 0 else 1.0
    x = sets.clean(x)
    scale = scale_of(sets.max((x - sets.expand(sets.mean(x))).abs().detach()))
    mean, var = sets.moments(x / sets.expand(scale))
    return mean * scale, var, scale


def deviation(var: Tensor, scale: Tensor | float | None) -> Tensor:
    """The root of a variance relative to the square of a scale, with a slope of zero at zero."""
    if scale is None:
        return var.sqrt()
    there = ~(var <= 0)  # true for nan too, which stays nan
    return torch.where(there, torch.where(there, var, 1.0).sqrt(), 0.0) * scale


def inverse(var: Tensor, scale: Tensor | float | None) -> Tensor:
    """One over the deviation, zero where that is zero."""
    return torch.where(var > 0, torch.where(var > 0, var, 1.0).rsqrt(), 0.0) / (1.0 if scale is None else scale)


def join_deviations(a: Tensor, b: Tensor, share: Tensor, gap: Tensor) -> Tensor:
    """That of two chunks whose means differ by ``gap``, the second a share of both; relative to the largest of all."""
    scale = scale_of(torch.maximum(torch.maximum(a, b), gap.abs()).detach())
    first, second, between = ((each / scale).square() for each in (a, b, gap))
    return deviation((1 - share) * first + share * second + share * (1 - share) * between, scale)


def _constant(x: Tensor, sets: Sets, mean: Tensor, var: Tensor) -> bool:
    """Whether what has next to no variance is constant, and not so small that its squares vanish."""
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

    state_size = 2

    def __init__(self, *, correction: float = 0.0) -> None:
        super().__init__()
        if not correction >= 0:
            raise ValueError(f"correction: expected a number >= 0, got {correction}")
        self.correction = correction

    def in_chunks(self, x: Tensor, sets: Sets) -> bool:
        """See `Reduction.in_chunks`; ragged sets have a kernel."""
        return not sets.frugal(x).moments

    def partial(self, x: Tensor, sets: Sets, count: Count, *, with_weights: bool = False) -> Partial:
        """See `Reduction.partial`; the state is (mean, result without a correction)."""
        mean, var, scale = moments(x, sets)
        state = mean, self.from_variance(var, scale)
        if not with_weights:
            return state, None
        centred = sets.clean(x) - sets.expand(mean)
        miss = sets.mean(centred)
        slope = self.corrected(self.slope(var, scale), count)
        return state, sets.hide(centred - sets.expand(miss)) * sets.uniform(x) * sets.expand(slope)

    def from_variance(self, var: Tensor, scale: Tensor | float | None) -> Tensor:
        """The result, from the variance relative to the square of a scale."""
        return var * scale.square() if isinstance(scale, Tensor) else var

    def slope(self, var: Tensor, scale: Tensor | float | None) -> Tensor:
        """What turns the variance's weights into the result's."""
        return torch.ones_like(var)

    def corrected(self, z: Tensor, count: Count) -> Tensor:
        """Times N / (N - correction)."""
        if not self.correction:
            return z
        left = count() - self.correction
        return z * torch.where(left > 0, count() / torch.where(left > 0, left, 1.0), 0.0)

    def merge(self, a: State, b: State, m: Count, n: Count) -> State:
        mean, share, gap = self.join(a[0], b[0], m, n)
        return mean, (1 - share) * a[1] + share * b[1] + share * (1 - share) * gap.square()

    def join(self, a: Tensor, b: Tensor, m: Count, n: Count) -> tuple[Tensor, Tensor, Tensor]:
        """The mean of two means, the share of the second, and how far they are from each other."""
        share = n() / (m + n).size()
        gap = torch.where(m() * n() > 0, b - a, 0.0)
        return torch.where(m() > 0, a, b) + share * gap, share, gap

    def finalize(self, state: State, count: Count) -> Tensor:
        return self.corrected(state[1], count)


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

    def from_variance(self, var: Tensor, scale: Tensor | float | None) -> Tensor:
        return deviation(var, scale)

    def slope(self, var: Tensor, scale: Tensor | float | None) -> Tensor:
        return inverse(var, scale)

    def corrected(self, z: Tensor, count: Count) -> Tensor:
        """Times the root of N / (N - correction)."""
        return z * super().corrected(torch.ones_like(count()), count).sqrt() if self.correction else z

    def merge(self, a: State, b: State, m: Count, n: Count) -> State:
        mean, share, gap = self.join(a[0], b[0], m, n)
        return mean, join_deviations(a[1], b[1], share, gap)
