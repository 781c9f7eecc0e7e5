"""The size law: everything between the mean and the sum."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from modalpool.reductions.base import Count, Partial, Reduction, State
from modalpool.reductions.mean import join_means
from modalpool.sets import Sets

__all__ = ["SizeLaw"]


class SizeLaw(Reduction):
    """Average, and let the size of the set count as much as it should: ``z = k(N) · mean``.

    ``k(N) = N^β`` ("power") or ``k(N) = (1 - β) + β N`` ("mixture"); β = 0 is the mean, 1 the sum, and ½ in the power
    law keeps the variance of independent elements. Counting needs the sum, a density the mean; a learned β finds out.

    A head trained on sets of size N0 has only seen vectors of the scale k(N0). ``reference_size=N0`` multiplies by
    k(N0) / k(N), after which tiling an input r-fold changes nothing, exactly. It holds no parameter: give it to the
    layer that is used at other sizes and load the trained state into it.

    Args:
        law: "power" or "mixture".
        beta: β, where between mean (0) and sum (1); the start if it is learned.
        learn_beta: Whether β is a parameter (of the mixture: kept between 0 and 1).
        reference_size: N0, the size of a set at training; None = no correction.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> x = torch.ones(1, 1, 9)
        >>> Pool("b c [t]", "size_law", beta=0.5)(x).item()
        3.0
        >>> Pool("b c [t]", "size_law", law="mixture", beta=0.5, reference_size=9)(x.repeat(1, 1, 4)).item()
        5.0
    """

    def __init__(
        self, *, law: str = "power", beta: float = 0.5, learn_beta: bool = False, reference_size: float | None = None
    ) -> None:
        super().__init__()
        if law not in ("power", "mixture"):
            raise ValueError(f"law: expected 'power' or 'mixture', got {law!r}")
        if law == "mixture" and not (0 < beta < 1 if learn_beta else 0 <= beta <= 1):
            raise ValueError(f"beta: a mixture needs a share between 0 and 1 (inside, to learn it), got {beta}")
        if reference_size is not None and not reference_size > 0:
            raise ValueError(f"reference_size: expected a positive number of elements, got {reference_size}")
        self.law, self.beta, self.learn_beta, self.reference_size = law, beta, learn_beta, reference_size
        start = math.log(beta / (1 - beta)) if learn_beta and law == "mixture" else beta
        self.raw_beta = nn.Parameter(torch.tensor(float(start))) if learn_beta else None

    def factor(self, count: Count, dtype: torch.dtype) -> Tensor | float:
        """k(N), or k(N0) under the correction, which cancels k(N)."""
        return self.at(count.size() if self.reference_size is None else self.reference_size, dtype)

    def at(self, size: Tensor | float, dtype: torch.dtype) -> Tensor | float:
        """K of sizes."""
        beta: Tensor | float = self.beta
        if self.raw_beta is not None:
            beta = (self.raw_beta.sigmoid() if self.law == "mixture" else self.raw_beta).to(dtype)
        factor: Tensor | float = size**beta if self.law == "power" else (1 - beta) + beta * size
        return factor

    def in_chunks(self, x: Tensor, sets: Sets) -> bool:
        """See `Reduction.in_chunks`; a sum reads each value once."""
        return False

    def partial(self, x: Tensor, sets: Sets, count: Count, *, with_weights: bool = False) -> Partial:
        mean = sets.mean(x)
        if not with_weights:
            return (mean,), None
        factor = self.factor(count, mean.dtype) * torch.ones_like(count())
        return (mean,), sets.uniform(x) * sets.expand(factor)

    def merge(self, a: State, b: State, m: Count, n: Count) -> State:
        return (join_means(a[0], b[0], m, n),)

    def finalize(self, state: State, count: Count) -> Tensor:
        return self.factor(count, state[0].dtype) * state[0]
