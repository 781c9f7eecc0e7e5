"""Maps to hold ours against, for any task: Grad-CAM, the pool's weights alone, position alone, random numbers."""

import importlib.util
import itertools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from modalpool.reductions import Mean, SizeLaw, Sum
from tasks.task.base import PoolingTask


class _Readout(nn.Module):
    """From features with the channels second to what speaks for each sample's target; ``features`` is what captum sees.

    Args:
        task: The task whose pool and head are used.
        sets: The pool's keyword arguments.
        channel: Where the channels belong in the pool's layout.
        ragged: Whether the one sample's elements come without the batch axis that captum needs.
        signs: ``(B,)``, what the output is multiplied by.
    """

    def __init__(self, task: PoolingTask, sets: dict[str, Any], *, channel: int, ragged: bool, signs: Tensor):
        super().__init__()
        self.features = nn.Identity()
        self.pool, self.head = task.pool, task.readout(sets)
        self.sets, self.channel, self.ragged, self.signs = sets, channel, ragged, signs

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        x = x.squeeze(0).movedim(0, self.channel) if self.ragged else x.movedim(1, self.channel)
        return self.head(self.pool(x, **self.sets)) * self.signs[:, None]


def grad_cam(task: PoolingTask, batch: Any) -> list[Tensor] | None:
    """Grad-CAM (Selvaraju et al. 2017) of the features that are pooled, by captum, for each sample's target.

    Returns:
        Maps as `PoolingTask.sample_maps`, zero or positive; None if captum is not installed.
    """
    if importlib.util.find_spec("captum") is None:
        return None
    from captum.attr import LayerGradCam

    with torch.no_grad():
        x, sets = task.encode(batch)
    outputs, signs = task.explained(batch)
    axes = task.pool.layout.axes(x.ndim)

    def of(x: Tensor, sets: dict[str, Any], outputs: Tensor, signs: Tensor) -> Tensor:
        readout = _Readout(task, sets, channel=axes.channel, ragged=axes.ragged, signs=signs)
        x = x.movedim(axes.channel, 0)[None] if axes.ragged else x.movedim(axes.channel, 1)
        with torch.enable_grad():
            cam = LayerGradCam(readout, readout.features).attribute(
                x.detach().clone().requires_grad_(), target=outputs, relu_attributions=True
            )
        elements: Tensor = cam[:, 0].detach()
        return elements  # (B, elements)

    if not axes.ragged:
        return task.to_inputs(of(x, sets, outputs, signs), batch)
    maps = torch.zeros(x.shape[0], device=x.device, dtype=x.dtype)
    for i, (output, sign) in enumerate(zip(outputs, signs, strict=True)):  # captum sees one sample as one batch element
        own = sets["index"] == i
        one = {name: given[own] for name, given in sets.items() if name in ("mask", "weight", "coords")}
        one |= {"index": torch.zeros_like(sets["index"][own]), "dim_size": 1}
        maps[own] = of(x[own], one, output[None], sign[None])[0]
    return task.to_inputs(maps, batch)


def pool_weights(task: PoolingTask, batch: Any) -> list[Tensor] | None:
    """The pool's weights without the head, averaged over vectors, heads and channels: where an attention looks.

    Returns:
        Maps as `PoolingTask.sample_maps`; None for rules that weigh all elements of a set alike.
    """
    if isinstance(task.pool.reduction, Mean | Sum | SizeLaw):
        return None
    with torch.no_grad():
        x, sets = task.encode(batch)
        _, weights = task.pool(x, **sets, return_weights=True)
    axes = task.pool.layout.axes(x.ndim)
    if task.pool.vectors is not None:
        weights = weights.mean(0 if axes.batch is None else axes.batch + 1)
    weights = weights.mean(axes.channel)
    shape = [size for axis, size in enumerate(x.shape) if axis != axes.channel]
    return task.to_inputs(weights.expand(shape), batch)


def mean_truth(truths: Iterable[list[Tensor]]) -> Tensor | None:
    """Where training samples have their truth on average: all that position knows, one map for every sample.

    Args:
        truths: Batches of truths (`PoolingTask.truth`); those without a true element are left out.

    Returns:
        The share of samples in which an element is true; None where samples are not of one shape, as graphs, or none
        has a truth.
    """
    total: Tensor | None = None
    count = 0
    for truth in itertools.chain.from_iterable(truths):
        if total is not None and total.shape != truth.shape:
            return None
        total = truth.float() if total is None else total + truth
        count += int(truth.any())
    return total / count if total is not None and count else None


def random_maps(like: list[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Normal random numbers in the shapes of other maps, to see what chance does."""
    return [torch.randn(one.shape, generator=generator).to(one.device) for one in like]
