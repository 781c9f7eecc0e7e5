"""From what users pass (mask, weight, lengths, index, ptr, jagged tensors) to elements in canonical order and Sets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from modalpool.checks import (
    ends,
    holds,
    integers,
    largest,
    met_in,
    rises,
    sees_within,
    values,
    within,
    without_channel,
)
from modalpool.kernels import Segments
from modalpool.layout import Axes, Layout
from modalpool.padding import Lengths, coordinate_type, counts_of, fronts, places
from modalpool.sets import Coords, DenseSets, RaggedSets, Sets

__all__ = ["Arranged", "arrange"]


class Arranged(NamedTuple):
    """The elements of a call in canonical order, their sets, and the way back."""

    elements: Tensor
    sets: Sets
    axes: Axes
    shape: torch.Size  # of the input
    offsets: Tensor | None = None  # of a jagged input
    padded: bool = False  # a pooled axis of size zero was given one absent element

    def restore_elements(self, w: Tensor, *, vectors: bool) -> Tensor:
        """Element tensor to the layout of the input (jagged if the input was)."""
        w = self.axes.restore_elements(w, self.shape, vectors=vectors)
        if self.padded:
            first = len(w.shape) - len(self.axes.order)
            for axis in self.axes.pooled:
                w = w.narrow(axis + first, 0, self.shape[axis])
        if self.offsets is not None:
            at = self.axes.pooled[0] + vectors
            w = torch.nested.nested_tensor_from_jagged(w.movedim(at, 0), self.offsets)
            for axis in range(1, at + 1):  # jagged tensors have no movedim
                w = w.transpose(axis, axis + 1)
        return w


def arrange(
    layout: Layout,
    x: Tensor,
    *,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    lengths: Lengths | None = None,
    index: Tensor | None = None,
    ptr: Tensor | None = None,
    dim_size: int | None = None,
    coords: Tensor | None = None,
    batch: object = None,
    channels: int | None = None,
) -> Arranged:
    """Check the inputs of one call of `Pool`, whose arguments these are, and bring them into canonical order.

    ``batch`` is refused: what came without a name, or under PyG's. ``channels`` is C, if it was declared.

    Raises:
        TypeError: If a tensor has a type that cannot mean what its name says.
        ValueError: If shapes or values do not fit; the message says what was expected, what came and what to do.
    """
    if batch is not None:
        raise TypeError(
            "batch: what says which elements make a set goes by its name; write index= for the set of each element "
            "(PyG's batch vector), ptr= for bounds, lengths= or mask= for padding, weight= for multiplicities"
        )
    if not x.is_floating_point():
        raise TypeError(f"x: expected a floating-point tensor, got {x.dtype}; call x.float() first")
    if x.is_nested:
        given = {"lengths": lengths, "index": index, "ptr": ptr, "dim_size": dim_size}
        return _arrange_jagged(layout, x, mask, weight, given, coords, channels)
    axes = layout.axes(x.ndim)
    shape = x.shape
    if channels is not None and shape[axes.channel] != channels:
        raise ValueError(
            f"channels: declared {channels}, got x with shape {tuple(shape)}, whose axis c in {layout} has size "
            f"{shape[axes.channel]}; declare that, or check the order of the axes"
        )
    if axes.ragged:
        if lengths is not None:
            raise ValueError(f"lengths: layout {layout} has no batch axis; pass ptr= or index=")
    elif index is not None or ptr is not None or dim_size is not None:
        name = "index" if index is not None else "ptr" if ptr is not None else "dim_size"
        raise ValueError(f"{name}: layout {layout} has a batch axis b; leave b out, as in '[n] c'")

    padded = not axes.ragged and 0 in [shape[axis] for axis in axes.pooled]
    if padded:  # an empty axis has no maximum: give it one element that is not there
        longer = list(shape)
        for axis in axes.pooled:
            longer[axis] = max(longer[axis], 1)
        x, was = x.new_zeros(longer), x
        x = x + was.sum()  # keeps the graph connected
        mask, weight, coords = x.new_zeros(longer, dtype=torch.bool).select(axes.channel, 0), None, None
        lengths = None
    elements = x if axes.same else axes.canonical(x)

    there: Tensor | None = None
    many: Tensor | None = None
    shown: Tensor | None = None  # by the mask; an element of weight zero is not there, but it is shown
    counts: dict[int, Tensor] = {}
    if mask is not None:
        shown = _mask(mask, x, axes)
    if lengths is not None:
        counts = counts_of(layout, axes, x, lengths)
    if counts:
        valid = fronts(counts, x, axes)
        shown = valid if shown is None else shown & valid
    if weight is None:
        there = shown
    else:
        many = _weight(weight, x, axes, shown)
        there = many > 0
    place: Coords = None
    if coords is not None:
        place = _coords(coords, x, axes, shown, many)
    elif not axes.ragged:
        place = partial(places, elements, axes, counts)
    if axes.ragged:
        sets: Sets = _ragged_sets(elements, axes, shape, index, ptr, dim_size, shown, there, many, place)
    else:
        own = None if axes.straight else axes
        sets = DenseSets(elements.shape[:-1], len(axes.pooled), mask=there, weight=many, coords=place, axes=own)
    return Arranged(elements, sets, axes, shape, padded=padded)


def _mask(mask: Tensor, x: Tensor, axes: Axes) -> Tensor:
    """Which elements count, in canonical order."""
    if mask.dtype == torch.bool:
        return without_channel("mask", mask, x, axes)
    if mask.is_floating_point() or mask.is_complex():
        raise TypeError(
            f"mask: expected bool (True = the element counts) or integers 0 and 1, got {mask.dtype}; pass weights as "
            "weight=, or call mask.bool() if nonzero means that it counts"
        )
    given = without_channel("mask", mask, x, axes)
    if given.numel() and not within(mask, 2):
        raise ValueError(f"mask: expected bool or integers 0 and 1, got {ends(mask)}; pass mask > 0 or the like")
    return given != 0


def _weight(weight: Tensor, x: Tensor, axes: Axes, shown: Tensor | None) -> Tensor:
    """Multiplicities in canonical order, zero where the mask shows nothing."""
    if not weight.is_floating_point():
        raise TypeError(f"weight: expected non-negative floats, got {weight.dtype}; pass a bool tensor as mask=")
    many = without_channel("weight", weight, x, axes)
    many = many if shown is None else torch.where(shown, many, 0.0)
    seen = values(many)
    if seen is not None and not holds((seen >= 0).all()):
        raise ValueError(f"weight: expected numbers >= 0, got {seen.min().item()}; clamp or mask them")
    return many


def _coords(coords: Tensor, x: Tensor, axes: Axes, shown: Tensor | None, many: Tensor | None) -> Tensor:
    """User's coordinates, ``(mask's shape, n)``, in canonical order; anything finite where nothing is."""
    if not coords.is_floating_point() or coords.ndim != x.ndim:
        raise ValueError(
            f"coords: expected floats in [0, 1] shaped like the mask with one more axis for the coordinates "
            f"({x.ndim} axes), got {coords.dtype} with shape {tuple(coords.shape)}"
        )
    lines = [without_channel("coords", line, x, axes) for line in coords.unbind(-1)]
    place = torch.stack(lines, dim=-1)
    if many is not None:
        place = torch.where((many > 0)[..., None] | place.isfinite(), place, 0.5)
    return place if shown is None else torch.where(shown[..., None], place, 0.5)


def _ragged_sets(
    elements: Tensor,
    axes: Axes,
    shape: torch.Size,
    index: Tensor | None,
    ptr: Tensor | None,
    dim_size: int | None,
    shown: Tensor | None,
    there: Tensor | None,
    many: Tensor | None,
    coords: Coords,
) -> RaggedSets:
    """The sets of a layout without batch axis."""
    count = elements.shape[0]
    if index is not None and ptr is not None:
        raise ValueError("index/ptr: expected one of them, got both; ptr alone is enough")
    if ptr is not None:
        ptr = integers("ptr", ptr, 1)
        size = ptr.shape[0] - 1
        if dim_size is not None and dim_size != size:
            raise ValueError(f"dim_size: ptr of length {size + 1} describes {size} sets, got dim_size={dim_size}")
        segments = Segments(size, count, ptr=ptr)
        if not rises(segments):
            raise ValueError(f"ptr: expected to rise from 0 to the number of elements {count}, got {ptr.tolist()}")
        if coords is None and len(axes.pooled) == 1:  # ptr implies an order: the place within the set
            coords = partial(_ranks, segments, elements)
        return RaggedSets(segments, mask=there, weight=many, coords=coords)
    if index is None:
        if dim_size is not None and dim_size != 1:
            raise ValueError(f"dim_size: without index or ptr there is one set, got dim_size={dim_size}; pass index=")
        ptr = torch.arange(2, device=elements.device) * count
        return RaggedSets(Segments(1, count, ptr=ptr), mask=there, weight=many, coords=coords)
    index = integers("index", index, len(axes.pooled))
    one_each = tuple([shape[axis] for axis in axes.pooled])
    if index.shape != one_each:
        raise ValueError(f"index: expected one set per element, shape {one_each}, got {tuple(index.shape)}")
    index = index if index.ndim == 1 else index.flatten()
    seen, met = index, met_in(index)
    fits = count > 0 and sees_within(index, met, dim_size)
    if there is not None and count and not fits:  # what is hidden may say anything
        if shown is not None:
            seen = torch.where(_any(shown), index, 0)
            met = met_in(seen)
        if dim_size is None:
            dim_size = largest(seen, met) + 1
        seen, met = torch.where(_any(there), index, 0), None
        nearest = index.clamp(0, max(dim_size - 1, 0))  # which leaves their order as it is
        if many is not None:  # of no set: its weight has no slope
            many = torch.where((nearest == index).reshape(-1, *[1] * (many.ndim - 1)), many, 0.0)
        index = nearest
    if dim_size is None:  # the one place that has to ask the device
        dim_size = largest(seen, met) + 1 if count else 0
    if count and not (fits or sees_within(seen, met, dim_size) or within(seen, dim_size)):
        raise ValueError(f"index: expected values from 0 to {dim_size - 1} (dim_size={dim_size}), got {ends(seen)}")
    full = None if met is None else len(met) == dim_size
    return RaggedSets(Segments(dim_size, count, index=index, full=full), mask=there, weight=many, coords=coords)


def _any(there: Tensor) -> Tensor:
    """Whether an element is there at any kept position."""
    return there.flatten(1).any(1) if there.ndim > 1 else there


def _ranks(segments: Segments, elements: Tensor) -> Tensor:
    """The place of each element within its own set, as the centre of its cell, ``(N, 1…, 1)``."""
    index = segments.index
    rank = torch.arange(segments.count, device=index.device) - segments.ptr[:-1].index_select(0, index)
    place = (rank + 0.5) / segments.lengths.index_select(0, index)
    return place.to(coordinate_type(elements)).reshape(-1, *[1] * (elements.ndim - 1))


def _arrange_jagged(
    layout: Layout,
    x: Tensor,
    mask: Tensor | None,
    weight: Tensor | None,
    sets: Mapping[str, object],
    coords: Tensor | None,
    channels: int | None,
) -> Arranged:
    """A jagged tensor is its values with ptr = offsets; torch's own jagged reductions are not used (no backward)."""
    if x.layout != torch.jagged:
        raise ValueError("x: expected a nested tensor with layout=torch.jagged, got the strided kind; convert it first")
    if layout.ragged or layout.axes(x.ndim).batch != 0:
        raise ValueError(f"x: a jagged tensor needs a layout that starts with b, like 'b [n] c', got {layout}")
    given = [name for name, value in sets.items() if value is not None]
    if given:
        raise ValueError(f"{', '.join(given)}: a jagged tensor already knows its sets; leave it out")
    if x.lengths() is not None:  # type: ignore[attr-defined]  # the jagged subclass has it
        raise ValueError("x: expected a jagged tensor without holes, got one with lengths; call x.contiguous() first")

    def flat(given: Tensor | None) -> Tensor | None:
        return given.values() if given is not None and given.is_nested else given

    ragged_axis = x._ragged_idx - 1  # type: ignore[attr-defined]
    values, offsets = x.values(), x.offsets()  # type: ignore[attr-defined]
    inner = layout.without_batch()
    axes = inner.axes(values.ndim)
    if ragged_axis not in axes.pooled:
        raise ValueError(f"x: layout {layout} keeps the jagged axis {ragged_axis + 1}; it has to be pooled")
    if len(axes.pooled) > 1:
        raise ValueError(
            f"x: layout {layout} pools more than the jagged axis; pool the dense axes first or flatten them"
        )
    arranged = arrange(
        inner, values, mask=flat(mask), weight=flat(weight), ptr=offsets, coords=flat(coords), channels=channels
    )
    return arranged._replace(offsets=offsets)
