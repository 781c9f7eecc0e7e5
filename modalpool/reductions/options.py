"""Small helpers that reductions share for their options."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from modalpool.kernels import accumulation_type

__all__ = ["Temperature", "positive"]


def positive(**values: int) -> None:
    """Raise ValueError for an option that has to be a positive integer and is not."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name}: expected a positive integer, got {value}")


class Temperature(nn.Module):
    """What scores are divided by: 0 to inf, or a positive parameter.

    Args:
        value: The temperature, or where it starts.
        learned: Whether it is a parameter.
        channels: How many temperatures to learn; None = one.
    """

    def __init__(self, value: float, *, learned: bool = False, channels: int | None = None) -> None:
        super().__init__()
        if not value >= 0:
            raise ValueError(f"temperature: expected a number >= 0, got {value}")
        if learned and not 0 < value < math.inf:
            raise ValueError(f"temperature: a learned one starts positive and finite, got {value}")
        self.value = value
        shape = () if channels is None else (channels,)
        self.log = nn.Parameter(torch.full(shape, math.log(value))) if learned else None

    @property
    def hard(self) -> bool:
        """Whether only the best element counts."""
        return self.value == 0

    @property
    def flat(self) -> bool:
        """Whether all elements count the same."""
        return self.value == math.inf

    @property
    def fixed(self) -> bool:
        """Whether it is a number between the limits."""
        return self.log is None and not (self.hard or self.flat)

    def forward(self, like: Tensor) -> Tensor | float:
        """The temperature in the type in which ``like`` is added up."""
        return self.value if self.log is None else self.log.to(accumulation_type(like.dtype)).exp()
