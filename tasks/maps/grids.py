"""From a network's cells to its input's elements and back, in 1, 2, 3 or more dimensions."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


def upsample(
    maps: Tensor,
    size: Sequence[int],
    *,
    stride: float | Sequence[float] | None = None,
    first: float | Sequence[float] | None = None,
    totals: bool = False,
    inside: Tensor | None = None,
) -> Tensor:
    """Interpolate maps linearly from a network's cells to its input's elements.

    Args:
        maps: ``(*, grid)``, the last ``len(size)`` axes are the grid; anything before them.
        size: Elements of the input along each axis.
        stride: Elements from cell to cell, one number or one an axis; by default the cells tile the input.
        first: Position of the centre of cell 0 in elements: cell j is centred on ``first + stride * j``. By default
            ``(stride - 1) / 2``, the middle of the cell's own elements (``align_corners=False``).
        totals: Whether each cell's value is shared out, so that the sum over the input's elements is exactly the sum
            over the cells; otherwise values are kept and the sum grows. A cell whose elements all lie beyond the input
            is lost.
        inside: Elements that take a share, bool, ``(*, size)``; with ``totals``. The others get 0, and a cell all of
            whose elements are others is lost.

    Returns:
        ``(*, size)``. Beyond the outermost centres the outermost cells go on.

    Raises:
        ValueError: If there are fewer axes than sizes.

    Example:
        >>> upsample(torch.tensor([0.0, 4.0]), [4])
        tensor([0., 1., 3., 4.])
        >>> upsample(torch.tensor([0.0, 4.0]), [4], totals=True)
        tensor([0.0000, 0.5000, 1.5000, 2.0000])
        >>> upsample(torch.tensor([0.0, 4.0]), [4], totals=True, inside=torch.tensor([True, True, True, False]))
        tensor([0., 1., 3., 0.])
    """
    if maps.ndim < len(size):
        raise ValueError(f"maps: expected at least the {len(size)} axes of size={tuple(size)}, got {tuple(maps.shape)}")
    grid = maps.shape[maps.ndim - len(size) :]
    axes = [_axis(*one, stride, first, place) for place, one in enumerate(zip(grid, size, strict=True))]
    if totals:
        given = torch.ones(tuple(size)) if inside is None else inside
        given = _collect(given.to(maps.device, torch.float64), axes)
        maps = maps * torch.where(given > 0, 1 / given, 0.0).to(maps)
    for place, axis in enumerate(axes, start=maps.ndim - len(size)):
        low, high, share = axis.low.to(maps.device), axis.high.to(maps.device), axis.share.to(maps)
        maps = maps.movedim(place, -1)
        maps = (maps.index_select(-1, low) * (1 - share)).addcmul_(maps.index_select(-1, high), share)
        maps = maps.movedim(-1, place)
    return maps if inside is None else maps * inside


def coarsen(
    values: Tensor,
    cells: Sequence[int],
    *,
    stride: float | Sequence[float],
    first: float | Sequence[float],
) -> Tensor:
    """The mean over the elements that are nearer to a cell's centre than to any other's.

    Args:
        values: ``(*, size)``, of the input's elements.
        cells: Cells along each of the last axes.
        stride: See `upsample`.
        first: See `upsample`.

    Returns:
        ``(*, grid)``; 0 for a cell that has no elements.

    Example:
        >>> coarsen(torch.tensor([1.0, 0.0, 1.0, 1.0]), [2], stride=2, first=0.5)
        tensor([0.5000, 1.0000])
    """
    for place, count in enumerate(cells):
        along = values.ndim - len(cells) + place
        step, start = _at(stride, place), _at(first, place)
        where = ((torch.arange(values.shape[along], dtype=torch.float64) - start) / step).round().long()
        where = where.clamp(0, count - 1).to(values.device)
        shape = list(values.shape)
        shape[along] = count
        number = where.bincount(minlength=count).clamp(min=1).to(values)
        number = number.view(-1, *[1] * (values.ndim - 1 - along))
        values = values.new_zeros(shape).index_add_(along, where, values) / number
    return values


class _Axis(NamedTuple):
    """Of each element the cells on both sides of it, and its share of the second."""

    low: Tensor
    high: Tensor
    share: Tensor
    cells: int


def _axis(
    cells: int,
    wanted: int,
    stride: float | Sequence[float] | None,
    first: float | Sequence[float] | None,
    place: int,
) -> _Axis:
    step = wanted / cells if stride is None else _at(stride, place)
    start = (step - 1) / 2 if first is None else _at(first, place)
    where = ((torch.arange(wanted, dtype=torch.float64) - start) / step).clamp(0, cells - 1)
    low = where.floor().long().clamp(max=max(cells - 2, 0))
    return _Axis(low, (low + 1).clamp(max=cells - 1), where - low, cells)


def _collect(given: Tensor, axes: Sequence[_Axis]) -> Tensor:
    """What each cell has of its elements when these are interpolated from it: the transpose of interpolation."""
    for place, axis in enumerate(axes, start=given.ndim - len(axes)):
        moved, shares = given.movedim(place, -1), axis.share.to(given)
        out = moved.new_zeros(*moved.shape[:-1], axis.cells)
        out.index_add_(-1, axis.low.to(given.device), moved * (1 - shares))
        out.index_add_(-1, axis.high.to(given.device), moved * shares)
        given = out.movedim(-1, place)
    return given


def _at(value: float | Sequence[float], place: int) -> float:
    """One number for all axes, or the number of one axis."""
    return value if isinstance(value, int | float) else value[place]
