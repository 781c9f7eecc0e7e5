"""What is asked of the tensors of a call, each with its message.

Checks of values (an index out of range, a negative weight) never wait for a device: they are asynchronous assertions,
which speak at once on a CPU and are left out where there are no values (compiled and traced code, fake and meta
tensors). Under vmap they look at all samples at once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modalpool.kernels import Segments, tuning
from modalpool.kernels.second_order import traced
from modalpool.kernels.values import read
from modalpool.layout import Axes

__all__ = [
    "ends",
    "holds",
    "integers",
    "largest",
    "met_in",
    "rises",
    "sees_within",
    "values",
    "within",
    "without_channel",
]


def values(tensor: Tensor) -> Tensor | None:
    """What can be looked at: a tensor, or what a function transform wraps; None where there are no values."""
    if torch.compiler.is_compiling() or traced():
        return None
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor if type(tensor) in (Tensor, nn.Parameter) and not tensor.is_meta else None


def holds(condition: Tensor) -> bool:
    """Whether something about values is true, as far as can be told without waiting for a device."""
    if condition.is_cpu:
        return bool(read(condition))
    if condition.is_cuda:
        torch._assert_async(condition, "modalpool: a mask, weight, index, ptr or lengths is out of range")
    return True


def within(index: Tensor, limit: int) -> bool:
    """Whether all numbers are from zero to below a limit."""
    seen = values(index)
    if seen is None:
        return True
    least, most = seen.aminmax()
    if seen.is_cpu:
        return bool(read(least) >= 0 and read(most) < limit)
    return holds((least >= 0) & (most < limit))


def ends(numbers: Tensor) -> str:
    """The least and the largest number, for a message."""
    seen = values(numbers)
    return "others" if seen is None else f"{seen.min().item()} to {seen.max().item()}"


def met_in(index: Tensor) -> list[int] | None:
    """The numbers that occur, in order; None where they are many, or where a look would be a wait."""
    if values(index) is not index or not index.is_cpu or index.shape[0] > tuning.LISTED:
        return None
    return sorted(set(index.tolist()))


def sees_within(index: Tensor, met: list[int] | None, limit: int | None) -> bool:
    """Whether a look that is no wait says that all numbers are from zero to below a limit."""
    if limit is None or values(index) is not index or not index.is_cpu:
        return False
    return met[0] >= 0 and met[-1] < limit if met else within(index, limit)


def rises(segments: Segments) -> bool:
    """Whether bounds rise from zero to the number of elements."""
    ptr, limit = segments.ptr, segments.count
    seen = values(ptr)
    if seen is None:
        return True
    if seen is ptr and ptr.is_cpu and len(ptr) <= tuning.LISTED:
        bounds = ptr.tolist()
        return bounds[:1] == [0] and bounds[-1] == limit and bounds == sorted(bounds)
    ends = seen.shape[-1] > 0 and holds((seen[..., 0] == 0).all() & (seen[..., -1] == limit).all())
    return ends and holds((seen.diff() >= 0).all())


def without_channel(name: str, given: Tensor, x: Tensor, axes: Axes) -> Tensor:
    """Expand a mask or weight to the shape of ``x`` without its channel axis, in canonical order."""
    shape = [size for axis, size in enumerate(x.shape) if axis != axes.channel]
    fits = given.ndim == len(shape) and all(a in (1, b) for a, b in zip(given.shape, shape, strict=True))
    if not fits:
        raise ValueError(
            f"{name}: expected the shape of the input without channels, {tuple(shape)} (sizes of 1 broadcast), "
            f"got {tuple(given.shape)}"
        )
    return axes.canonical_mask(given.expand(shape))


def integers(name: str, given: Tensor, dims: int, hint: str = "") -> Tensor:
    """Integers of any width with so many axes, as int64."""
    if given.dtype == torch.int64 and given.ndim == dims:
        return given
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool or given.ndim != dims:
        raise ValueError(
            f"{name}: expected integers with {dims} axis, got {given.dtype} with shape {tuple(given.shape)}{hint}"
        )
    return given.long()


def largest(index: Tensor, met: list[int] | None) -> int:
    """The largest number, at the price of a look at the device where none was had."""
    if met:
        return met[-1]
    if values(index) is not index and not torch.compiler.is_compiling():
        raise ValueError("dim_size: expected it where an index has no values to look at (vmap, traced, fake, meta)")
    return int(index.max())
