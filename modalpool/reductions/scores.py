"""Learned scores of elements: content plus position. Attention and learned regions are softmaxes of them.

Legend: ``E`` element axes, ``C`` channels, ``F`` scores per element.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modalpool.reductions.options import positive
from modalpool.reductions.position import interpolate
from modalpool.sets import Sets

__all__ = ["Scores", "linear"]


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """Apply a layer in the type of ``x``, whatever the type of its parameters."""
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    return nn.functional.linear(x, layer.weight.to(x.dtype), bias)


class Scores(nn.Module):
    """F scores per element, in float32 under half precision.

    Args:
        channels: C.
        outputs: F.
        score: "linear", "mlp", "gated" or "none"; see `modalpool.reductions.Attention`.
        score_channels: Hidden channels of "mlp" and "gated".
        grid: Size of the learned grid of position scores, or None.
        bias: Whether there is a constant per score (it matters only where scores compete with each other).
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        *,
        score: str,
        score_channels: int,
        grid: list[int] | None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        positive(score_channels=score_channels)
        if score not in ("linear", "mlp", "gated", "none"):
            raise ValueError(f"score: expected 'linear', 'mlp', 'gated' or 'none', got {score!r}")
        if score == "none" and grid is None:
            raise ValueError("score: 'none' leaves the position alone to score by; pass grid=[...] too")
        self.outputs = outputs
        self.hidden = nn.Linear(channels, score_channels) if score in ("mlp", "gated") else None
        self.gate = nn.Linear(channels, score_channels) if score == "gated" else None
        last = channels if score == "linear" else score_channels
        self.content = None if score == "none" else nn.Linear(last, outputs, bias=bias)
        self.position = None if grid is None else nn.Parameter(torch.zeros(*grid, outputs))

    def forward(self, x: Tensor, sets: Sets) -> Tensor:
        """Scores ``(E, F)``."""
        x = sets.clean(x)
        total = x.new_zeros((*x.shape[:-1], self.outputs))
        if self.content is not None:
            hidden = x
            if self.hidden is not None:
                hidden = linear(self.hidden, x).tanh()
            if self.gate is not None:
                hidden = hidden * linear(self.gate, x).sigmoid()
            total = total + linear(self.content, hidden)
        if self.position is not None:
            total = total + interpolate(self.position.to(x.dtype), sets.coords)
        return total
