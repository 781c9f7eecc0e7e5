"""Power mean (GeM): from the mean (p = 1) to the maximum (p → ∞)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from modalpool.reductions.base import Reduction, State
from modalpool.reductions.options import repr_options
from modalpool.sets import Sets

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

    state_size = 2

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
        return self.p if self.log_p is None else self.log_p.to(like.dtype).exp()

    def in_chunks(self, x: Tensor, sets: Sets) -> bool:
        """See `Reduction.in_chunks`; a fixed exponent has a kernel."""
        return self.learn_p or not sets.frugal(x).power

    def partial(self, x: Tensor, sets: Sets, *, with_weights: bool = False) -> tuple[State, Tensor | None]:
        """See `Reduction.partial`; the state is (count, z)."""
        p = self.exponent(sets.count(x))
        z = sets.power(x, p, self.eps)
        weight = None
        if with_weights:
            x = sets.clean(x, self.eps).clamp(min=self.eps)
            share = sets.uniform(x) * (x / sets.expand(z)) ** (p - 1)
            weight = torch.where(x > self.eps, share, 0.0)[..., None, :]
        return (sets.count(x)[..., None, :], z[..., None, :]), weight

    def pool(self, x: Tensor, sets: Sets) -> Tensor | None:
        """See `Reduction.pool`; an empty set has no power mean."""
        return None if self.learn_p or not sets.full else sets.power(x, self.p, self.eps)

    def merge(self, a: State, b: State) -> State:
        """See `Reduction.merge`: the power mean of power means, in proportion to their sizes."""
        count = a[0] + b[0]
        share = a[0] / torch.where(count > 0, count, 1.0)
        p = self.exponent(a[1])
        top = torch.maximum(a[1], b[1]).detach()
        top = torch.where(top.isfinite(), top, 1.0)
        inner = share * (a[1] / top) ** p + (1 - share) * (b[1] / top) ** p
        # An empty part has share zero, and its placeholder must not be felt.
        inner = torch.where(a[0] > 0, torch.where(b[0] > 0, inner, (a[1] / top) ** p), (b[1] / top) ** p)
        return count, top * inner ** (1 / p)

    def finalize(self, state: State) -> Tensor:
        """See `Reduction.finalize`."""
        return state[1]

    def extra_repr(self) -> str:
        """The options that are not the default."""
        return repr_options(self, p=3.0, learn_p=False, eps=1e-6)
