"""What all sites must agree on before the first round, and what they differ in."""

from collections.abc import Sequence
from typing import Any

import torch

from tasks.data.problems import BadInput

_ADDED = ("train_size", "class_counts", "known_counts")
_TARGETS = ("target_mean", "target_std")


def agree(specs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One spec for all sites: counts are added up, targets standardised as if all samples lay in one place.

    Sites that standardised their targets each by its own mean, or numbered their classes each in its own order, would
    train networks of different meanings, whose average has none.

    Args:
        specs: What each site's data say of themselves (`tasks.data.base.PoolingData.spec`).

    Raises:
        BadInput: If sites differ in anything but counts and the targets' mean and spread.

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
        if (key not in (*_ADDED, *_TARGETS) and spec.get(key) != first.get(key)) or (key in first) != (key in spec)
    ]
    if differ:
        raise BadInput("\n".join([*differ, "prepare the data alike at all sites, and name their classes alike"]))
    table = {key: torch.tensor([spec[key] for spec in specs]).double() for key in (*_ADDED, *_TARGETS) if key in first}
    joined = {key: table[key].sum(0).long().tolist() for key in _ADDED if key in table}
    if "target_mean" in table:
        share = (table["train_size"] / table["train_size"].sum())[:, None]
        mean = (share * table["target_mean"]).sum(0)
        variance = (share * (table["target_std"].square() + (table["target_mean"] - mean).square())).sum(0)
        joined |= {"target_mean": mean.tolist(), "target_std": variance.sqrt().tolist()}
    return {**first, **joined}
