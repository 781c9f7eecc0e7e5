"""What made the logits of a batch: its signed maps, their sums, and what these miss."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from modalpool import Pool, contributions


class Evidence(NamedTuple):
    """What made the logits of a batch; in regression maps, sums and what is missing are in the target's units."""

    logits: Tensor
    """(B, outputs)."""
    maps: Tensor
    """Signed, the features' layout with the outputs where the channels were."""
    sums: Tensor
    """(B, outputs), a map's sum over a sample's elements."""
    missing: Tensor
    """(B, outputs): the logit, less what the head says of nothing, less the sum. Zero where maps are exact."""


def find_evidence(
    pool: Pool, head: Callable[[Tensor], Tensor], x: Tensor, sets: dict[str, Any], *, unit: Tensor | None = None
) -> Evidence:
    """Divide what a head says of pooled features among the elements.

    Args:
        pool: The pool.
        head: From pooled vectors to logits.
        x: Features in the pool's layout.
        sets: The pool's keyword arguments.
        unit: What each output's maps are multiplied by, (outputs,): in regression the targets' standard deviation.
    """
    logits, maps, missing = contributions(pool, head, x, return_gap=True, **sets)
    axes = pool.layout.axes(maps.ndim)
    if axes.batch is None:
        sums = torch.zeros_like(logits).index_add_(0, sets["index"], maps.to(logits.dtype))
    else:
        sums = maps.movedim((axes.batch, axes.channel), (0, 1)).flatten(2).sum(2)
    if unit is not None:
        maps = maps * unit.reshape([-1 if i == axes.channel else 1 for i in range(maps.ndim)])
        sums, missing = sums * unit, missing * unit
    return Evidence(logits, maps, sums, missing)


def choose_maps(pool: Pool, maps: Tensor, outputs: Tensor, sets: dict[str, Any]) -> Tensor:
    """Of each sample the map of one output.

    Args:
        pool: The pool.
        maps: `Evidence.maps`.
        outputs: The output of each sample, (B,).
        sets: The pool's keyword arguments.

    Returns:
        The maps' layout without channels; dense ones with the samples first.
    """
    axes = pool.layout.axes(maps.ndim)
    if axes.batch is None:  # every element looks its own sample up
        outputs, maps = outputs[sets["index"]], maps.movedim(axes.channel, -1)
    else:
        maps = maps.movedim((axes.batch, axes.channel), (0, -1))
    return maps.take_along_dim(outputs.view(-1, *[1] * (maps.ndim - 1)), -1).squeeze(-1)
