"""The elements of a batch's features and of its inputs, whatever the modality: which are there, whose, and hidden."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tasks.data.problems import BadInput
from tasks.pretrain.masks import balls, boxes, onto
from tasks.task.base import PoolingTask


class Sizes(NamedTuple):
    """What a task's encoder makes of its data, measured on a batch."""

    width: int
    """Numbers of a pooled vector."""
    features: int
    """Channels of the encoder's output."""
    inputs: int | None
    """Channels of its input; None where the task does not show it (`Modality.inputs`)."""
    cell: tuple[int, ...]
    """Elements of the input in an element of the features, along each axis; none where elements are in an index."""


@torch.no_grad()
def measure(task: PoolingTask, batch: Any) -> Sizes:
    """Encode and pool a batch, and look how large everything is."""
    was = task.training
    task.eval()
    x, sets = task.encode(batch)
    z = vectors(task, x, sets)
    given = task.inputs(batch)
    task.train(was)
    axes = task.pool.layout.axes(x.ndim)
    cell: tuple[int, ...] = ()
    if given is not None and axes.batch is not None:
        pairs = zip(_grid(task, given), _grid(task, x), strict=True)
        cell = tuple(math.ceil(size / cells) for size, cells in pairs)
    return Sizes(z.shape[1], x.shape[axes.channel], None if given is None else given.shape[axes.channel], cell)


def vectors(task: PoolingTask, x: Tensor, sets: dict[str, Any]) -> Tensor:
    """Pooled vectors, flat, (B, width)."""
    z: Tensor = task.pool(x, **sets)
    return z.flatten(1)


def rows(task: PoolingTask, x: Tensor, sets: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """The elements of features one below the other.

    Returns:
        Features (E, C), whether the pool counts each (bool, (E,)), and which sample each is of, (E,).
    """
    axes = task.pool.layout.axes(x.ndim)
    arranged = task.pool.arrange(x, **sets)
    there = x.new_ones(x.shape, dtype=torch.bool).select(axes.channel, 0)
    if arranged.sets.mask is not None:
        there = arranged.restore_elements(arranged.sets.mask[..., None], vectors=False).select(axes.channel, 0)
        there = there.expand(x.select(axes.channel, 0).shape)
    x = x.movedim(axes.channel, -1)
    if axes.batch is None:
        return x, there, sets["index"]
    at = axes.batch - (axes.channel < axes.batch)
    x, there = x.movedim(at, 0), there.movedim(at, 0)
    own = torch.arange(len(x), device=x.device).view(-1, *[1] * (there.ndim - 1)).expand(there.shape)
    return x.flatten(0, -2), there.flatten(), own.flatten()


class Hidden(NamedTuple):
    """A batch some of whose elements are hidden."""

    batch: Any
    mask: Tensor
    """Which elements are, on the coarse grid of the features, (B, *cells), or of the nodes, (N,)."""

    def rows(self, task: PoolingTask, x: Tensor) -> Tensor:
        """Which rows of the features `x` are hidden, bool, (E,): cells that the mask has no place for are not."""
        axes = task.pool.layout.axes(x.ndim)
        if axes.batch is None:
            return self.mask
        grid = _grid(task, x)
        full = self.mask.new_zeros(len(self.mask), *grid)
        common = tuple(slice(min(a, b)) for a, b in zip(grid, self.mask.shape[1:], strict=True))
        full[(slice(None), *common)] = self.mask[(slice(None), *common)]
        return full.flatten()


def hide(
    task: PoolingTask, batch: Any, token: Tensor, share: float, cell: Sequence[int], chance: float = 1.0
) -> Hidden:
    """Put a token in the place of a share of the elements: boxes of a grid, balls of a graph.

    Args:
        task: Whose batch it is.
        batch: The batch.
        token: What a hidden element shows, (channels of the input,).
        share: Of the elements of a sample.
        cell: `Sizes.cell`: what an element of the features does not see is hidden as a whole.
        chance: With which a sample has anything hidden.

    Raises:
        BadInput: If the task does not show its inputs.
    """
    given = task.inputs(batch)
    if given is None:
        raise BadInput(
            f"expected a task with `inputs` and `with_inputs`, so that elements can be hidden, got "
            f"{type(task).__name__} without; write them, or set --model.objective ntxent or --model.ibot 0"
        )
    axes = task.pool.layout.axes(given.ndim)
    if axes.batch is None:
        _, sets = _sets_of(task, batch)
        edges = task.edges(batch)
        index, count = sets["index"], sets["dim_size"]
        if edges is None:
            edges = index.new_zeros(2, 0)
        mask = balls(edges, index, count, share)
        mask = mask & (torch.rand(count, device=given.device) < chance)[index]
        shown = mask
    else:
        size = _grid(task, given)
        coarse = [math.ceil(whole / side) for whole, side in zip(size, cell, strict=True)]
        mask = boxes(given.shape[axes.batch], coarse, share, given.device)
        mask = mask & (torch.rand(len(mask), device=given.device) < chance).view(-1, *[1] * len(coarse))
        shown = onto(mask, size, cell).movedim(0, axes.batch - (axes.channel < axes.batch))
    shape = [-1 if axis == axes.channel else 1 for axis in range(given.ndim)]
    hidden = torch.where(shown.unsqueeze(axes.channel), token.to(given).view(shape), given)
    return Hidden(task.with_inputs(batch, hidden), mask)


def _sets_of(task: PoolingTask, batch: Any) -> tuple[Tensor, dict[str, Any]]:
    """Which element is in which graph, where PyG's batch says it; else by encoding."""
    if hasattr(batch, "batch") and hasattr(batch, "num_graphs"):
        return batch.batch, {"index": batch.batch, "dim_size": batch.num_graphs}
    with torch.no_grad():
        return task.encode(batch)


def _grid(task: PoolingTask, x: Tensor) -> list[int]:
    """Sizes of a dense tensor along the axes of its elements."""
    axes = task.pool.layout.axes(x.ndim)
    return [size for axis, size in enumerate(x.shape) if axis not in (axes.batch, axes.channel)]
