"""Regions: several weighted means per set, over regions that are learned or the cells of a grid.

Legend: ``E`` element axes, ``K`` regions.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from modalpool.kernels import Segments
from modalpool.reductions.base import Average, Count, Partial, Reduction, State
from modalpool.reductions.options import positive
from modalpool.reductions.position import checked
from modalpool.reductions.scores import Scores
from modalpool.sets import RaggedSets, Sets

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


class Pyramid(_Assigned):
    """Pool the cells of grids of several resolutions, by the mean or another rule (He et al. 2015 take the maximum).

    Level l cuts each pooled axis into l parts; every element belongs to exactly one cell, the one its centre lies in,
    so cells tile any input size without gap or overlap. The K vectors are the cells of the levels in the order given,
    each level row by row. ``levels=[2]`` are the quadrants of an image, ``[[1, 3]]`` three columns.

    Positions are the cell centres of a dense input, the place within the set for ``lengths``, ``ptr`` and jagged
    tensors, or ``coords``. A cell without elements gives ``empty_value``.

    Args:
        levels: Parts per pooled axis, a number for all axes or a list with one each.
        rule: What pools a cell: a name, or a ready-made reduction with one vector per set.
        axes: Number of pooled axes; filled in by `Pool` (a level that is a list says it itself).

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> x = torch.arange(4.0).reshape(1, 1, 2, 2)
        >>> Pool("b c [h w]", "pyramid", levels=[1, 2])(x).flatten().tolist()
        [1.5, 0.0, 1.0, 2.0, 3.0]
    """

    positional = True

    def __init__(
        self,
        *,
        levels: Sequence[int | list[int]] = (1, 2, 4),
        rule: str | Reduction = "mean",
        axes: int | None = None,
    ) -> None:
        super().__init__()
        axes = next((len(level) for level in levels if not isinstance(level, int)), axes)
        if axes is None:
            raise ValueError("levels: a number of parts needs a known number of pooled axes; write [[2, 2]] for [2]")
        self.levels = [[level] * axes if isinstance(level, int) else list(level) for level in levels]
        if not self.levels or any(len(level) != axes or min(level) < 1 for level in self.levels):
            raise ValueError(f"levels: expected positive parts for each of {axes} pooled axes, got {list(levels)}")
        self.axes = axes
        self.vectors = sum(len(list(itertools.product(*map(range, level)))) for level in self.levels)
        self.rule = rule if isinstance(rule, str) else None
        self.inner: Reduction | None = None
        if rule != "mean":
            from modalpool.reductions import build  # which knows this file

            self.inner = build(rule, None, None) if isinstance(rule, str) else rule
            if self.inner.vectors is not None:
                raise ValueError(f"rule: a cell takes a rule with one vector per set, got {rule}")
            self.needs_whole, self.repeats = self.inner.needs_whole, self.inner.repeats
            self.state_size = 1 + self.inner.state_size

    def in_chunks(self, x: Tensor, sets: Sets) -> bool:
        """See `Reduction.in_chunks`; the sizes of cells belong to no channel."""
        return self.merges

    def out_channels(self, channels: int | None) -> int | None:
        return channels if self.inner is None else self.inner.out_channels(channels)

    def partial(self, x: Tensor, sets: Sets, count: Count, *, with_weights: bool = False) -> Partial:
        """See `Reduction.partial`; of another rule than the mean, the cells of a level are sets of their own.

        The state is then (number of elements, the rule's own), cell by cell.
        """
        if self.inner is None:
            return super().partial(x, sets, count, with_weights=with_weights)
        coords = checked(sets.coords, self.axes, "levels")
        each = sets.count(x).shape[:-1]
        home = sets.expand(torch.arange(math.prod(each), device=x.device).reshape(*each, 1)).squeeze(-1)
        flat, there, many = (
            None if given is None else given.expand(*x.shape[:-1], *given.shape[x.ndim - 1 :]).flatten(0, x.ndim - 2)
            for given in (x, sets.mask, sets.weight)
        )
        assert flat is not None
        states: list[State] = []
        weights: list[Tensor] = []
        for level in self.levels:
            cell, cells = home * 0, 1
            for axis, size in enumerate(level):
                cell = cell * size + (coords[..., axis] * size).floor().clamp(0, size - 1).long()
                cells *= size
            index = (home * cells + cell).expand(x.shape[:-1]).flatten()
            here = RaggedSets(Segments(math.prod(each) * cells, len(flat), index=index), mask=there, weight=many)
            own, weight = self.inner.partial(flat, here, Count.of(here, flat), with_weights=with_weights)
            states.append(tuple(part.reshape(*each, cells, *part.shape[1:]) for part in (here.count(flat), *own)))
            if weight is not None:
                weights.append(weight.reshape(*x.shape[:-1], 1, -1).expand(*x.shape[:-1], cells, -1))
        state = tuple(torch.cat(parts, len(each)) for parts in zip(*states, strict=True))
        if not with_weights:
            return state, None
        return state, torch.cat(weights, -2) * self.assign(x, sets)[..., None]

    def merge(self, a: State, b: State, m: Count, n: Count) -> State:
        if self.inner is None:
            return super().merge(a, b, m, n)
        return a[0] + b[0], *self.inner.merge(a[1:], b[1:], Count(lambda: a[0]), Count(lambda: b[0]))

    def finalize(self, state: State, count: Count) -> Tensor:
        if self.inner is None:
            return super().finalize(state, count)
        here = Count(lambda: state[0])
        return self.inner.project(self.inner.finalize(state[1:], here), here)

    def empty(self, z: Tensor, state: State, count: Count) -> Tensor | None:
        return super().empty(z, state, count) if self.inner is None else state[0] <= 0

    def option(self, name: str) -> Any:
        """See `Reduction.option`; the number of axes is one of the layout."""
        return {"rule": self.rule or self.inner, "axes": None}.get(name, super().option(name))

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
