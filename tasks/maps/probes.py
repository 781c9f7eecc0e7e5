"""A task as a function of elements, those of its pool or those of its input, and what is done to them."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tasks.maps.diagnostics import (
    checkerboard,
    cutmix_gap,
    laplacian_modes,
    mixup_gap,
    occlusion_response,
    response,
    shift_response,
    sinusoid,
)
from tasks.task.base import PoolingTask


class Probe(NamedTuple):
    """One sample's elements, and what the pool makes of any elements in their place."""

    x: Tensor
    """(1, kept axes…, pooled axes…, C)."""
    function: Callable[[Tensor], Tensor]
    """From such to the pooled vectors, (1, …)."""
    pooled: tuple[int, ...]
    """Which axes of ``x`` are pooled."""
    edges: Tensor | None
    """(2, E), where the elements are nodes of a graph."""
    undo: Callable[[Tensor], Tensor]
    """From ``x`` to the layout of the task."""

    @property
    def sizes(self) -> list[int]:
        """Sizes of the pooled axes."""
        return [self.x.shape[axis] for axis in self.pooled]

    def along(self, pattern: Tensor) -> Tensor:
        """Give a pattern on the pooled axes the axes of ``x``."""
        shape = [self.x.shape[axis] if axis in self.pooled else 1 for axis in range(self.x.ndim)]
        return pattern.reshape(shape).to(self.x.device)


def at_pool(task: PoolingTask, batch: Any) -> Probe:
    """The features of a batch of one sample that are pooled, and the pool; of a graph the nodes that stayed."""
    x, sets = task.encode(batch)
    edges = task.edges(batch)
    if edges is not None and "mask" in sets:
        stayed = sets["mask"]
        x, sets = x[stayed], {"index": sets["index"][stayed], "dim_size": sets["dim_size"]}
        edges = (stayed.cumsum(0) - 1)[edges[:, stayed[edges].all(0)]]
    return _probe(task, x, lambda features: task.pool(features, **sets), edges)


def through_network(task: PoolingTask, batch: Any) -> Probe | None:
    """The input of a batch of one sample, and the encoder with the pool; None if the task does not tell its input."""
    x = task.inputs(batch)
    if x is None:
        return None

    def function(inputs: Tensor) -> Tensor:
        features, sets = task.encode(task.with_inputs(batch, inputs))
        pooled: Tensor = task.pool(features, **sets)
        return pooled

    return _probe(task, x, function, task.edges(batch))


def _probe(task: PoolingTask, x: Tensor, function: Callable[[Tensor], Tensor], edges: Tensor | None) -> Probe:
    axes = task.pool.layout.axes(x.ndim)
    back = sorted(range(x.ndim), key=axes.order.__getitem__)

    def undo(z: Tensor) -> Tensor:
        return (z[0] if axes.ragged else z).permute(back)

    there = x.float().permute(axes.order)
    there = there[None] if axes.ragged else there
    first = there.ndim - 1 - len(axes.pooled)
    return Probe(there, lambda z: function(undo(z)), tuple(range(first, there.ndim - 1)), edges, undo)


def sets_pooled(task: PoolingTask, ndim: int) -> Callable[[Tensor], Tensor]:
    """The task's pool for sets of vectors, (S, N, C) to (S, …), along the first of its pooled axes.

    Args:
        task: The task.
        ndim: Number of axes of its features.
    """
    axes = task.pool.layout.axes(ndim)
    back = sorted(range(ndim), key=axes.order.__getitem__)

    def function(x: Tensor) -> Tensor:
        sets, size, channels = x.shape
        x = x.to(task.device)
        if axes.ragged:
            index = torch.arange(sets, device=x.device).repeat_interleave(size)
            z: Tensor = task.pool(x.flatten(0, 1).permute(back), index=index, dim_size=sets)
        else:
            x = x.reshape(sets, *[1] * len(axes.kept), size, *[1] * (len(axes.pooled) - 1), channels)
            z = task.pool(x.permute(back))
        return z.cpu()

    return function


def patterns(probe: Probe) -> Iterator[tuple[str, Tensor, float]]:
    """Patterns of amplitude one or rms one, each with its name and what a mean leaves of it, ``|mean(p)|``.

    On a grid: the checkerboard, and waves along the first pooled axis that has four elements for each of their
    periods. On a graph: the smoothest and the finest eigenvector of its Laplacian that are not constant, whose mean is
    zero.
    """
    if probe.edges is not None:
        frequency, modes = laplacian_modes(probe.edges.cpu(), probe.sizes[0])
        waves = modes[:, frequency > 1e-4] * math.sqrt(probe.sizes[0])
        if waves.shape[1]:
            yield "smoothest Laplacian mode", probe.along(waves[:, 0]), 0.0
            yield "finest Laplacian mode", probe.along(waves[:, -1]), 0.0
        return
    size = probe.sizes[0]
    left = 0.0 if any(side % 2 == 0 for side in probe.sizes) else 1 / math.prod(probe.sizes)
    yield "checkerboard", probe.along(checkerboard(probe.sizes)), left
    for cycles in (0.25, 1, 2):
        if size >= 4 * cycles:
            wave = sinusoid([size], [cycles]).reshape(-1, *[1] * (len(probe.sizes) - 1)).expand(probe.sizes)
            left = abs(math.sin(2 * math.pi * cycles) / (2 * size * math.sin(math.pi * cycles / size)))
            yield f"sinusoid, cycles {cycles:g}", probe.along(wave), left


def block(probe: Probe, generator: torch.Generator) -> Tensor:
    """Half of each pooled axis, somewhere: bool, for what is cut out or hidden."""
    mask = torch.ones(probe.sizes, dtype=torch.bool)
    for axis, size in enumerate(probe.sizes):
        length = max(1, size // 2)
        start = int(torch.randint(size - length + 1, (1,), generator=generator))
        line = torch.zeros(size, dtype=torch.bool)
        line[start : start + length] = True
        mask &= line.reshape([-1 if i == axis else 1 for i in range(len(probe.sizes))])
    return probe.along(mask)


def fitted(x: Tensor, like: Tensor) -> Tensor:
    """Cut or repeat the elements of one sample so that there are as many as in another, along every axis."""
    for axis, size in enumerate(like.shape):
        x = x.index_select(axis, torch.arange(size, device=x.device) % x.shape[axis])
    return x


class Measured(NamedTuple):
    """A number of one sample, and the same of a mean of all elements; both before division by the spread."""

    name: str
    value: float
    mean: float
    by_spread: bool = False


def perturb(probe: Probe, other: Probe, mask: Tensor, hidden: Callable[[], Tensor] | None = None) -> list[Measured]:
    """What perturbations do to one sample.

    Args:
        probe: The sample.
        other: A second one, to mix with.
        mask: The part that is cut from the second, or hidden (`block`).
        hidden: What is pooled when that part is hidden; unless given, its elements are set to zero.
    """
    x, function = probe.x, probe.function
    amplitude = float(x.std()) or 1.0
    constant = float(response(function, x, torch.ones_like(x), amplitude=amplitude))
    found = [Measured("constant", constant * amplitude, amplitude, True)]
    unit = constant if constant > 1e-6 else math.nan  # a pool or a norm may take the level out
    for name, pattern, left in patterns(probe):
        found.append(Measured(name, float(response(function, x, pattern, amplitude=amplitude)) / unit, left))

    partner = fitted(other.x, x)
    found.append(Measured("mixup", float(mixup_gap(function, x, partner)), 0.0))
    whole = [one.mean(probe.pooled, keepdim=True) for one in (x, partner)]
    share = float(mask.float().mean())
    inside = ((x - whole[0] - partner + whole[1]) * mask).mean(probe.pooled)
    cut = float(_rms(inside) / _rms(share * whole[0] + (1 - share) * whole[1]))
    found.append(Measured("cutmix", float(cutmix_gap(function, x, partner, mask=mask)), cut))

    axis, steps = probe.pooled[0], max(1, probe.sizes[0] // 4)
    if hidden is None or probe.edges is None:  # a network sees other edges when nodes alone are renumbered
        found.append(Measured("shift", float(shift_response(function, x, axis=axis, steps=steps)), 0.0, True))
    with torch.no_grad():
        change = occlusion_response(function, x, mask=mask) if hidden is None else _rms(hidden() - function(x))
    found.append(Measured("occlusion", float(change), float(_rms((x * mask).mean(probe.pooled))), True))
    return found


def _rms(z: Tensor) -> Tensor:
    return z.square().mean().sqrt()
