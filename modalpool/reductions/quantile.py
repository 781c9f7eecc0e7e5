"""Quantiles, per channel: the median between the minimum and the maximum."""

from __future__ import annotations

import torch
from torch import Tensor

from modalpool.reductions.base import Count, Partial, Reduction, State
from modalpool.reductions.ranks import at_rank, chosen, present
from modalpool.sets import Sets

__all__ = ["Quantile"]


class Quantile(Reduction):
    """Take a quantile of each channel: ``z = (1 - g) x₍ₕ₎ + g x₍ₕ₊₁₎`` with ``h + g = q (N - 1)``.

    x₍ₕ₎ is the element of rank h, from 0; between two ranks it is linear, as in ``torch.quantile`` (Hyndman and Fan
    1996, definition 7). A multiplicity counts ranks: weight 2 is the element twice. The shares are exact: 1 - g at the
    element of rank h and g at the next, each divided among those that tie; the gradient is the same.

    Args:
        q: From 0, the minimum, to 1, the maximum; 0.5 is the median.
        interpolation: What g is between two ranks, as in ``torch.quantile``: "linear", "lower" (0), "higher" (1),
            "nearest" (half to even) or "midpoint" (½).

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> Pool("b c [t]", "quantile")(torch.tensor([[[9.0, 1.0, 2.0, 4.0]]])).item()
        3.0
    """

    needs_whole = (
        "a quantile needs all elements of a set, because nothing of fixed size tells it of their chunks; "
        "pool the whole at once, or use 'topk', 'max' or 'mean'"
    )

    INTERPOLATIONS = ("linear", "lower", "higher", "nearest", "midpoint")

    def __init__(self, *, q: float = 0.5, interpolation: str = "linear") -> None:
        super().__init__()
        if interpolation not in self.INTERPOLATIONS:
            raise ValueError(f"interpolation: expected one of {', '.join(self.INTERPOLATIONS)}, got {interpolation!r}")
        if not 0 <= q <= 1:
            raise ValueError(f"q: expected a number from 0 to 1, got {q}")
        self.q, self.interpolation = q, interpolation

    def partial(self, x: Tensor, sets: Sets, count: Count, *, with_weights: bool = False) -> Partial:
        x = sets.clean(x)
        many, rank = present(sets, x), self.q * (sets.count(x) - 1).clamp(min=0)
        at = sets.expand(at_rank(x, sets, rank.floor()))
        low = (x == at) * many
        after = sets.expand(sets.min(torch.where(x.detach() > at, x.detach(), torch.inf)))
        goes_on = sets.tally((x <= at) * many) > rank.floor() + 1  # the next rank is the same value
        high = torch.where(sets.expand(goes_on), low, (x == after) * many)
        share = sets.expand(self._share(rank))
        weight = torch.zeros_like(x)
        for tied, part in ((low, 1 - share), (high, share)):
            mass = sets.tally(tied)
            weight = weight + tied / sets.expand(torch.where(mass > 0, mass, 1.0)) * part
        return (chosen(weight, x, sets),), weight if with_weights else None

    def _share(self, rank: Tensor) -> Tensor:
        """g, of fractional ranks."""
        low, high = rank.floor(), rank.ceil()
        if self.interpolation == "midpoint":
            return (high - low) / 2
        chosen_rank = {"linear": rank, "lower": low, "higher": high, "nearest": rank.round()}[self.interpolation]
        return chosen_rank - low

    def finalize(self, state: State, count: Count) -> Tensor:
        return state[0]
