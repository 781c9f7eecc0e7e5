"""Which tiles an input is read in, and which cells each of them answers for."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from tasks.tiles.view import View


class Tile(NamedTuple):
    """A part of an input, with what its cells look at around it; a slice for each axis."""

    read: tuple[slice, ...]
    """Elements of the input."""
    keep: tuple[slice, ...]
    """Those of the cells that come of it which see in it all that they see in the whole."""
    at: tuple[slice, ...]
    """Where these are among the cells of the whole."""


def cut(sizes: Sequence[int], cells: Sequence[int], size: Sequence[int], views: Sequence[View]) -> list[Tile]:
    """Cut an input into tiles whose cells, put together, are those of the whole.

    Args:
        sizes: Elements of the input along each axis.
        cells: Cells of the whole along each.
        size: Elements of a tile along each, without what it reads around it; rounded to whole blocks.
        views: What the network sees along each.

    Returns:
        The tiles, the last axis first.

    Raises:
        ValueError: If a size is not positive.

    Example:
        >>> view = View(period=2, cells=1, before=2, after=1)
        >>> for tile in cut([10], [5], [4], [view]):
        ...     print(tile.read[0], tile.keep[0], tile.at[0])
        slice(0, 6, None) slice(0, 2, None) slice(0, 2, None)
        slice(2, 10, None) slice(1, 3, None) slice(2, 4, None)
        slice(6, 10, None) slice(1, 2, None) slice(4, 5, None)
    """
    along = [_cut(*one) for one in zip(sizes, cells, size, views, strict=True)]
    return [Tile(*(tuple(axis) for axis in zip(*parts, strict=True))) for parts in itertools.product(*along)]


def _cut(whole: int, cells: int, size: int, view: View) -> list[tuple[slice, slice, slice]]:
    if size < 1:
        raise ValueError(f"tile: expected a positive size, got {size}")
    blocks = max(size // view.period, 1)
    before, after = (math.ceil(reach / view.period) for reach in (view.before, view.after))
    begins = [block for block in range(0, math.ceil(whole / view.period), blocks) if block * view.cells < cells]
    found = []
    ends: list[int | None] = [*begins[1:], None]
    for begin, end in zip(begins, ends, strict=True):
        first = max(begin - before, 0)
        stop = whole if end is None else min((end + after) * view.period, whole)
        low, high = begin * view.cells, cells if end is None else end * view.cells
        moved = first * view.cells
        found.append((slice(first * view.period, stop), slice(low - moved, high - moved), slice(low, high)))
    return found
