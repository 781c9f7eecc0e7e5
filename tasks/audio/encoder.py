"""A small 2D network on spectrograms that keeps the axis that is not pooled."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn


class SpectrogramNet(nn.Module):
    """3x3 convolutions that halve the pooled axis, each or only the first ones, and leave the other one as it is.

    With ``position`` the place on the frequency axis is an input channel, so that which band an element is in is not
    lost when frequency is pooled. Frames beyond a clip's length are zero after every layer, so a clip's features do not
    depend on its batch.

    Args:
        channels: Output channels of each layer.
        stride: Step of every layer that makes the grid coarser, (frequency, time).
        halvings: How many layers do, from the first; None = all.
        relative: Take the level of each band relative to its mean over the clip: what sounds all the time says nothing.
        onsets: Give the rise of the level from frame to frame as an input channel.
        position: Give the place on the frequency axis, -1 to 1, as an input channel.
        dropout: Share of channels set to zero after each layer in training.

    Shape:
        (B, 1, F, T) and valid frames (B,) to (B, C, F', T') and the valid frames (B,) of the output.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        stride: tuple[int, int],
        halvings: int | None = None,
        relative: bool = False,
        onsets: bool = False,
        position: bool = True,
        dropout: float = 0.0,
    ):
        super().__init__()
        halvings = len(channels) if halvings is None else halvings
        if not 0 <= halvings <= len(channels):
            raise ValueError(
                f"expected halvings from 0 to {len(channels)}, the number of layers, got {halvings}; change it"
            )
        self.relative, self.onsets, self.position = relative, onsets, position
        self.strides = [stride] * halvings + [(1, 1)] * (len(channels) - halvings)
        widths = [1 + onsets + position, *channels]
        self.norm = nn.BatchNorm2d(1 + onsets)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 3, stride=step, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
                nn.Dropout2d(dropout),
            )
            for (before, after), step in zip(pairwise(widths), self.strides, strict=True)
        )

    @property
    def cell(self) -> tuple[int, int]:
        """Bins from cell to cell of the output, (frequency, time); cell 0 is centred on bin 0."""
        return prod(step[0] for step in self.strides), prod(step[1] for step in self.strides)

    def forward(self, x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a batch of spectrograms."""
        if self.relative:
            x = zero_beyond(x - x.sum(-1, keepdim=True) / frames[:, None, None, None], frames)
        if self.onsets:
            x = torch.cat([x, x.diff(dim=-1, prepend=x[..., :1]).clamp(min=0)], 1)
        x = self.norm(x)
        if self.position:
            bands = torch.linspace(-1, 1, x.shape[2], device=x.device, dtype=x.dtype)[:, None].expand_as(x[:, :1])
            x = torch.cat([x, bands], 1)
        x = zero_beyond(x, frames)
        for layer, (_, step) in zip(self.layers, self.strides, strict=True):
            # A 3-wide kernel with padding 1 has its centres on frames 0, s, 2s, ...: ceil(n / s) of them are valid.
            frames = (frames - 1) // step + 1
            x = zero_beyond(layer(x), frames)
        return x, frames


def valid_frames(frames: Tensor, total: int) -> Tensor:
    """Mask of valid frames, (B, T), True within a clip."""
    return torch.arange(total, device=frames.device) < frames[:, None]


def zero_beyond(x: Tensor, frames: Tensor) -> Tensor:
    """Set the frames (last axis) beyond each clip's length to zero."""
    mask = valid_frames(frames, x.shape[-1])
    return x * mask.reshape(len(x), *[1] * (x.ndim - 2), -1)
