"""Regions: several weighted means per set, over regions that are learned or the cells of a grid.

Legend: ``E`` element axes, ``K`` regions.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from modalpool.reductions.base import Average, Count, State
from modalpool.reductions.options import positive, repr_options
from modalpool.reductions.position import checked
from modalpool.reductions.scores import Scores
from modalpool.sets import Sets

__all__ = ["Pyramid", "Regions"]


class _Assigned(Average):
    """A mean over each of K regions, given how much of each element belongs to each region."""

    exact_zeros = True

    @abstractmethod
    def assign(self, x: Tensor, sets: Sets) -> Tensor:
        """How much of each element belongs to each region, ``(E, K)``, any shape that broadcasts to it."""

    def weigh(self, x: Tensor, sets: Sets, count: Count) -> tuple[Tensor, Tensor]:
        """See `Average.weigh`; the mass of a region is what is assigned to it."""
        share = self.assign(x, sets)
        if sets.many is not None:
            share = sets.multiply(sets.clean(share.expand(*x.shape[:-1], share.shape[-1])))
        mass = sets.tally(share)  # without a mask the cells are the same for all sets
        weight = share / sets.expand(torch.where(mass > 0, mass, 1.0))
        mass = mass.expand(*sets.count(x).shape[:-1], -1)
        return weight[..., None].expand(*x.shape[:-1], -1, -1), torch.where(
            mass <= 0,
            -torch.inf,
            torch.where(mass <= 0, 1.0, mass).log(),  # nan is not nothing
        )[..., None]

    def empty(self, z: Tensor, state: State, count: Count) -> Tensor | None:
        """See `Reduction.empty`: regions to which nothing belongs, those of an empty set among them."""
        return state[0] < -1e29


class Regions(_Assigned):
    """Assign every element to K regions and average each region.

    ``a = softmax over the regions of score(x, position)`` for each element, so that the K maps sum to one everywhere,
    and ``z_k = Σ a_ik x_i / Σ a_ik``. On a graph this is DiffPool's assignment (Ying et al. 2018, eq. 3), normalised.

    Nothing keeps the regions apart by itself: add the `modalpool.losses.region_losses` to the objective.

    Args:
        channels: C, channels of an element.
        regions: K.
        score: Content score, as in `Attention`: "linear", "mlp", "gated" or "none".
        score_channels: Hidden channels of the "mlp" and "gated" scores.
        grid: Size of a learned grid of position scores along each pooled axis; None = no position score.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> pool = Pool("b c [h w]", "regions", channels=8, regions=3)
        >>> pool(torch.randn(2, 8, 5, 5)).shape
        torch.Size([2, 3, 8])
    """

    def __init__(
        self,
        *,
        channels: int,
        regions: int = 4,
        score: str = "linear",
        score_channels: int = 128,
        grid: list[int] | None = None,
    ) -> None:
        super().__init__()
        positive(regions=regions)
        self.channels, self.regions, self.vectors = channels, regions, regions
        self.score, self.score_channels, self.grid = score, score_channels, grid
        self.positional = grid is not None
        self.scores = Scores(channels, regions, score=score, score_channels=score_channels, grid=grid, bias=True)

    def assign(self, x: Tensor, sets: Sets) -> Tensor:
        """The K maps, summing to one for every element."""
        scores: Tensor = self.scores(x, sets)
        return scores.movedim(-1, 0).softmax(0).movedim(0, -1)  # along a short last axis torch is ten times slower

    def extra_repr(self) -> str:
        """The options that are not the default."""
        shown = repr_options(self, score="linear", score_channels=128, grid=None)
        return f"channels={self.channels}, regions={self.regions}" + (f", {shown}" if shown else "")


class Pyramid(_Assigned):
    """Average over the cells of grids of several resolutions (He et al. 2015, spatial pyramid pooling).

    Level l cuts each pooled axis into l parts; every element belongs to exactly one cell, the one its centre lies in,
    so cells tile any input size without gap or overlap. The K vectors are the cells of the levels in the order given,
    each level row by row. ``levels=[2]`` are the quadrants of an image, ``[[1, 3]]`` three columns.

    Positions are the cell centres of a dense input, the place within the set for ``lengths``, ``ptr`` and jagged
    tensors, or ``coords``. A cell without elements gives ``empty_value``.

    Args:
        levels: Parts per pooled axis, a number for all axes or a list with one each.
        axes: Number of pooled axes; filled in by `Pool` (a level that is a list says it itself).

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> x = torch.arange(4.0).reshape(1, 1, 2, 2)
        >>> Pool("b c [h w]", "pyramid", levels=[1, 2])(x).flatten().tolist()
        [1.5, 0.0, 1.0, 2.0, 3.0]
    """

    positional = True

    def __init__(self, *, levels: Sequence[int | list[int]] = (1, 2, 4), axes: int | None = None) -> None:
        super().__init__()
        axes = next((len(level) for level in levels if not isinstance(level, int)), axes)
        if axes is None:
            raise ValueError("levels: a number of parts needs a known number of pooled axes; write [[2, 2]] for [2]")
        self.levels = [[level] * axes if isinstance(level, int) else list(level) for level in levels]
        if not self.levels or any(len(level) != axes or min(level) < 1 for level in self.levels):
            raise ValueError(f"levels: expected positive parts for each of {axes} pooled axes, got {list(levels)}")
        self.axes = axes
        self.vectors = sum(len(list(itertools.product(*map(range, level)))) for level in self.levels)

    def assign(self, x: Tensor, sets: Sets) -> Tensor:
        """One where an element lies in a cell."""
        coords = checked(sets.coords, self.axes, "levels")
        cells = []
        for level in self.levels:
            cell = torch.ones_like(coords[..., :1])
            for axis, size in enumerate(level):
                place = (coords[..., axis, None] * size).floor().clamp(0, size - 1)
                inside = (place == torch.arange(size, device=coords.device)).to(coords.dtype)  # (E, size)
                cell = (cell[..., None] * inside[..., None, :]).flatten(-2)
            cells.append(cell)
        return torch.cat(cells, dim=-1)

    def extra_repr(self) -> str:
        """The levels."""
        return f"levels={self.levels}"
