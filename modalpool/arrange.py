"""From what users pass (mask, weight, lengths, index, ptr, jagged tensors) to elements in canonical order and Sets.

Every check of an input is here, next to its one use. Checks of values (an index out of range, a negative weight) never
wait for a device: they are asynchronous assertions, which speak at once on a CPU and are left out of compiled graphs.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from modalpool.kernels import Segments, tuning
from modalpool.kernels.second_order import transformed
from modalpool.kernels.values import read
from modalpool.layout import Axes, Layout
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


def _holds(value: Tensor) -> bool:
    """Whether something about values is true, as far as can be told without waiting for a device."""
    if value.is_cpu:
        return bool(read(value))
    if value.is_cuda:
        torch._assert_async(value, "modalpool: a mask, weight, index, ptr or lengths is out of range")
    return True


def _plain(tensor: Tensor) -> bool:
    """Whether a look at the values costs nothing."""
    return type(tensor) is Tensor and tensor.is_cpu and not transformed()


def _within(index: Tensor, limit: int) -> bool:
    """Whether all numbers are from zero to below a limit."""
    if torch.compiler.is_compiling():
        return True
    least, most = index.aminmax()
    if _plain(index):
        return bool(read(least) >= 0 and read(most) < limit)
    return _holds((least >= 0) & (most < limit))


def _met(index: Tensor) -> list[int] | None:
    """The numbers that occur, in order; None where they are many, or where a look would be a wait."""
    if index.shape[0] > tuning.LISTED or torch.compiler.is_compiling() or not _plain(index):
        return None
    return sorted(set(index.tolist()))


def _rises(segments: Segments) -> bool:
    """Whether bounds rise from zero to the number of elements."""
    if torch.compiler.is_compiling():
        return True
    ptr, limit = segments.ptr, segments.count
    if _plain(ptr) and len(ptr) <= tuning.LISTED:
        bounds = ptr.tolist()
        return bounds[:1] == [0] and bounds[-1] == limit and bounds == sorted(bounds)
    return len(ptr) > 0 and _holds((ptr[0] == 0) & (ptr[-1] == limit) & (segments.lengths >= 0).all())


def _without_channel(name: str, given: Tensor, x: Tensor, axes: Axes) -> Tensor:
    """Expand a mask or weight to the shape of ``x`` without its channel axis, in canonical order."""
    shape = [size for axis, size in enumerate(x.shape) if axis != axes.channel]
    fits = given.ndim == len(shape) and all(a in (1, b) for a, b in zip(given.shape, shape, strict=True))
    if not fits:
        raise ValueError(
            f"{name}: expected the shape of the input without channels, {tuple(shape)} (sizes of 1 broadcast), "
            f"got {tuple(given.shape)}"
        )
    return axes.canonical_mask(given.expand(shape))


def _integers(name: str, given: Tensor, dims: int) -> Tensor:
    if given.dtype == torch.int64 and given.ndim == dims:
        return given
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool or given.ndim != dims:
        raise ValueError(
            f"{name}: expected integers with {dims} axis, got {given.dtype} with shape {tuple(given.shape)}"
        )
    return given.long()


def arrange(
    layout: Layout,
    x: Tensor,
    *,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    lengths: Tensor | None = None,
    index: Tensor | None = None,
    ptr: Tensor | None = None,
    dim_size: int | None = None,
    coords: Tensor | None = None,
) -> Arranged:
    """Check the inputs of one call and bring them into canonical order.

    Raises:
        TypeError: If a tensor has a type that cannot mean what its name says.
        ValueError: If shapes or values do not fit; the message says what was expected, what came and what to do.
    """
    if not x.is_floating_point():
        raise TypeError(f"x: expected a floating-point tensor, got {x.dtype}; call x.float() first")
    if x.is_nested:
        return _arrange_jagged(layout, x, mask, weight, lengths, index, ptr, dim_size, coords)
    axes = layout.axes(x.ndim)
    shape = x.shape
    if axes.ragged:
        if lengths is not None:
            raise ValueError(f"lengths: layout {layout} has no batch axis; pass ptr= or index=")
    elif index is not None or ptr is not None or dim_size is not None:
        raise ValueError(f"index/ptr/dim_size: layout {layout} has a batch axis b; leave b out, as in '[n] c'")

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
    if mask is not None or weight is not None:
        there, many = _mask_and_weight(x, axes, mask, weight)
    place: Coords = None if coords is None else _coords(coords, x, axes)
    if axes.ragged:
        sets: Sets = _ragged_sets(elements, axes, shape, index, ptr, dim_size, there, many, place)
    else:
        if lengths is not None:
            valid, own = _from_lengths(x, axes, lengths)
            there = valid if there is None else there & valid
            many = None if many is None else torch.where(valid, many, 0)
            place = own if place is None else place
        elif place is None:
            place = partial(_grid, elements, axes)
        shown = None if axes.straight else axes
        sets = DenseSets(elements.shape[:-1], len(axes.pooled), mask=there, weight=many, coords=place, axes=shown)
    return Arranged(elements, sets, axes, shape, padded=padded)


def _mask_and_weight(
    x: Tensor, axes: Axes, mask: Tensor | None, weight: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Hard mask and multiplicity in canonical order; an element of weight zero is masked."""
    there: Tensor | None = None
    if mask is not None:
        if mask.dtype != torch.bool:
            raise TypeError(
                f"mask: expected bool (True = the element counts), got {mask.dtype}; pass weights as weight="
            )
        there = _without_channel("mask", mask, x, axes)
    if weight is None:
        return there, None
    if not weight.is_floating_point():
        raise TypeError(f"weight: expected non-negative floats, got {weight.dtype}; pass a bool tensor as mask=")
    many = _without_channel("weight", weight, x, axes)
    many = many if there is None else torch.where(there, many, 0.0)
    if not torch.compiler.is_compiling() and not _holds((many >= 0).all()):
        raise ValueError(f"weight: expected numbers >= 0, got {many.min().item()}; clamp or mask them")
    return many > 0, many


def _from_lengths(x: Tensor, axes: Axes, lengths: Tensor) -> tuple[Tensor, Coords]:
    """Mask and coordinates of sets that fill the front of the one pooled axis."""
    if len(axes.pooled) != 1:
        raise ValueError(f"lengths: expected one pooled axis, the layout has {len(axes.pooled)}; pass mask=")
    assert axes.batch is not None
    lengths = _integers("lengths", lengths, 1)
    size, batch = x.shape[axes.pooled[0]], x.shape[axes.batch]
    if lengths.shape[0] != batch:
        raise ValueError(f"lengths: expected one per batch element, {batch}, got {lengths.shape[0]}")
    if batch and not _within(lengths, size + 1):
        raise ValueError(
            f"lengths: expected values from 0 to {size}, got {lengths.min().item()} to {lengths.max().item()}"
        )
    steps = torch.arange(size, device=x.device)
    valid = steps < lengths[:, None]  # (B, T)
    shape = (batch, *[1] * len(axes.kept), size)
    full = (batch, *(x.shape[axis] for axis in axes.kept), size)

    def place() -> Tensor:
        own = (steps + 0.5) / lengths.clamp(min=1)[:, None]
        return own.reshape(*shape, 1).to(_coordinate_type(x))

    return valid.reshape(shape).expand(full), place


def _coordinate_type(x: Tensor) -> torch.dtype:
    return x.dtype if x.dtype == torch.float64 else torch.float32


def _grid(elements: Tensor, axes: Axes) -> Tensor:
    """Cell centres of the pooled axes in [0, 1], broadcastable to the element axes, ``(1…, pooled…, n)``."""
    shape, dtype = elements.shape, _coordinate_type(elements)
    first = len(shape) - 1 - len(axes.pooled)
    lines = [(torch.arange(size, device=elements.device, dtype=dtype) + 0.5) / size for size in shape[first:-1]]
    grid = torch.stack(torch.meshgrid(*lines, indexing="ij"), dim=-1)
    return grid.reshape(*[1] * first, *grid.shape)


def _coords(coords: Tensor, x: Tensor, axes: Axes) -> Tensor:
    """User's coordinates, ``(mask's shape, n)``, in canonical order."""
    if not coords.is_floating_point() or coords.ndim != x.ndim:
        raise ValueError(
            f"coords: expected floats in [0, 1] shaped like the mask with one more axis for the coordinates "
            f"({x.ndim} axes), got {coords.dtype} with shape {tuple(coords.shape)}"
        )
    lines = [_without_channel("coords", line, x, axes) for line in coords.unbind(-1)]
    return torch.stack(lines, dim=-1)


def _ragged_sets(
    elements: Tensor,
    axes: Axes,
    shape: torch.Size,
    index: Tensor | None,
    ptr: Tensor | None,
    dim_size: int | None,
    there: Tensor | None,
    many: Tensor | None,
    coords: Coords,
) -> RaggedSets:
    """The sets of a layout without batch axis."""
    count = elements.shape[0]
    if index is not None and ptr is not None:
        raise ValueError("index/ptr: expected one of them, got both; ptr alone is enough")
    if ptr is not None:
        ptr = _integers("ptr", ptr, 1)
        size = ptr.shape[0] - 1
        if dim_size is not None and dim_size != size:
            raise ValueError(f"dim_size: ptr of length {size + 1} describes {size} sets, got dim_size={dim_size}")
        segments = Segments(size, count, ptr=ptr)
        if not _rises(segments):
            raise ValueError(f"ptr: expected to rise from 0 to the number of elements {count}, got {ptr.tolist()}")
        if coords is None and len(axes.pooled) == 1:  # ptr implies an order: the place within the set
            coords = partial(_ranks, segments, elements)
        return RaggedSets(segments, mask=there, weight=many, coords=coords)
    if index is None:
        if dim_size is not None and dim_size != 1:
            raise ValueError(f"dim_size: without index or ptr there is one set, got dim_size={dim_size}; pass index=")
        ptr = torch.arange(2, device=elements.device) * count
        return RaggedSets(Segments(1, count, ptr=ptr), mask=there, weight=many, coords=coords)
    index = _integers("index", index, len(axes.pooled))
    one_each = tuple([shape[axis] for axis in axes.pooled])
    if index.shape != one_each:
        raise ValueError(f"index: expected one set per element, shape {one_each}, got {tuple(index.shape)}")
    index = index if index.ndim == 1 else index.flatten()
    met = _met(index)
    if dim_size is None:  # the one place that has to ask the device
        dim_size = (met[-1] if met else int(index.max())) + 1 if count else 0
    if count and not (met[0] >= 0 and met[-1] < dim_size if met else _within(index, dim_size)):
        raise ValueError(
            f"index: expected values from 0 to {dim_size - 1} (dim_size={dim_size}), "
            f"got {index.min().item()} to {index.max().item()}"
        )
    full = None if met is None else len(met) == dim_size
    return RaggedSets(Segments(dim_size, count, index=index, full=full), mask=there, weight=many, coords=coords)


def _ranks(segments: Segments, elements: Tensor) -> Tensor:
    """The place of each element within its own set, as the centre of its cell, ``(N, 1…, 1)``."""
    index = segments.index
    rank = torch.arange(segments.count, device=index.device) - segments.ptr[:-1].index_select(0, index)
    place = (rank + 0.5) / segments.lengths.index_select(0, index)
    return place.to(_coordinate_type(elements)).reshape(-1, *[1] * (elements.ndim - 1))


def _arrange_jagged(
    layout: Layout,
    x: Tensor,
    mask: Tensor | None,
    weight: Tensor | None,
    lengths: Tensor | None,
    index: Tensor | None,
    ptr: Tensor | None,
    dim_size: int | None,
    coords: Tensor | None,
) -> Arranged:
    """A jagged tensor is its values with ptr = offsets; torch's own jagged reductions are not used (no backward)."""
    if x.layout != torch.jagged:
        raise ValueError("x: expected a nested tensor with layout=torch.jagged, got the strided kind; convert it first")
    if layout.ragged or layout.axes(x.ndim).batch != 0:
        raise ValueError(f"x: a jagged tensor needs a layout that starts with b, like 'b [n] c', got {layout}")
    if any(given is not None for given in (lengths, index, ptr, dim_size)):
        raise ValueError("lengths/index/ptr/dim_size: a jagged tensor already knows its sets; leave them out")
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
    arranged = arrange(inner, values, mask=flat(mask), weight=flat(weight), ptr=offsets, coords=flat(coords))
    return arranged._replace(offsets=offsets)
