"""The reductions without parameters, as functions.

Each takes the elements, the layout, the reduction's options and whatever says what the sets are; see `Pool` for all of
them. There is nothing here that the module does not do: the same code, without an object to keep.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from modalpool.checks import ends
from modalpool.layout import Layout
from modalpool.pool import Pool

__all__ = [
    "label_pool",
    "logsumexp_pool",
    "max_pool",
    "mean_pool",
    "min_pool",
    "pool",
    "power_pool",
    "pyramid_pool",
    "size_pool",
    "softmax_pool",
    "std_pool",
    "sum_pool",
    "var_pool",
]

_SETS = ("mask", "weight", "lengths", "index", "ptr", "dim_size", "coords", "batch", "weight_axes", "return_weights")


@lru_cache(maxsize=256)
def _layer(layout: str, reduction: str | tuple[str, ...], options: tuple[tuple[str, Any], ...]) -> Pool:
    layer = Pool(layout, reduction if isinstance(reduction, str) else list(reduction), **dict(options))
    if any(True for _ in layer.parameters()):
        raise ValueError(f"reduction: {reduction!r} has parameters; use the module Pool, which keeps them")
    return layer


def _frozen(option: Any) -> Any:
    """An option that a cache can look up."""
    return tuple(map(_frozen, option)) if isinstance(option, (list, tuple)) else option


def pool(x: Tensor, layout: str, reduction: str | list[str] = "mean", **options: Any) -> Any:
    """Pool ``x`` by any reduction without parameters.

    Args:
        x: Elements in the layout.
        layout: See `Pool`.
        reduction: See `Pool`.
        options: Options of `Pool` and of the reduction, and the arguments of its call.

    Raises:
        ValueError: If the reduction has parameters.

    Example:
        >>> import torch
        >>> from modalpool.functional import pool
        >>> pool(torch.ones(2, 3, 4), "b c [t]", "sum", lengths=torch.tensor([4, 1]))[:, 0]
        tensor([4., 1.])
    """
    call = {name: options.pop(name) for name in _SETS if name in options}
    frozen = tuple((name, _frozen(options[name])) for name in sorted(options))
    return _layer(layout, _frozen(reduction), frozen)(x, **call)


def mean_pool(x: Tensor, layout: str, **options: Any) -> Any:
    """Average; see `modalpool.reductions.Mean`."""
    return pool(x, layout, "mean", **options)


def sum_pool(x: Tensor, layout: str, **options: Any) -> Any:
    """Add up; see `modalpool.reductions.Sum`."""
    return pool(x, layout, "sum", **options)


def max_pool(x: Tensor, layout: str, **options: Any) -> Any:
    """Take the largest; see `modalpool.reductions.Max`."""
    return pool(x, layout, "max", **options)


def min_pool(x: Tensor, layout: str, **options: Any) -> Any:
    """Take the smallest; see `modalpool.reductions.Min`."""
    return pool(x, layout, "min", **options)


def var_pool(x: Tensor, layout: str, **options: Any) -> Any:
    """Measure the variance; see `modalpool.reductions.Var`."""
    return pool(x, layout, "var", **options)


def std_pool(x: Tensor, layout: str, **options: Any) -> Any:
    """Measure the standard deviation; see `modalpool.reductions.Std`."""
    return pool(x, layout, "std", **options)


def size_pool(x: Tensor, layout: str, **options: Any) -> Any:
    """Average, times a power of the size; see `modalpool.reductions.SizeLaw`."""
    return pool(x, layout, "size_law", **options)


def power_pool(x: Tensor, layout: str, **options: Any) -> Any:
    """Take the power mean; see `modalpool.reductions.Power`."""
    return pool(x, layout, "power", **options)


def logsumexp_pool(x: Tensor, layout: str, **options: Any) -> Any:
    """Take the smooth maximum; see `modalpool.reductions.LogSumExp`."""
    return pool(x, layout, "logsumexp", **options)


def softmax_pool(x: Tensor, layout: str, **options: Any) -> Any:
    """Let channels weigh their own elements; see `modalpool.reductions.Softmax`."""
    return pool(x, layout, "softmax", **options)


def pyramid_pool(x: Tensor, layout: str, *, levels: list[int | list[int]], **options: Any) -> Any:
    """Average over the cells of grids; see `modalpool.reductions.Pyramid`."""
    return pool(x, layout, "pyramid", levels=levels, **options)


def label_pool(
    x: Tensor, layout: str, labels: Tensor, *, regions: int, reduction: str | list[str] = "mean", **options: Any
) -> Tensor:
    """Pool over each region of a label map, by any reduction without parameters.

    Args:
        x: Elements in a layout that starts with b and keeps no other position, such as 'b c [d h w]'.
        layout: See `Pool`.
        labels: Integer region of each element, shaped like ``x`` without channels; anything where a mask hides it.
        regions: K, the number of regions.
        reduction: See `Pool`.
        options: Of the reduction, and ``mask`` and ``weight``.

    Returns:
        One vector per region, ``(B, K, C)``; a region without elements gives ``empty_value``.

    Raises:
        ValueError: If the layout or the labels do not fit, or a label that is not hidden is not below ``regions``.

    Example:
        >>> import torch
        >>> from modalpool.functional import label_pool
        >>> x, labels = torch.arange(4.0).reshape(1, 1, 2, 2), torch.tensor([[[0, 1], [1, 1]]])
        >>> label_pool(x, "b c [h w]", labels, regions=2).flatten().tolist()
        [0.0, 2.0]
    """
    axes = Layout(layout).axes(x.ndim)
    if axes.batch != 0 or axes.kept:
        raise ValueError(f"layout: expected b first and every other position pooled, as in 'b c [h w]', got {layout!r}")
    shape = [size for axis, size in enumerate(x.shape) if axis != axes.channel]
    if list(labels.shape) != shape or labels.is_floating_point():
        raise ValueError(f"labels: expected integers of shape {tuple(shape)}, got {labels.dtype} {tuple(labels.shape)}")
    first = torch.arange(x.shape[0], device=x.device).reshape(-1, *[1] * (labels.ndim - 1)) * regions
    index = torch.where((labels >= 0) & (labels < regions), labels + first, -1)
    # Every position is an element of a ragged call, the batch too: its name must not be b.
    names = ["[batch]" if a == 0 else "c" if a == axes.channel else f"[p{a}]" for a in range(x.ndim)]
    try:
        z: Tensor = pool(x, " ".join(names), reduction, index=index, dim_size=x.shape[0] * regions, **options)
    except ValueError as error:
        if not str(error).startswith("index:"):
            raise
        raise ValueError(
            f"labels: expected values from 0 to {regions - 1} (regions={regions}), got {ends(labels)}; hide others by "
            "mask=, as in mask=labels != 255"
        ) from error
    return z.reshape(x.shape[0], regions, -1)
