"""Power mean (GeM): from the mean (p = 1) to the maximum (p → ∞)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from modalpool.reductions.base import Count, Partial, Reduction, State
from modalpool.sets import Sets, accumulation_type

__all__ = ["Power"]


class Power(Reduction):
    """Take the power mean of each channel (GeM; Radenović, Tolias and Chum 2019, eq. 3).

    ``z = (Σ aᵢ max(xᵢ, ε)^p / N)^(1/p)``, computed relative to the largest value, so that no p overflows. It is
    homogeneous, so the shares ``wᵢ = aᵢ xᵢ^(p-1) z^(1-p) / N`` are exact: Σ w x = z, as far as x ≥ ε.

    Args:
        p: Exponent, positive; the start if it is learned.
        learn_p: Whether p is a parameter (it stays positive).
        eps: ε, what smaller values are raised to.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> Pool("b c [t]", "power", p=2.0)(torch.tensor([[[1.0, 7.0]]])).item()
        5.0
    """

    def __init__(self, *, p: float = 3.0, learn_p: bool = False, eps: float = 1e-6) -> None:
        super().__init__()
        if not 0 < p < math.inf:
            raise ValueError(f"p: expected a positive finite exponent, got {p}; the limit of large p is 'max'")
        if not eps > 0:
            raise ValueError(f"eps: expected a positive number, got {eps}")
        self.p, self.learn_p, self.eps = p, learn_p, eps
        self.log_p = nn.Parameter(torch.tensor(math.log(p))) if learn_p else None

    def exponent(self, like: Tensor) -> Tensor | float:
        """The p in use."""
        return self.p if self.log_p is None else self.log_p.to(accumulation_type(like.dtype)).exp()

    def in_chunks(self, x: Tensor, sets: Sets) -> bool:
        """See `Reduction.in_chunks`; a fixed exponent has a kernel."""
        return self.learn_p or not sets.frugal(x).power

    def partial(self, x: Tensor, sets: Sets, count: Count, *, with_weights: bool = False) -> Partial:
        p = self.exponent(x)
        z = sets.power(x, p, self.eps)
        weight = None
        if with_weights:
            x = sets.clean(x, self.eps).clamp(min=self.eps)
            share = sets.uniform(x) * (x / sets.expand(z)) ** (p - 1)
            weight = torch.where(x > self.eps, share, 0.0)
        return (z,), weight

    def merge(self, a: State, b: State, m: Count, n: Count) -> State:
        """See `Reduction.merge`: the power mean of power means, in proportion to their sizes."""
        share = m() / (m + n).size()
        p = self.exponent(a[0])
        top = torch.maximum(a[0], b[0]).detach()
        top = torch.where(top.isfinite(), top, 1.0)
        left, right = (a[0] / top) ** p, (b[0] / top) ** p
        # An empty chunk has share zero, and its placeholder must not be felt.
        inner = torch.where(m() > 0, torch.where(n() > 0, share * left + (1 - share) * right, left), right)
        return (top * inner ** (1 / p),)

    def finalize(self, state: State, count: Count) -> Tensor:
        return count.blank(state[0])
