"""The reductions without parameters, as functions.

Each takes the elements, the layout, the reduction's options and whatever says what the sets are; see `Pool` for all of
them. There is nothing here that the module does not do: the same code, without an object to keep.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from torch import Tensor

from modalpool.pool import Pool

__all__ = ["max_pool", "mean_pool", "min_pool", "pool", "std_pool", "sum_pool", "var_pool"]

_SETS = ("mask", "weight", "lengths", "index", "ptr", "dim_size", "coords", "return_weights")


@lru_cache(maxsize=256)
def _layer(layout: str, reduction: str, options: tuple[tuple[str, Any], ...]) -> Pool:
    layer = Pool(layout, reduction, **dict(options))
    if any(True for _ in layer.parameters()):
        raise ValueError(f"reduction: {reduction!r} has parameters; use the module Pool, which keeps them")
    return layer


def pool(x: Tensor, layout: str, reduction: str = "mean", **options: Any) -> Any:
    """Pool ``x`` by any reduction without parameters.

    Args:
        x: Elements in the layout.
        layout: See `Pool`.
        reduction: See `Pool`.
        options: Options of `Pool` and of the reduction (numbers, strings), and the arguments of its call.

    Raises:
        ValueError: If the reduction has parameters.

    Example:
        >>> import torch
        >>> from modalpool.functional import pool
        >>> pool(torch.ones(2, 3, 4), "b c [t]", "sum", lengths=torch.tensor([4, 1]))[:, 0]
        tensor([4., 1.])
    """
    call = {name: options.pop(name) for name in _SETS if name in options}
    return _layer(layout, reduction, tuple(sorted(options.items())))(x, **call)


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
