"""The mean of the largest elements, per channel: between the maximum and the mean."""

from __future__ import annotations

import torch
from torch import Tensor

from modalpool.reductions.base import Count, Partial, Reduction, State
from modalpool.reductions.ranks import at_rank, chosen, present
from modalpool.sets import Sets

__all__ = ["TopK"]


class TopK(Reduction):
    """Average the k largest elements of each channel (Durand et al. 2017, WILDCAT, without its minima).

    ``z = Σ w x`` with w the same for the k largest, exact shares; elements that tie for the last place divide it. A set
    of fewer elements gives their mean. In multiple-instance learning it is the pooling between max (k = 1) and mean.

    Args:
        k: How many: a whole number, or a share of the set between 0 and 1, which is one element at least and counts the
            last of them in part. An element takes as many places as its multiplicity; of a whole number, at least one.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> x = torch.tensor([[[5.0, 1.0, 3.0, 2.0]]])
        >>> Pool("b c [t]", "topk", k=2)(x).item(), round(Pool("b c [t]", "topk", k=0.75)(x).item(), 3)
        (4.0, 3.333)
    """

    def __init__(self, *, k: int | float = 5) -> None:
        super().__init__()
        self.shares = isinstance(k, float) and 0 < k < 1
        if not self.shares and (k < 1 or k != int(k)):
            raise ValueError(f"k: expected a positive whole number, or a share of the set between 0 and 1, got {k}")
        self.k = k if self.shares else int(k)
        self.state_size = 1 if self.shares else 3
        if self.shares:
            self.needs_whole = (
                f"k={k} is a share of the whole set, whose size its chunks do not know; "
                "pool the whole at once, or give a number of elements"
            )

    def partial(self, x: Tensor, sets: Sets, count: Count, *, with_weights: bool = False) -> Partial:
        """See `Reduction.partial`; the state is the k largest values, how many have each, and their places."""
        return (self._share if self.shares else self._number)(sets.clean(x), sets, with_weights)

    def _share(self, x: Tensor, sets: Sets, with_weights: bool) -> Partial:
        many, size = present(sets, x), sets.size(x)
        places = (self.k * size).clamp(min=1).minimum(size)
        last = sets.expand(at_rank(x, sets, size - places))
        above, tied = many * (x > last), many * (x == last)
        mass = sets.tally(tied)
        left = (places - sets.tally(above)) / torch.where(mass > 0, mass, 1.0)
        weight = (above + tied * sets.expand(left)) / sets.expand(places)
        return (chosen(weight, x, sets),), weight if with_weights else None

    def _number(self, x: Tensor, sets: Sets, with_weights: bool) -> Partial:
        many, found = present(sets, x), []
        left = seen = x.detach()
        for _ in range(int(self.k)):
            top = sets.max(left)
            here = seen == sets.expand(top)
            mass = sets.tally(here * many)
            places = mass if sets.weight is None else sets.tally(here * (many > 0) * many.clamp(min=1))
            mean = sets.sum(torch.where(here, x, 0.0)) / torch.where(mass > 0, mass, 1.0)
            # A mean of equals is rounded, they are not.
            found.append((torch.where(mean.isfinite(), top + (mean - mean.detach()), mean), mass, places))
            left = torch.where(seen < sets.expand(top), seen, -torch.inf)
        state = tuple(torch.stack(each, dim=-2) for each in zip(*found, strict=True))
        if not with_weights:
            return state, None
        weight = torch.zeros_like(x)
        for value, share in zip(state[0].unbind(-2), self._shares(state).unbind(-2), strict=True):
            weight = weight + (x == sets.expand(value)) * many * sets.expand(share)
        return state, weight

    def _shares(self, state: State) -> Tensor:
        """The weight of one element of each value, ``(D, k, C)``."""
        _, mass, places = state
        used = (self.k - (places.cumsum(-2) - places)).clamp(min=0).minimum(places)
        share = used / torch.where(places > 0, places, 1.0)
        total = (share * mass).sum(-2, keepdim=True)
        return share / torch.where(total > 0, total, 1.0)

    def merge(self, a: State, b: State, m: Count, n: Count) -> State:
        """See `Reduction.merge`: the k largest of both."""
        values, mass, places = (torch.cat(both, dim=-2) for both in zip(a, b, strict=True))
        least = torch.finfo(values.dtype).min  # of what is there; a place that nothing took comes last
        order = torch.where(places > 0, values.detach().clamp(min=least), -torch.inf).argsort(dim=-2, descending=True)
        kept = order.narrow(-2, 0, int(self.k))
        return values.gather(-2, kept), mass.gather(-2, kept), places.gather(-2, kept)

    def finalize(self, state: State, count: Count) -> Tensor:
        if self.shares:
            return state[0]
        weight = self._shares(state) * state[1]
        taken = (weight > 0) | state[0].isnan()
        return torch.where(taken, weight * torch.where(taken, state[0], 0.0), 0.0).sum(-2)
