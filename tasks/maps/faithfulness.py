"""Whether a map says what the network does: curves of its output as elements vanish, and maps of unlearned weights.

These need no truth. *Deletion* hides elements from the largest value of the map downwards, *insertion* shows them in
that order on an empty input (Petsiuk et al. 2018). A map that finds what the network uses makes the output fall and
rise fast: a small area under the first curve, a large one under the second, compared with a random order.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

AnyModule = TypeVar("AnyModule", bound=nn.Module)

Score = Callable[[list[Tensor]], Tensor]
"""From which elements of each sample are hidden (bool) to the output in question, one number a sample."""

SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Shares of the elements at which the curves are read: finer at the front, where small causes vanish."""


def deletion(score: Score, maps: Sequence[Tensor], *, shares: Sequence[float] = SHARES, seed: int = 0) -> Tensor:
    """Read the output as elements are hidden, the most responsible first.

    Args:
        score: The output of the samples with these elements hidden.
        maps: A signed map for each sample; equal values are hidden in random order.
        shares: Shares of the elements that are hidden, rising from 0 to 1.
        seed: Seed of the order of equal values.

    Returns:
        ``(samples, shares)``.

    Example:
        >>> x = torch.tensor([3.0, 1.0, 2.0])
        >>> deletion(lambda hidden: torch.where(hidden[0], 0, x).sum()[None], [x], shares=(0.0, 1 / 3, 2 / 3, 1.0))
        tensor([[6., 3., 1., 0.]])
    """
    ranks = [_ranks(one, seed) for one in maps]
    return torch.stack([score([rank < round(share * rank.numel()) for rank in ranks]) for share in shares], 1)


def insertion(score: Score, maps: Sequence[Tensor], *, shares: Sequence[float] = SHARES, seed: int = 0) -> Tensor:
    """Read the output as elements are shown on an empty input, the most responsible first; see `deletion`."""
    ranks = [_ranks(one, seed) for one in maps]
    return torch.stack([score([rank >= round(share * rank.numel()) for rank in ranks]) for share in shares], 1)


def area(curves: Tensor, shares: Sequence[float] = SHARES) -> Tensor:
    """The area under each curve, ``(samples, shares)`` to ``(samples,)``: its mean over all shares, by trapezoids."""
    return torch.trapezoid(curves, torch.tensor(shares).to(curves), dim=1)


def _ranks(signed_map: Tensor, seed: int) -> Tensor:
    """The place of each element in descending order; equal values are shuffled."""
    flat = signed_map.detach().flatten()
    shuffled = torch.randperm(len(flat), generator=torch.Generator().manual_seed(seed)).to(flat.device)
    order = shuffled[flat[shuffled].argsort(descending=True, stable=True)]
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order), device=order.device)
    return ranks.reshape(signed_map.shape)


def randomised(module: AnyModule, seed: int = 0) -> AnyModule:
    """A copy with weights that have learned nothing: every layer starts anew, other parameters are shuffled.

    A map that barely changes when the weights go shows the input, not what was learned (Adebayo et al. 2018).
    """
    blank = copy.deepcopy(module)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        part: Any
        for part in blank.modules():
            if hasattr(part, "reset_parameters"):
                part.reset_parameters()
            else:
                for parameter in part.parameters(recurse=False):
                    parameter.copy_(parameter.flatten()[torch.randperm(parameter.numel())].reshape(parameter.shape))
    return blank


def similarity(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation of two maps; 0 if one of them is constant.

    Example:
        >>> similarity(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([[1.0], [4.0], [5.0]]).flatten())
        1.0
    """
    a, b = a.detach().flatten(), b.detach().flatten()
    if (a == a[0]).all() or (b == b[0]).all():
        return 0.0
    return float(spearmanr(a.double().cpu().numpy(), b.double().cpu().numpy()).statistic)
