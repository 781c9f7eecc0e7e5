"""Values and their multiplicities as every operation takes them, and what a CPU can tell of them by a look.

Values arrive raw: any type, any strides, anything at all where an element is not there. ``many`` is the multiplicity of
each element (bool or float; None = each once), and what has multiplicity zero is replaced before any arithmetic. Only
where the slope of a multiplicity may be asked for is what is finite kept, since that slope depends on it. Sums are
kept, and given, in the accumulation type.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from modalpool.kernels import tuning
from modalpool.kernels.second_order import transformed

HALF = (torch.float16, torch.bfloat16)
Many = Tensor | None
"""How often each element is there: bool or float, None = each once."""


def accumulation_type(dtype: torch.dtype) -> torch.dtype:
    """The type sums are kept in: float32 for half precision, otherwise the type itself."""
    return torch.float32 if dtype in HALF else dtype


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """No autocast on the device of ``x``; the meta device knows none."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def align(small: Tensor, large: Tensor) -> Tensor:
    """Append axes of size one to ``small`` until it has as many axes as ``large``."""
    return small.reshape(*small.shape, *[1] * (large.ndim - small.ndim))


def present(many: Tensor) -> Tensor:
    """Which elements are there."""
    return many if many.dtype == torch.bool else many > 0


def hide(values: Tensor, many: Many, outside: float = 0.0) -> Tensor:
    """``values`` in the accumulation type, with ``outside`` where an element is not there."""
    if values.dtype in HALF:
        values = values.to(torch.float32)
    if many is None:
        return values
    return torch.where(align(present(many), values), values, outside)


def clean(values: Tensor, many: Many, outside: float = 0.0) -> Tensor:
    """The same for arithmetic that ends in `multiply`: what the slope of a multiplicity of zero depends on is kept."""
    if not steep(many):
        return hide(values, many, outside)
    assert many is not None
    values = values.to(accumulation_type(values.dtype))
    return torch.where(align(present(many), values) | values.isfinite(), values, outside)


def multiply(values: Tensor, many: Many) -> Tensor:
    """Clean ``values`` times the multiplicity of each element."""
    if many is None or many.dtype == torch.bool:
        return values
    times = align(many.to(values.dtype), values)
    if steep(many):  # made of finite values, it may have become infinite
        values = torch.where((times == 0) & ~values.isfinite(), 0.0, values)
    return times * values


def split_channels(values: Tensor, groups: int) -> Tensor:
    """``(*, C)`` as ``(*, groups, C / groups)``."""
    return values.reshape(*values.shape[:-1], groups, values.shape[-1] // groups)


def sloped(x: Tensor) -> bool:
    """Whether a gradient of what is made of ``x`` may be asked for."""
    return x.requires_grad and torch.is_grad_enabled()


def keeps_weights(x: Tensor, scores: int) -> bool:
    """Whether weights of so many scores an element may be written down: the backward needs them, or they are few."""
    return sloped(x) or x.numel() // max(x.shape[-1], 1) * scores <= tuning.MANY


def learned(many: Many) -> bool:
    """Whether multiplicities need a gradient, which the definition alone gives."""
    return many is not None and many.requires_grad


def steep(many: Many) -> bool:
    """Whether the slope of a multiplicity may be asked for: here, or by a function transform."""
    return many is not None and many.dtype != torch.bool and (learned(many) or transformed())


def single(x: Tensor) -> bool:
    """Whether values are as wide as their sums."""
    return x.dtype in (torch.float32, torch.float64)


def read(value: Tensor) -> Any:
    """The number in a tensor on a CPU: nothing waits for it."""
    plain = type(value) is Tensor and not torch._C._are_functorch_transforms_active()
    return value.tolist() if plain else value.item()


def inside(values: Tensor, low: float, high: float) -> bool:
    """Whether there are values, and all lie between two limits."""
    if values.numel() == 0:
        return False
    least, most = (read(end) for end in values.detach().aminmax())
    return bool(low < least and most < high)


def finite(values: Tensor) -> bool:
    """Whether there are values, and neither infinities nor nan."""
    return inside(values, -math.inf, math.inf)


def moderate(scores: Tensor) -> bool:
    """Whether there are scores, and exp(score) needs no shift."""
    return inside(scores, -tuning.MODERATE, tuning.MODERATE)
