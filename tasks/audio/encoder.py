"""Networks on spectrograms: a small one in 2D that keeps the axis that is not pooled, and any other class."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from tasks.task.network import build_network, try_out


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

    waveform = False  # takes spectrograms
    first = (0.0, 0.0)

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

    def count(self, length: int) -> int:
        """Cells along time of a clip of so many frames."""
        return (length - 1) // self.cell[1] + 1

    def forward(self, x: Tensor, frames: Tensor, mean: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode a batch of spectrograms; of a part of a clip, ``mean`` is that of the whole, (B, 1, F, 1)."""
        if self.relative:
            mean = x.sum(-1, keepdim=True) / frames[:, None, None, None] if mean is None else mean
            x = zero_beyond(x - mean, frames)
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


class OwnNetwork(nn.Module):
    """Any module that takes log-mel spectrograms, (B, 1, F, T), or waveforms, (B, S), to features.

    It takes waveforms if it has an attribute ``waveform = True``. Its features are (B, C, F', T') or (B, C, T'), or as
    its attribute ``layout`` says, such as ``"b t c"``; without an f they stand for all bands. In its constructor
    ``in_channels`` (1), ``mels`` and ``sample_rate`` are filled in unless they are given. Clips of one length go
    through it together, without padding, so that a clip's features do not depend on its batch.

    Cells are taken to lie evenly about the middle of the clip.

    Args:
        path: Dotted path of its class (`tasks.task.network.build_network`).
        arguments: What its constructor is given.
        mels: Bands of the spectrogram.
        hop: Samples from frame to frame.
        sample_rate: In Hz.

    Raises:
        ValueError: If it cannot be built, fails on one and two seconds, or its features do not have these axes.
    """

    def __init__(self, path: str, arguments: dict[str, Any], *, mels: int, hop: int, sample_rate: int):
        super().__init__()
        self.path = path
        self.network = build_network(path, arguments, {"in_channels": 1, "mels": mels, "sample_rate": sample_rate})
        self.waveform = bool(getattr(self.network, "waveform", False))
        unit = hop if self.waveform else 1  # of time, in a frame
        self._shape = () if self.waveform else (1, mels)
        self._counts: dict[int, int] = {}
        lengths = [sample_rate * seconds // hop * unit for seconds in (1, 2)]
        found = [self._try(length) for length in lengths]
        self.channels, self.bands = found[0].shape[1:3]
        cells = [one.shape[3] for one in found]
        if cells[1] <= cells[0]:
            raise ValueError(f"encoder {path}: expected more cells for longer clips, got {cells[0]} and {cells[1]}")
        step = (lengths[1] - lengths[0]) / (cells[1] - cells[0])
        start = (lengths[0] - 1 - step * (cells[0] - 1)) / 2
        self.cell = (mels / self.bands, step / unit)
        self.first = ((self.cell[0] - 1) / 2, start / unit)

    def count(self, length: int) -> int:
        """Cells along time of a clip of so many frames or samples."""
        if length not in self._counts:
            self._counts[length] = self._try(length).shape[3]
        return self._counts[length]

    def _try(self, length: int) -> Tensor:
        """Features of nothing."""
        weight = next(self.network.parameters(), torch.empty(0))
        x = torch.zeros(1, *self._shape, length, device=weight.device, dtype=weight.dtype)
        features: Tensor = try_out(self.path, self, x, torch.tensor([length]))[0]
        return features

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Features, (B, C, F', T'), zero beyond each clip, and its valid cells, (B,).

        Args:
            x: (B, 1, F, T), or (B, S).
            lengths: Valid frames or samples, (B,).
        """
        found: dict[int, Tensor] = {}
        for length in sorted(set(lengths.tolist())):
            rows = (lengths == length).nonzero().flatten()
            features = self._features(x[rows][..., :length])
            self._counts[length] = features.shape[3]
            found |= dict(zip(rows.tolist(), features, strict=True))
        pieces = [found[row] for row in range(len(x))]
        cells = [piece.shape[-1] for piece in pieces]
        padded = [nn.functional.pad(piece, (0, max(cells) - piece.shape[-1])) for piece in pieces]
        return torch.stack(padded), torch.tensor(cells, device=x.device)

    def _features(self, x: Tensor) -> Tensor:
        features = self.network(x)
        if not isinstance(features, Tensor) or features.ndim not in (3, 4):
            what = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"expected features (B, C, F, T) or (B, C, T), got {what}")
        axes = getattr(self.network, "layout", "b c f t" if features.ndim == 4 else "b c t").split()
        if len(axes) != features.ndim or sorted({*axes, "f"}) != ["b", "c", "f", "t"]:
            raise ValueError(f"expected a layout of b, c, t and perhaps f for {tuple(features.shape)}, got {axes}")
        features = features.permute([axes.index(axis) for axis in ("b", "c", "f", "t") if axis in axes])
        return features if "f" in axes else features[:, :, None]


def valid_frames(frames: Tensor, total: int) -> Tensor:
    """Mask of valid frames, (B, T), True within a clip."""
    return torch.arange(total, device=frames.device) < frames[:, None]


def zero_beyond(x: Tensor, frames: Tensor) -> Tensor:
    """Set the frames (last axis) beyond each clip's length to zero."""
    mask = valid_frames(frames, x.shape[-1])
    return x * mask.reshape(len(x), *[1] * (x.ndim - 2), -1)
