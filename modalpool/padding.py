"""Sets that fill the front of an axis, or of several: how many elements count, which they are and where."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor

from modalpool.checks import ends, integers, within
from modalpool.layout import Axes, Layout

__all__ = ["Lengths", "coordinate_type", "counts_of", "fronts", "places"]

Lengths = Tensor | Mapping[str, Tensor]
"""How many elements count along the pooled axis, or along axes by name."""


def counts_of(layout: Layout, axes: Axes, x: Tensor, lengths: Lengths) -> dict[int, Tensor]:
    """The number of elements ``(B,)`` that count along each axis of the input that has one."""
    if not isinstance(lengths, Mapping):
        if len(axes.pooled) != 1:
            raise ValueError(
                f"lengths: expected one pooled axis, the layout has {len(axes.pooled)}; pass mask=, or lengths of "
                "axes by name, as in lengths={'t': ...}"
            )
        if max(axes.kept, default=0) > axes.pooled[0]:
            kept, pooled = layout.name(max(axes.kept), x.ndim), layout.name(axes.pooled[0], x.ndim)
            raise ValueError(
                f"lengths: layout {layout} keeps {kept} behind the pooled {pooled}, so it is not clear what they "
                f"count; write lengths={{{kept!r}: ...}} or lengths={{{pooled!r}: ...}}"
            )
        return {axes.pooled[0]: _count("lengths", axes.pooled[0], axes, x, lengths)}
    names = {layout.name(axis, x.ndim): axis for axis in sorted((*axes.kept, *axes.pooled))}
    for name in lengths:
        if name not in names:
            raise ValueError(f"lengths: layout {layout} has no position {name!r}; name one of {', '.join(names)}")
    return {names[name]: _count(f"lengths[{name!r}]", names[name], axes, x, n) for name, n in lengths.items()}


def _count(name: str, axis: int, axes: Axes, x: Tensor, given: Tensor) -> Tensor:
    """How many elements count along one axis, checked."""
    assert axes.batch is not None
    size, batch = x.shape[axis], x.shape[axes.batch]
    relative = "; relative lengths count after (lengths * T).round().long()" if given.is_floating_point() else ""
    given = integers(name, given, 1, relative)
    if given.shape[0] != batch:
        raise ValueError(f"{name}: expected one per batch element, {batch}, got {given.shape[0]}")
    if batch and not within(given, size + 1):
        raise ValueError(f"{name}: expected values from 0 to {size}, got {ends(given)}")
    return given


def _line(per_step: Tensor, axis: int, axes: Axes) -> Tensor:
    """Numbers ``(B or 1, size)`` of one axis, with all element axes in canonical order."""
    if not axes.kept and len(axes.pooled) == 1:
        return per_step
    rows, size = per_step.shape
    return per_step.reshape([rows if one == axes.batch else size if one == axis else 1 for one in axes.order[:-1]])


def fronts(counts: dict[int, Tensor], x: Tensor, axes: Axes) -> Tensor:
    """Which elements lie before the ends of all axes that have one, in canonical order."""
    fronts = [
        _line(torch.arange(x.shape[axis], device=x.device) < count[:, None], axis, axes)
        for axis, count in counts.items()
    ]
    return reduce(torch.logical_and, fronts).expand([x.shape[axis] for axis in axes.order[:-1]])


def coordinate_type(x: Tensor) -> torch.dtype:
    """Positions are never rounded to half precision."""
    return x.dtype if x.dtype == torch.float64 else torch.float32


def places(elements: Tensor, axes: Axes, counts: dict[int, Tensor]) -> Tensor:
    """Cell centres of the pooled axes in [0, 1] of what counts, broadcastable to the element axes, ``(…, n)``."""
    kind, device = coordinate_type(elements), elements.device
    lines = []
    for axis in axes.pooled:
        size = elements.shape[axes.order.index(axis)]
        steps = (torch.arange(size, device=device, dtype=kind) + 0.5)[None]
        length: Tensor | int = counts[axis].clamp(min=1)[:, None].to(kind) if axis in counts else size
        lines.append(_line(steps / length, axis, axes))
    return torch.stack(torch.broadcast_tensors(*lines), dim=-1)  # type: ignore[no-untyped-call]  # torch's own
