"""Which elements a map holds responsible: a signed map becomes a set of elements."""

from typing import Literal

import torch
from torch import Tensor

Rule = Literal["fixed", "relative", "top", "otsu"]


def select(signed_map: Tensor, rule: Rule = "otsu", threshold: float | None = None) -> Tensor:
    """Mark the elements that a map holds responsible.

    Args:
        signed_map: Any shape.
        rule: ``fixed``: at least ``threshold``, in the map's own unit. ``relative``: at least ``threshold`` (0 to 1) of
            the largest value. ``top``: the share ``threshold`` of the elements that is largest (equal values together).
            ``otsu``: above the value that splits them best, `otsu`. Except for ``fixed`` and ``top``, only elements
            that speak for the target (above zero) can be marked.
        threshold: See ``rule``.

    Returns:
        bool, the map's shape.

    Raises:
        ValueError: If the rule is unknown or its threshold is missing.

    Example:
        >>> select(torch.tensor([-1.0, 0.1, 0.5, 1.0]), "relative", 0.5)
        tensor([False, False,  True,  True])
    """
    if rule == "otsu":
        return (signed_map > otsu(signed_map)) & (signed_map > 0)
    if rule not in ("fixed", "relative", "top"):
        raise ValueError(f"rule: expected fixed, relative, top or otsu, got {rule!r}; choose one of them")
    if threshold is None:
        raise ValueError(f"threshold: expected a number for the rule {rule!r}, got None; pass threshold=")
    ordered = signed_map.flatten().sort(descending=True).values
    return signed_map >= cut_values(ordered, rule, torch.tensor([threshold]))[0]


def otsu(values: Tensor) -> float:
    """Find the value that splits others into two groups with the largest variance between them (Otsu 1979), exactly.

    Returns:
        The largest value of the lower group; with a single distinct value that value, so that nothing lies above it.

    Example:
        >>> otsu(torch.tensor([0.0, 0.25, 0.75, 1.0]))
        0.25
    """
    values = values.detach().double().flatten().sort().values
    if values[0] == values[-1]:
        return float(values[0])
    n = len(values)
    low = torch.arange(1, n, dtype=torch.float64, device=values.device)  # elements in the lower group
    below = values.cumsum(0)[:-1]
    gap = below / low - (values.sum() - below) / (n - low)  # difference of the groups' means
    between = low * (n - low) * gap**2
    between[values[1:] == values[:-1]] = -1.0  # equal values stay together
    return float(values[between.argmax()])


def cut_values(ordered: Tensor, rule: Rule, thresholds: Tensor) -> Tensor:
    """The smallest value that is marked at each threshold, for values in descending order; +inf marks none."""
    thresholds = thresholds.to(ordered)
    if rule == "fixed":
        return thresholds
    if rule == "relative":
        if ordered[0] <= 0:  # nothing speaks for the target
            return torch.full_like(thresholds, torch.inf)
        # At threshold 1 the largest value itself, whatever rounding does.
        return torch.minimum(thresholds * ordered[0], ordered[0]).clamp(min=torch.finfo(ordered.dtype).tiny)
    kept = (thresholds * len(ordered)).round().long()
    return torch.where(kept > 0, ordered[(kept - 1).clamp(0, len(ordered) - 1)], torch.inf)
