"""Rules for the weights, and their short names."""

from __future__ import annotations

import inspect
from typing import Any

from modalpool.reductions.attention import Attention
from modalpool.reductions.base import Average, Count, Reduction, State
from modalpool.reductions.concatenation import Concatenation
from modalpool.reductions.extremes import Max, Min
from modalpool.reductions.mean import Mean, Sum
from modalpool.reductions.moments import Std, Var
from modalpool.reductions.power import Power
from modalpool.reductions.quantile import Quantile
from modalpool.reductions.regions import Pyramid, Regions
from modalpool.reductions.size_law import SizeLaw
from modalpool.reductions.softmax import LogSumExp, Softmax
from modalpool.reductions.statistics import Statistics
from modalpool.reductions.stochastic import Stochastic
from modalpool.reductions.topk import TopK

__all__ = [
    "NAMES",
    "Attention",
    "Average",
    "Concatenation",
    "Count",
    "LogSumExp",
    "Max",
    "Mean",
    "Min",
    "Power",
    "Pyramid",
    "Quantile",
    "Reduction",
    "Regions",
    "SizeLaw",
    "Softmax",
    "State",
    "Statistics",
    "Std",
    "Stochastic",
    "Sum",
    "TopK",
    "Var",
    "build",
    "concatenate",
]

NAMES: dict[str, type[Reduction]] = {
    "mean": Mean,
    "sum": Sum,
    "size_law": SizeLaw,
    "max": Max,
    "min": Min,
    "var": Var,
    "std": Std,
    "power": Power,
    "logsumexp": LogSumExp,
    "softmax": Softmax,
    "attention": Attention,
    "regions": Regions,
    "pyramid": Pyramid,
    "stochastic": Stochastic,
    "topk": TopK,
    "quantile": Quantile,
    "statistics": Statistics,
}


def options_of(name: str) -> list[str]:
    """Names of the options a reduction takes: not ``channels``, which everybody may pass, nor what the layout gives."""
    if name not in NAMES:
        raise ValueError(f"reduction: expected one of {', '.join(NAMES)}, got {name!r}")
    parameters = inspect.signature(NAMES[name].__init__).parameters.values()
    return [p.name for p in parameters if p.kind == p.KEYWORD_ONLY and p.name not in ("channels", "axes")]


def build(reduction: str, channels: int | None, axes: int | None, **options: Any) -> Reduction:
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
        takes = f"it takes {', '.join(accepted)}" if accepted else "it takes no options"
        raise TypeError(f"reduction {reduction!r} does not take {', '.join(unknown)}; {takes}")
    if reduction == "mean":
        return Mean(**options)
    if reduction == "size_law":
        return SizeLaw(**options)
    if reduction in ("var", "std"):
        return (Var if reduction == "var" else Std)(**options)
    if reduction == "power":
        return Power(**options)
    if reduction == "logsumexp":
        return LogSumExp(channels=channels, **options)
    if reduction == "softmax":
        return Softmax(channels=channels, **options)
    if reduction == "pyramid":
        return Pyramid(axes=axes, **options)
    if reduction == "topk":
        return TopK(**options)
    if reduction == "quantile":
        return Quantile(**options)
    if reduction not in ("attention", "regions", "statistics"):
        return NAMES[reduction]()  # sum, max, min, stochastic: no options
    if channels is None:
        raise ValueError(f"channels: reduction {reduction!r} has parameters; pass channels= (the size of the axis c)")
    if reduction == "attention":
        return Attention(channels=channels, **options)
    if reduction == "statistics":
        return Statistics(channels=channels, **options)
    return Regions(channels=channels, **options)


def concatenate(reductions: list[str], channels: int | None, axes: int | None, options: dict[str, Any]) -> Reduction:
    """Make a list of reductions; each option goes to the members that take it.

    Raises:
        TypeError: If no member takes an option.
    """
    accepted = {name: options_of(name) for name in reductions}
    unknown = [option for option in options if not any(option in names for names in accepted.values())]
    if unknown:
        takes = "; ".join(f"{name} takes {', '.join(names) or 'no options'}" for name, names in accepted.items())
        raise TypeError(f"reduction {reductions}: none of them takes {', '.join(unknown)}; {takes}")
    return Concatenation(
        [
            build(name, channels, axes, **{key: value for key, value in options.items() if key in accepted[name]})
            for name in reductions
        ]
    )
