"""What all sites must agree on before the first round, and what they differ in."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch

from tasks.data.problems import BadInput

_ADDED = ("train_size", "class_counts", "known_counts", "degree_histogram")
_SCALES = ("target_mean", "target_std", "feature_mean", "feature_std")


def agree(specs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One spec for all sites: counts are added up, and standardised is as if all samples lay in one place.

    Sites that standardised their targets each by its own mean, or numbered their classes each in its own order, would
    train networks of different meanings, whose average has none.

    Args:
        specs: What each site's data say of themselves (`tasks.data.base.PoolingData.spec`).

    Raises:
        BadInput: If sites differ in anything but counts, and the mean and spread of targets and nodes' features.

    Example:
        >>> one = {"kind": "regression", "classes": ["age"], "target_mean": [60.0], "target_std": [3.0]}
        >>> spec = agree([{**one, "train_size": 30}, {**one, "train_size": 10, "target_mean": [20.0]}])
        >>> spec["train_size"], spec["target_mean"], round(spec["target_std"][0], 2)
        (40, [50.0], 17.58)
    """
    first = specs[0]
    differ = [
        f"site {number}: expected {key} {first.get(key)} as at site 0, got {spec.get(key)}"
        for number, spec in enumerate(specs)
        for key in dict.fromkeys([*first, *spec])
        if (key not in (*_ADDED, *_SCALES) and spec.get(key) != first.get(key)) or (key in first) != (key in spec)
    ]
    if differ:
        raise BadInput("\n".join([*differ, "prepare the data alike at all sites, and name their classes alike"]))
    joined: dict[str, Any] = {key: _sum([spec[key] for spec in specs]) for key in _ADDED if key in first}
    if "target_mean" in first:
        joined |= _scale("target", specs, [spec["train_size"] for spec in specs])
    if "feature_mean" in first:  # of nodes
        joined |= _scale("feature", specs, [sum(spec["degree_histogram"]) for spec in specs])
    return {**first, **joined}


def _scale(what: str, specs: Sequence[dict[str, Any]], counts: list[int]) -> dict[str, list[float]]:
    """Mean and spread of all sites' numbers, of which each site has so many."""
    share = torch.tensor(counts, dtype=torch.float64)[:, None] / sum(counts)
    means, spreads = (torch.tensor([spec[f"{what}_{name}"] for spec in specs]).double() for name in ("mean", "std"))
    mean = (share * means).sum(0)
    variance = (share * (spreads.square() + (means - mean).square())).sum(0)
    return {f"{what}_mean": mean.tolist(), f"{what}_std": variance.sqrt().tolist()}


def _sum(values: Sequence[Any]) -> Any:
    """Numbers, or lists of them place by place; what a shorter one does not have is zero."""
    return [sum(each) for each in zip_longest(*values, fillvalue=0)] if isinstance(values[0], list) else sum(values)
