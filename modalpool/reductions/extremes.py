"""Maximum and minimum, per channel."""

from __future__ import annotations

import torch
from torch import Tensor

from modalpool.reductions.base import Count, Partial, Reduction, State
from modalpool.sets import Sets

__all__ = ["Max", "Min"]


class Max(Reduction):
    """Take the largest value of each channel: ``z = maxᵢ xᵢ``.

    The maximum is homogeneous, so it has exact shares: w is 1 / (number of ties) at the elements that attain it and
    zero elsewhere, and Σ w x = z. The gradient is the same w.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> Pool("b [n] c", "max")(torch.tensor([[[1.0], [3.0], [2.0]]])).item()
        3.0
    """

    def extreme(self, x: Tensor, sets: Sets) -> Tensor:
        """The wanted value of each channel."""
        return sets.max(x)

    def in_chunks(self, x: Tensor, sets: Sets) -> bool:
        """See `Reduction.in_chunks`; it reads each value once."""
        return False

    def partial(self, x: Tensor, sets: Sets, count: Count, *, with_weights: bool = False) -> Partial:
        top = self.extreme(x, sets)
        weight = None
        if with_weights:
            best = sets.hide((x == sets.expand(top)).to(top.dtype))
            weight = best / sets.expand(sets.tally(best).clamp(min=1))
        return (top,), weight

    def merge(self, a: State, b: State, m: Count, n: Count) -> State:
        return (torch.maximum(a[0], b[0]),)

    def finalize(self, state: State, count: Count) -> Tensor:
        return count.blank(state[0])


class Min(Max):
    """Take the smallest value of each channel: ``z = minᵢ xᵢ``. Everything said of `Max` holds.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> Pool("b [n] c", "min")(torch.tensor([[[1.0], [3.0], [2.0]]])).item()
        1.0
    """

    def extreme(self, x: Tensor, sets: Sets) -> Tensor:
        return sets.min(x)

    def merge(self, a: State, b: State, m: Count, n: Count) -> State:
        return (torch.minimum(a[0], b[0]),)
