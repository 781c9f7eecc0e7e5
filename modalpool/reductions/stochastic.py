"""Stochastic pooling: in training a draw, in evaluation the expectation."""

from __future__ import annotations

import torch
from torch import Tensor

from modalpool.reductions.base import Average, Count, State
from modalpool.sets import Sets

__all__ = ["Stochastic"]

_TINY = 1e-12  # where nothing is positive, every element is as likely as the next


class Stochastic(Average):
    """Draw one element per set and channel in training, in proportion to its activation; average in evaluation.

    ``pᵢ = aᵢ max(xᵢ, 0) / Σ aⱼ max(xⱼ, 0)``; training takes ``z = xᵢ`` with probability pᵢ, evaluation ``z = Σ p x``
    (Zeiler and Fergus 2013, eq. 4 to 6). Where no activation is positive all elements are equally likely.

    The draw is the largest of log pᵢ plus Gumbel noise, so draws from chunks of a set merge into a draw from the set.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> Pool("b c [t]", "stochastic").eval()(torch.tensor([[[1.0, 3.0]]]))
        tensor([[2.5000]])
    """

    exact_zeros = True

    def in_chunks(self, x: Tensor, sets: Sets) -> bool:
        """See `Reduction.in_chunks`; a draw cannot be repeated."""
        return not self.training

    def weigh(self, x: Tensor, sets: Sets, count: Count) -> tuple[Tensor, Tensor]:
        """See `Average.weigh`; the mass of a draw is the score that won it, as a certainty."""
        scores = (sets.clean(x).clamp(min=0) + _TINY).log()
        if not self.training:
            return sets.softmax(scores)
        many = sets.multiply(sets.clean(torch.ones_like(scores))).clamp(min=torch.finfo(scores.dtype).tiny)
        uniform = torch.rand_like(scores).clamp(min=torch.finfo(scores.dtype).tiny)
        keys = scores.detach() + many.log() - (-uniform.log()).log()
        top = sets.max(keys)
        won = sets.hide((keys == sets.expand(top)).to(scores.dtype))
        return won / sets.expand(sets.tally(won).clamp(min=1)), top

    def merge(self, a: State, b: State, m: Count, n: Count) -> State:
        """See `Reduction.merge`: of two draws the one with the larger score."""
        if not self.training:
            return super().merge(a, b, m, n)
        return torch.maximum(a[0], b[0]), torch.where(a[0] >= b[0], a[1], b[1])
