"""What the fast paths of a CPU share: when they pay, and how they are called."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

__all__ = ["VAST", "apply", "few", "finite", "inside", "known", "moderate", "single", "sloped"]

MODERATE = 16.0
"""How far from zero a score may be to be raised as it is."""
VAST = 1e30
"""Up to which sum of powers, and from which inverse on, no type is near its limits."""
FEW = 2**14
"""Up to how many values the composition is the faster one."""


def few(x: Tensor) -> bool:
    """Whether the composition is the faster way."""
    return x.numel() <= FEW


def sloped(x: Tensor) -> bool:
    """Whether a gradient of what is made of ``x`` may be asked for."""
    return x.requires_grad and torch.is_grad_enabled()


def single(x: Tensor) -> bool:
    """Whether values are as wide as their sums."""
    return x.dtype in (torch.float32, torch.float64)


def apply(function: type[Function], *args: Any) -> Any:
    """The result of an autograd function."""
    return function.apply(*args)  # type: ignore[no-untyped-call]  # torch's own


def finite(values: Tensor) -> bool:
    """Whether there are values, and neither infinities nor nan."""
    return inside(values, -math.inf, math.inf)


def moderate(scores: Tensor) -> bool:
    """Whether there are scores, and exp(score) needs no shift: it is exact to a few ulp, and so is a sum of a few."""
    return inside(scores, -MODERATE, MODERATE)


def inside(values: Tensor, low: float, high: float) -> bool:
    """Whether there are values, and all lie between two limits."""
    if values.numel() == 0:
        return False
    least, most = (known(end) for end in values.detach().aminmax())
    return bool(low < least and most < high)


def known(value: Tensor | bool) -> Any:
    """The number in a tensor on a CPU: nothing waits for it."""
    if not isinstance(value, Tensor):
        return value
    plain = type(value) is Tensor and not torch._C._are_functorch_transforms_active()
    return value.tolist() if plain else value.item()
