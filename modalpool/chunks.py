"""A reduction of many elements, some at a time: memory for a chunk, whatever the rule.

A rule says what some elements of every set contribute, and how contributions merge (`modalpool.reductions.base`). So a
large input is cut into chunks that fit into the cache: some sets at a time or, of a set that is larger, some elements
(some channels, for a rule that needs them all). The backward pass works a chunk out again and writes its share of the
one gradient. Nothing else is as large as the input.

The definition stays what it was: compilers, exporters and transforms see the rule applied to everything at once, and so
does whoever differentiates the gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor
from torch.func import functional_call

from modalpool.kernels import Segments, eager, tuning
from modalpool.kernels.second_order import Fast, Grads, Saved, vector_product
from modalpool.reductions.base import Count, Reduction, State
from modalpool.sets import DenseSets, RaggedSets, Sets

__all__ = ["Chunk", "cut", "state_of"]


@dataclass(frozen=True)
class Chunk:
    """Some sets, or some elements of one set, or some channels of it."""

    sets: Sets
    at: tuple[slice, ...]  # the elements, on the element axes
    whose: tuple[slice, ...]  # the sets, on the set axes
    goes_on: bool = False  # with the last set of the chunk before
    channels: slice = field(default_factory=partial(slice, None))
    rows: Tensor | None = None  # which elements, where they are not in set order

    def take(self, x: Tensor) -> Tensor:
        """The chunk's share of the elements ``(element axes, C)``."""
        x = x[..., self.channels]
        return x[self.at] if self.rows is None else x.index_select(0, self.rows)

    def put(self, out: Tensor, values: Tensor | None) -> None:
        """Write the chunk's share of ``(element axes, C)``."""
        if values is None:
            return
        out = out[..., self.channels]
        if self.rows is None:
            out[self.at] = values
        else:
            out.index_copy_(0, self.rows, values)

    def by_channels(self, size: int, limit: int, channels: int) -> list[Chunk]:
        """The same with some channels at a time, where its ``size`` is beyond a limit."""
        wide = channels if size <= limit else max(limit * channels // size, 1)
        return [replace(self, channels=slice(c, c + wide), goes_on=c > 0) for c in range(0, channels, wide)]


def cut(sets: Sets, x: Tensor, limit: int, *, whole: bool = False) -> list[Chunk]:
    """Cut sets into chunks of about ``limit`` values of ``x``; none where their bounds cannot be looked at.

    Where a set is larger than that some elements come at a time; ``whole``: all of them, some channels at a time.
    """
    return _cut_dense(sets, x, limit, whole) if isinstance(sets, DenseSets) else _cut_ragged(sets, x, limit, whole)


def _cut_dense(sets: DenseSets, x: Tensor, limit: int, whole: bool) -> list[Chunk]:
    """Some batch elements, or else some of the first pooled axis of one."""
    axis, long = sets.dims[0], x.shape[sets.dims[0]]
    rest = x[:1].numel()
    step = max(limit // max(rest, 1), 1)
    across = long if rest <= limit or whole else max(limit * long // rest, 1)
    chunks = []
    for first in range(0, x.shape[0], step):
        for low in range(0, long, across):
            inside = [slice(None)] * (axis - 1)
            at = (slice(first, first + step), *inside, slice(low, low + across))
            chunk = Chunk(_block(sets, at), at, at[:axis], low > 0)
            chunks += chunk.by_channels(rest, limit, x.shape[-1]) if whole else [chunk]
    return chunks


def _block(sets: DenseSets, at: tuple[slice, ...]) -> DenseSets:
    """The sets of a block of the element axes."""

    def take(given: Tensor | None) -> Tensor | None:  # sizes of one broadcast
        if given is None:
            return None
        return given[tuple(slice(None) if n == 1 else cut for n, cut in zip(given.shape, at, strict=False))]

    shape = torch.Size(len(range(n)[cut]) for n, cut in zip(sets.shape, at, strict=False)) + sets.shape[len(at) :]
    return DenseSets(
        shape,
        len(sets.dims),
        mask=None if sets.mask is None else sets.mask[at],
        weight=None if sets.weight is None else sets.weight[at],
        coords=lambda: take(sets.coords),
        axes=sets.axes,
    )


def _cut_ragged(sets: Sets, x: Tensor, limit: int, whole: bool) -> list[Chunk]:
    """Whole sets, or else some elements of one."""
    assert isinstance(sets, RaggedSets)
    segments = sets.segments
    if not x.is_cpu or segments.count == 0:
        return []
    ptr, lengths, order = segments.ptr, segments.lengths, segments.order
    rows = max(limit // max(x[0].numel(), 1), 1)
    steps = torch.arange(0, segments.count, rows)
    owner = (torch.searchsorted(ptr, steps, right=True) - 1).clamp(max=segments.size - 1)
    long = lengths[owner] > rows
    begin, end = ptr[owner], ptr[owner + 1]
    within = begin if whole else torch.where(long, steps, begin)
    cuts = torch.unique(torch.cat([within, begin[long], end[long], ptr[-1:]]))
    starts = (torch.searchsorted(ptr, cuts, right=True) - 1).tolist()  # the set each chunk begins in
    ends = (torch.searchsorted(ptr[1:], cuts, right=True) - 1).tolist()  # the last set that has ended by then
    bounds, chunks, done = cuts.tolist(), [], -1
    for k, (low, high) in enumerate(pairwise(bounds)):
        first, last = done + 1, max(ends[k + 1], starts[k])
        goes_on = starts[k] == done
        if goes_on:
            first = last = done
        elif starts[k] > ends[k + 1] and first < starts[k]:  # the first chunk of a long set, behind empty sets
            chunks.append(_stretch(sets, slice(low, low), slice(first, starts[k]), None))
            first = starts[k]
        chunk = _stretch(sets, slice(low, high), slice(first, last + 1), order, goes_on=goes_on)
        chunks += chunk.by_channels(high - low, rows, x.shape[-1]) if whole else [chunk]
        done = last
    if done + 1 < segments.size:
        behind = slice(segments.count, segments.count)
        chunks.append(_stretch(sets, behind, slice(done + 1, segments.size), None))
    return chunks


def _stretch(sets: RaggedSets, at: slice, whose: slice, order: Tensor | None, *, goes_on: bool = False) -> Chunk:
    """Elements ``at`` (in set order) of some sets."""
    ptr = sets.segments.ptr[whose.start : whose.stop + 1].clamp(at.start, at.stop) - at.start
    rows = None if order is None else order[at]

    def take(given: Tensor | None) -> Tensor | None:
        return None if given is None else given[at] if rows is None else given.index_select(0, rows)

    here = RaggedSets(
        Segments(whose.stop - whose.start, at.stop - at.start, ptr=ptr),
        mask=take(sets.mask),
        weight=take(sets.weight),
        coords=lambda: take(sets.coords),
    )
    return Chunk(here, (at,), (whose,), goes_on, rows=rows)


def state_of(reduction: Reduction, x: Tensor, sets: Sets, count: Count) -> State:
    """The state of ``reduction`` for elements ``(element axes, C)``, in chunks where they are many."""
    if x.numel() <= tuning.MANY or torch.compiler.is_compiling() or not reduction.in_chunks(x, sets):
        return reduction.partial(x, sets, count)[0]
    if not x.is_cpu or not eager(x) or sets.differentiable:
        return reduction.partial(x, sets, count)[0]
    merges = reduction.merges
    # What pools x several times over makes as much more of every value.
    chunks = cut(sets, x, tuning.RULE_CHUNK // reduction.repeats, whole=not merges)
    if len(chunks) < 2:
        return reduction.partial(x, sets, count)[0]
    found = _Partial(reduction, chunks, count)(x, *reduction.parameters())
    size = reduction.state_size
    states: list[tuple[State, Count]] = []
    for i, chunk in enumerate(chunks):
        state, own = found[i * size : (i + 1) * size], Count(partial(chunk.sets.count, x))
        if chunk.goes_on:
            before, number = states.pop()
            if merges:
                state, own = reduction.merge(before, state, number, own), number + own
            else:
                state = tuple(torch.cat(both, dim=-1) for both in zip(before, state, strict=True))
        states.append((state, own))
    return tuple(torch.cat(tensors) for tensors in zip(*[state for state, _ in states], strict=True))


class _Partial(Fast):
    """The states of all chunks, one after the other, of elements and the parameters of the rule."""

    recalls = False  # states are small beside a chunk, and many

    def __init__(self, reduction: Reduction, chunks: Sequence[Chunk], count: Count) -> None:
        self.reduction, self.chunks, self.count = reduction, chunks, count
        self.names = [name for name, _ in reduction.named_parameters()]

    def _state(self, chunk: Chunk, x: Tensor, parameters: Sequence[Tensor]) -> State:
        call = dict(zip(self.names, parameters, strict=True))
        found: State = functional_call(self.reduction, call, (x, chunk.sets, self.count[chunk.whose]))
        return found

    def again(self, x: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        return tuple(t for chunk in self.chunks for t in self._state(chunk, chunk.take(x), parameters))

    def forward(self, x: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        states = (
            self.reduction.partial(chunk.take(x), chunk.sets, self.count[chunk.whose])[0] for chunk in self.chunks
        )
        return tuple(tensor for state in states for tensor in state)

    def backward(self, saved: Saved, grads: Grads, wanted: Sequence[bool]) -> Grads:
        x, *parameters = saved
        size = self.reduction.state_size
        out = torch.zeros_like(x) if wanted[0] else None
        totals: list[Tensor | None] = [None] * len(parameters)
        for i, chunk in enumerate(self.chunks):
            slopes = grads[i * size : (i + 1) * size]
            if all(slope is None for slope in slopes):
                continue
            here = chunk.take(x).detach()
            if out is not None:
                here.requires_grad_()
            state = lambda x, *all, chunk=chunk: self._state(chunk, x, all)  # noqa: E731
            found = vector_product(state, [here, *parameters], slopes)
            if out is not None:
                chunk.put(out, found[0])
            totals = [_add(total, new) for total, new in zip(totals, found[1:], strict=True)]
        return out, *totals


def _add(total: Tensor | None, new: Tensor | None) -> Tensor | None:
    if total is None or new is None:
        return total if new is None else new
    return total + new
