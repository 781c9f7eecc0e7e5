"""Reading a learned grid at positions."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["checked", "interpolate"]


def checked(coords: Tensor | None, axes: int, name: str) -> Tensor:
    """The coordinates of a call, checked.

    Raises:
        ValueError: If there are none, or not as many as ``axes``.
    """
    if coords is None:
        raise ValueError("coords: this reduction looks at positions; pass coords= (in [0, 1]) where sets come by index")
    if coords.shape[-1] != axes:
        raise ValueError(
            f"{name}: it has {axes} axes, but positions have {coords.shape[-1]} coordinates; make them agree"
        )
    return coords


def interpolate(grid: Tensor, coords: Tensor | None) -> Tensor:
    """Read a grid ``(g1, …, gn, F)`` at coordinates ``(E, n)`` in [0, 1] by multilinear interpolation: ``(E, F)``.

    Grid values sit at cell centres, (j + ½) / g, and continue as constants beyond the outermost ones, as in
    ``torch.nn.functional.interpolate(align_corners=False)``.

    Raises:
        ValueError: If there are no coordinates, or not as many as the grid has axes.
    """
    axes = grid.ndim - 1
    coords = checked(coords, axes, "grid")
    values = grid
    for axis in range(axes):
        size = grid.shape[axis]
        place = (coords[..., axis, None].to(grid.dtype) * size - 0.5).clamp(0, size - 1)
        hat = (1 - (place - torch.arange(size, device=grid.device)).abs()).clamp(min=0)  # (E, g)
        if axis == 0:
            values = (hat @ grid.flatten(1)).reshape(*hat.shape[:-1], *grid.shape[1:])  # (E, g2, …, F)
        else:
            values = (hat.reshape(*hat.shape, *[1] * (axes - axis)) * values).sum(hat.ndim - 1)
    return values
