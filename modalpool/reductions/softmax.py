"""Smooth maxima, per channel: log-sum-exp and the self-weighted softmax.

A temperature T says how smooth: T → 0 is the maximum, T → ∞ the mean. Both limits are exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modalpool.kernels.definition import MOST
from modalpool.reductions.base import Average, Count, Partial, Reduction, State
from modalpool.reductions.mean import join_means
from modalpool.reductions.options import Temperature
from modalpool.sets import Sets

__all__ = ["LogSumExp", "Softmax", "hardest"]


def hardest(scores: Tensor, sets: Sets) -> tuple[Tensor, Tensor, Tensor]:
    """A softmax at temperature zero: the best elements share the weight; the log of their number, and their score."""
    top = sets.max(scores.detach())
    best = torch.zeros_like(scores).masked_fill(scores != sets.expand(top), -torch.inf)
    return *sets.softmax(best), top


def _finite(top: Tensor) -> Tensor:
    """The largest value, to be subtracted; zero where it is infinite."""
    return torch.where(top.isfinite(), top, 0.0)


class LogSumExp(Reduction):
    """Take the smooth maximum of each channel: ``z = T log Σ aᵢ exp(xᵢ / T)``.

    With ``normalize`` the sum is divided by N (Pinheiro and Collobert 2015, eq. 6), which makes T → ∞ the mean. Near
    that limit the mean of exp(xᵢ / T) is one and a little; the little is added up by itself, so T loses nothing of it.

    The shares are ``w = softmax(x / T)``, the gradient of z; it is the one rule here whose shares are not exact:
    ``z - Σ w x`` is T times the entropy of w (less T log N if normalized).

    Args:
        temperature: T; 0 = the maximum, inf = the mean (needs ``normalize``).
        learn_temperature: Whether T is a parameter, one per channel if ``channels`` is given (it stays positive).
        normalize: Whether to divide the sum by N.
        channels: C; None = one temperature for all channels.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> Pool("b c [t]", "logsumexp", normalize=True)(torch.full((1, 1, 5), 2.0)).item()
        2.0
    """

    def __init__(
        self,
        *,
        temperature: float = 1.0,
        learn_temperature: bool = False,
        normalize: bool = False,
        channels: int | None = None,
    ) -> None:
        super().__init__()
        if temperature == float("inf") and not normalize:
            raise ValueError("temperature: inf needs normalize=True; the sum itself has no such limit")
        self.temperature = Temperature(temperature, learned=learn_temperature, channels=channels)
        self.learn_temperature, self.normalize = learn_temperature, normalize
        self.state_size = 3 if normalize and not (self.temperature.flat or self.temperature.hard) else 1
        self.channels = channels if learn_temperature else None

    def in_chunks(self, x: Tensor, sets: Sets) -> bool:
        """See `Reduction.in_chunks`; there is a kernel for a fixed temperature."""
        return self.normalize or not (self.temperature.fixed and sets.frugal(x).soften)

    def partial(self, x: Tensor, sets: Sets, count: Count, *, with_weights: bool = False) -> Partial:
        """See `Reduction.partial`; the state is log Σ exp, or the limit's own.

        Normalised it is the largest value, and the means of exp - 1 and of exp relative to it.
        """
        temperature = self.temperature
        if temperature.flat:
            return (sets.mean(x),), sets.uniform(x) if with_weights else None
        if temperature.hard:
            return (sets.max(x),), hardest(sets.clean(x), sets)[0] if with_weights else None
        if temperature.fixed and not self.normalize and not with_weights:
            return (sets.soften(x, 1 / temperature.value)[1],), None
        shares = None
        if with_weights or not self.normalize:
            # Not x / T: where `finalize` has the same T, Inductor (torch 2.11) reads sums before they are added up.
            shares, log_mass = sets.softmax(sets.clean(x) * (1 / temperature(x)))
        if not self.normalize:
            return (log_mass,), shares if with_weights else None
        top = sets.max(x.detach())
        far = (sets.clean(x) - sets.expand(_finite(top))) / temperature(top)
        far = far if sets.weight is None else far.clamp(max=MOST)
        return (top, sets.mean(far.expm1()), sets.mean(far.exp())), shares

    def merge(self, a: State, b: State, m: Count, n: Count) -> State:
        if self.temperature.flat:
            return (join_means(a[0], b[0], m, n),)
        top = torch.maximum(a[0], b[0])
        if self.temperature.hard:
            return (top,)
        if self.normalize:
            parts = []
            for own, little, much in (a, b):
                far = (own - _finite(top)) / self.temperature(top)
                rise = far.expm1()  # exp(u + v) - 1 = (exp(u) - 1) exp(v) + exp(v) - 1
                parts.append((little * far.exp() + rise, much * far.exp()))
            return top, *(join_means(one, other, m, n) for one, other in zip(*parts, strict=True))
        both = a[0].isfinite() & b[0].isfinite()  # logaddexp has no gradient at infinity
        joined = torch.logaddexp(torch.where(both, a[0], 0.0), torch.where(both, b[0], 0.0))
        return (torch.where(both, joined, top),)

    def finalize(self, state: State, count: Count) -> Tensor:
        value, temperature = count.blank(state[0]), self.temperature
        if temperature.flat or temperature.hard:
            return value
        if not self.normalize:
            smooth: Tensor = temperature(value) * value
            return smooth
        little, much = count.blank(state[1]), state[2]
        near = little > -0.5
        log = torch.where(near, torch.where(near, little, 0.0).log1p(), torch.where(near, 1.0, much).log())
        return torch.where(value.isfinite(), _finite(value) + temperature(value) * log, value)


class Softmax(Average):
    """Let each channel weigh its own elements: ``w = softmax(x / T)``, ``z = Σ w x`` (McFee, Salamon and Bello 2018).

    Args:
        temperature: T; 0 = the maximum, inf = the mean.
        learn_temperature: Whether T is a parameter, one per channel if ``channels`` is given (it stays positive).
        channels: C; None = one temperature for all channels.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> x = torch.tensor([[[0.0, 4.0]]])
        >>> [round(Pool("b c [t]", "softmax", temperature=t)(x).item(), 3) for t in (0.0, 1.0, float("inf"))]
        [4.0, 3.928, 2.0]
    """

    exact_zeros = True

    def __init__(
        self, *, temperature: float = 1.0, learn_temperature: bool = False, channels: int | None = None
    ) -> None:
        super().__init__()
        self.temperature = Temperature(temperature, learned=learn_temperature, channels=channels)
        self.learn_temperature = learn_temperature
        self.state_size = 3 if self.temperature.hard else 2
        self.channels = channels if learn_temperature else None

    def in_chunks(self, x: Tensor, sets: Sets) -> bool:
        """See `Reduction.in_chunks`; there is a kernel for a fixed temperature."""
        return not (self.temperature.fixed and sets.frugal(x).soften)

    def partial(self, x: Tensor, sets: Sets, count: Count, *, with_weights: bool = False) -> Partial:
        temperature = self.temperature
        if with_weights or temperature.flat or temperature.hard:
            return super().partial(x, sets, count, with_weights=with_weights)
        z, log_mass = sets.soften(x, 1 / temperature(x))
        return (log_mass, z), None

    def weigh(self, x: Tensor, sets: Sets, count: Count) -> tuple[Tensor, ...]:
        x = sets.clean(x)
        if self.temperature.flat:
            return sets.uniform(x), sets.count(x).log()
        if self.temperature.hard:
            return hardest(x, sets)
        return sets.softmax(x / self.temperature(x))
