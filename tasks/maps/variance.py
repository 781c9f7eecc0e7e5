"""How the pooled feature of a trained task varies with the number of elements, beside what a mean's would."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tasks.data.problems import BadInput
from tasks.maps.diagnostics import pooled_variance
from tasks.maps.probes import at_pool, sets_pooled
from tasks.task.base import PoolingTask
from tasks.task.flatten import Flatten

Row = dict[str, Any]
_SIZES = (1, 4, 16, 64, 256)
_DRAWS = 1024  # for a variance, as many from each set
_KEPT = 16  # sets of a sample at most, where the pool keeps an axis


def variance_rows(task: PoolingTask, batches: list[Any]) -> tuple[list[Row], float]:
    """The variance of the pooled feature against N, in units of one element's, and the intra-set correlation ρ.

    Of two elements that are drawn from one set ρ is the correlation: the variance of the sets' means, as a share of the
    variance of all elements, sets weighing alike. For the mean of N elements drawn with replacement the variance is
    ρ + (1 - ρ) / N; for elements of any sets it is 1 / N.

    Args:
        task: The task.
        batches: Batches of one sample.

    Returns:
        A row for each N: ``apart`` and ``together`` are the closed forms for a mean; ``normal apart`` and ``normal
        together`` are measured on normal numbers that correlate by 0 and by ρ; ``apart`` and ``together`` with
        ``features`` on the trained features of any sets, and of one set.

    Raises:
        BadInput: If the task does not pool, or its features are all the same.
    """
    if isinstance(task.pool.reduction, Flatten):
        raise BadInput("diagnose: expected a task that pools, got one that flattens; take another checkpoint")
    generator = torch.Generator().manual_seed(0)
    sets, ndim = _sets(task, batches)
    means = torch.stack([one.mean(0) for one in sets])
    between = float(means.var(0, correction=0).mean())
    within = float(torch.stack([one.var(0, correction=0) for one in sets]).mean())
    total = between + within
    if not total > 0:
        raise BadInput(
            "diagnose: expected features that differ between elements, got the same everywhere: the network has not "
            "learned anything; train it longer, or take another checkpoint"
        )
    correlation = between / total
    pool, channels = sets_pooled(task, ndim), sets[0].shape[1]

    def drawn(size: int, *, apart: bool) -> float:
        home = torch.arange(len(sets)).repeat_interleave(-(-_DRAWS // len(sets)))  # (draws,)
        place = torch.rand(len(home), size, generator=generator)
        if apart:  # each element of a draw from any set
            home = torch.randint(len(sets), (len(home), size), generator=generator)
        else:
            home = home[:, None].expand(-1, size)
        numbers = first[home] + (place * lengths[home]).long()
        z = pool(everything[numbers])
        return float(z.var(0, correction=0).mean()) / total

    lengths = torch.tensor([len(one) for one in sets])
    first, everything = lengths.cumsum(0) - lengths, torch.cat(sets)
    normal = partial(pooled_variance, pool, channels=channels, generator=generator)
    alone, alike = normal(_SIZES).tolist(), normal(_SIZES, correlation=correlation).tolist()
    return [
        {
            "N": size,
            "apart": 1 / size,
            "normal apart": alone[i],
            "features apart": drawn(size, apart=True),
            "together": correlation + (1 - correlation) / size,
            "normal together": alike[i],
            "features together": drawn(size, apart=False),
        }
        for i, size in enumerate(_SIZES)
    ], correlation


def _sets(task: PoolingTask, batches: list[Any]) -> tuple[list[Tensor], int]:
    """The features of each set, (n, C) on the CPU, and the number of axes of the task's features."""
    sets, ndim = [], 0
    for batch in batches:
        probe = at_pool(task, batch)
        ndim = probe.x.ndim - task.pool.layout.axes(probe.undo(probe.x).ndim).ragged
        each = probe.x.flatten(probe.pooled[0], probe.pooled[-1])  # (1, kept…, n, C)
        each = each.reshape(-1, *each.shape[-2:])
        sets += list(each[:: math.ceil(len(each) / _KEPT)].cpu())
    return sets, ndim
