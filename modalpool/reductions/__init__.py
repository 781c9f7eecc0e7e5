"""Rules for the weights, and their short names."""

from __future__ import annotations

import inspect
from typing import Any

from modalpool.reductions.attention import Attention
from modalpool.reductions.base import Average, Reduction, State
from modalpool.reductions.extremes import Max, Min
from modalpool.reductions.mean import Mean, Sum
from modalpool.reductions.moments import Std, Var

__all__ = ["NAMES", "Attention", "Average", "Max", "Mean", "Min", "Reduction", "State", "Std", "Sum", "Var", "build"]

NAMES: dict[str, type[Reduction]] = {
    "mean": Mean,
    "sum": Sum,
    "max": Max,
    "min": Min,
    "var": Var,
    "std": Std,
    "attention": Attention,
}


def options_of(name: str) -> list[str]:
    """Names of the options a reduction takes (``channels`` is not one: everybody may pass it)."""
    if name not in NAMES:
        raise ValueError(f"reduction: expected one of {', '.join(NAMES)}, got {name!r}")
    return [
        option for option in inspect.signature(NAMES[name]).parameters if option not in ("channels", "args", "kwargs")
    ]


def build(reduction: str, channels: int | None, **options: Any) -> Reduction:
    """Make a reduction from its short name.

    The branches are spelled out so that tools that read signatures (jsonargparse and through it the command line) find
    every option with its type, its default and its help.

    Raises:
        ValueError: If there is no such name, or ``channels`` is missing where there are parameters.
        TypeError: If an option belongs to another reduction.
    """
    accepted = options_of(reduction)
    unknown = [option for option in options if option not in accepted]
    if unknown:
        known = f"it takes {', '.join(accepted)}" if accepted else "it takes no options"
        raise TypeError(f"reduction {reduction!r} does not take {', '.join(unknown)}; {known}")
    if reduction == "mean":
        return Mean(**options)
    if reduction == "sum":
        return Sum(**options)
    if reduction == "max":
        return Max(**options)
    if reduction == "min":
        return Min(**options)
    if reduction == "var":
        return Var(**options)
    if reduction == "std":
        return Std(**options)
    if channels is None:
        raise ValueError(f"channels: reduction {reduction!r} has parameters; pass channels= (the size of the axis c)")
    if reduction == "attention":
        return Attention(channels=channels, **options)
    raise AssertionError(f"{reduction} is named but not built")
