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
    weight, bias = layer.weight.to(x.dtype), None if layer.bias is None else layer.bias.to(x.dtype)
    first = x.movedim(-1, 1)
    if x.ndim < 3 or x.stride(-1) == 1 or not first.is_contiguous():
        return nn.functional.linear(x, weight, bias)
    # Channels lie first in memory, as in an image: so do the scores, and nothing is copied.
    out = torch.bmm(weight.expand(x.shape[0], -1, -1), first.flatten(2))
    out = out if bias is None else out + bias[:, None]
    return out.reshape(x.shape[0], weight.shape[0], *x.shape[1:-1]).movedim(1, -1)


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
        place = None if self.position is None else interpolate(self.position.to(x.dtype), sets.coords)
        if self.content is None:
            assert place is not None
            return place.expand(*x.shape[:-1], -1)
        hidden = x
        if self.hidden is not None:
            hidden = linear(self.hidden, x).tanh()
        if self.gate is not None:
            hidden = hidden * linear(self.gate, x).sigmoid()
        content = linear(self.content, hidden)
        return content if place is None else content + place
