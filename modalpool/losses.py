"""What can be added to an objective so that learned weights do what they are for."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from modalpool.pool import Pool
from modalpool.reductions import Regions

__all__ = ["RegionLosses", "region_losses"]


class RegionLosses(NamedTuple):
    """What can be added to an objective to keep regions apart; both in [0, log K], zero at best."""

    entropy: Tensor  # how undecided the elements are
    balance: Tensor  # how unequally large the regions are


def region_losses(pool: Pool, x: Tensor, **sets: Any) -> RegionLosses:
    """Measure whether learned regions collapse (Ying et al. 2018, section 3.3, for the entropy).

    ``entropy`` is the mean over elements of the entropy of their assignment: at zero every element has chosen one.
    ``balance`` is log K less the entropy of the regions' shares of all elements: at zero they are equally large, which
    also keeps entropy from putting everything into one. Elements outside the mask do not count.

    Args:
        pool: A pool whose reduction is `Regions`.
        x: Elements in the pool's layout.
        sets: As in the call of the pool.

    Raises:
        TypeError: If the pool's reduction is another.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> from modalpool.losses import region_losses
        >>> pool, x = Pool("b c [h w]", "regions", channels=8, regions=3), torch.randn(2, 8, 5, 5)
        >>> losses = region_losses(pool, x)
        >>> (pool(x).square().mean() + losses.entropy + losses.balance).backward()
    """
    if not isinstance(pool.reduction, Regions):
        raise TypeError(f"pool: expected the reduction 'regions', got {type(pool.reduction).__name__}")
    arranged = pool.arrange(x, **sets)
    elements, here = arranged.elements, arranged.sets
    assignment = pool.reduction.assign(elements, here)
    count = here.count(elements).sum().clamp(min=1)
    entropy: Tensor = torch.special.entr(assignment)
    shares = here.sum(assignment).flatten(0, -2).sum(0) / count
    unequal: Tensor = torch.special.entr(shares)
    most = math.log(pool.reduction.regions)
    return RegionLosses(here.sum(entropy.sum(-1, keepdim=True)).sum() / count, most - unequal.sum())
