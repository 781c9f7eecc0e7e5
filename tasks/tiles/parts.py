"""One input, encoded tile by tile: its pooled vectors, by merging what is known of each; its features, put together."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from modalpool import Pool
from modalpool.state import PoolState
from tasks.tiles.tiling import Tile


@dataclass(frozen=True)
class Parts:
    """An input in tiles, and how a tile is encoded.

    Example:
        >>> from torch import nn
        >>> from tasks.tiles import cut, field_of_view
        >>> net, x = nn.Conv1d(1, 4, 3, padding=1), torch.randn(1, 1, 100)
        >>> view = field_of_view(net, lambda net, x: net(x), (1, 1, 16), -1, largest=64)
        >>> parts = Parts(cut([100], [100], [30], [view]), lambda read: net(x[(..., *read)]), (100,))
        >>> pool = Pool("b c [t]", "std")
        >>> torch.allclose(parts.pooled(pool), pool(net(x)), atol=1e-6)
        True
    """

    tiles: Sequence[Tile]
    encode: Callable[[tuple[slice, ...]], Tensor]
    """From what a tile reads to features (B, C, …), whose last axes are those of the tiles."""
    cells: tuple[int, ...]
    """Cells of the whole along these axes."""
    sets: Mapping[str, Tensor] = field(default_factory=dict)
    """The pool's ``mask`` or ``weight`` of the whole, whose last axes are these, too."""

    def __iter__(self) -> Iterator[tuple[Tile, Tensor]]:
        """The tiles, each with the features of its own cells."""
        for tile in self.tiles:
            keep: Any = (..., *tile.keep)
            yield tile, self.encode(tile.read)[keep]

    def features(self) -> Tensor:
        """The features of the whole: as large as they are, but nothing that came before them is."""
        out: Tensor | None = None
        for tile, x in self:
            if out is None:
                out = x.new_empty(*x.shape[: x.ndim - len(self.cells)], *self.cells)
            at: Any = (..., *tile.at)
            out[at] = x
        assert out is not None
        return out

    def pooled(self, pool: Pool) -> Tensor:
        """What the pool makes of the whole.

        States of tiles merge (`modalpool.state`); along an axis that the pool keeps, vectors are put together. A rule
        that cannot do without the whole (`modalpool.reductions.base.Reduction.needs_whole`) gets its features.
        """
        if pool.reduction.needs_whole is not None:
            whole: Tensor = pool(self.features(), **self.sets)
            return whole
        states: dict[int, PoolState] = {}  # by where tiles begin along the kept axis, if one of theirs is kept
        place = 0
        for tile, x in self:
            axes = pool.layout.axes(x.ndim)
            first = x.ndim - len(tile.at)
            kept = [axis for axis in axes.kept if axis >= first]
            if len(kept) > 1:
                raise ValueError(
                    f"layout {pool.layout.text}: expected tiles along one axis that is kept, got {len(kept)}"
                )
            start = tile.at[kept[0] - first].start if kept else 0
            if kept:  # counted from the end, of what pooling leaves
                place = kept[0] - x.ndim + sum(axis > kept[0] for axis in axes.pooled)
            at: Any = (..., *tile.at)
            sets = {name: given[at] for name, given in self.sets.items()}
            if pool.reduction.positional:
                sets["coords"] = self._coords(x, tile, axes.pooled)
            states[start] = pool.update(states.get(start), x, **sets)
        vectors = [pool.finalize(states[start]) for start in sorted(states)]
        return vectors[0] if len(vectors) == 1 else torch.cat(vectors, place)

    def _coords(self, x: Tensor, tile: Tile, pooled: Sequence[int]) -> Tensor:
        """Where a tile's cells are in the whole, 0 to 1 along each pooled axis: (1, axes behind b and c, places)."""
        lines, first = [], x.ndim - len(tile.at)
        for axis in pooled:
            start, whole = (
                (tile.at[axis - first].start, self.cells[axis - first]) if axis >= first else (0, x.shape[axis])
            )
            line = (torch.arange(x.shape[axis], device=x.device) + start + 0.5) / whole
            lines.append(line.view(*(-1 if other == axis else 1 for other in range(1, x.ndim))))
        return torch.stack(torch.broadcast_tensors(*lines), -1)  # type: ignore[no-untyped-call]
