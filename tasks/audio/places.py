"""Between boxes in seconds and hertz, the bins of a spectrogram, and the cells of the network."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tasks.audio.frontend import to_mel
from tasks.audio.sounds import Box
from tasks.maps.grids import upsample


def bins_inside(boxes: Sequence[Box], *, frequencies: Tensor, frame_s: float, frames: int) -> Tensor:
    """Mark the bins of a spectrogram that lie in boxes.

    A bin lies in a box if its centre does; of a box between two centres it is the bin nearest to its middle.

    Args:
        boxes: (start s, end s, low Hz, high Hz) each.
        frequencies: Centre of each mel band in Hz, (F,).
        frame_s: Time from frame to frame; frame t is centred at t times that.
        frames: Number of frames.

    Returns:
        (F, frames), bool.

    Example:
        >>> hertz = torch.tensor([100.0, 200.0, 300.0])
        >>> bins_inside([(0.1, 0.35, 150.0, 300.0)], frequencies=hertz, frame_s=0.1, frames=5).int()
        tensor([[0, 0, 0, 0, 0],
                [0, 1, 1, 1, 0],
                [0, 1, 1, 1, 0]], dtype=torch.int32)
    """
    marked = torch.zeros(len(frequencies), frames, dtype=torch.bool)
    mels = to_mel(frequencies.double().cpu())
    seconds = torch.arange(frames, dtype=torch.float64) * frame_s
    for start, end, low, high in boxes:
        ends = to_mel(torch.tensor([low, high], dtype=torch.float64))
        marked |= _between(mels, ends[0], ends[1])[:, None] & _between(seconds, start, end)
    return marked


def _between(centres: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """Which centres lie between two values to a rounding error, or else the one nearest to their middle."""
    inside = (centres >= low - 1e-9) & (centres <= high + 1e-9)
    if not inside.any():
        inside[(centres - (low + high) / 2).abs().argmin()] = True
    return inside


def to_bins(
    maps: Tensor,
    *,
    frames: Sequence[int],
    cells: Sequence[int],
    bands: int,
    stride: tuple[float, float],
    first: tuple[float, float] = (0.0, 0.0),
) -> list[Tensor]:
    """Bring maps of the network's cells to the bins of each clip's own spectrogram.

    Args:
        maps: (B, F', T'); rows that each stand for all bands, such as cepstral coefficients, are summed.
        frames: Number of frames of each clip.
        cells: Number of cells of each clip along time; what lies beyond is cut off and changes nothing before.
        bands: Number of mel bands F.
        stride: Bins from cell to cell, (frequency, time).
        first: The bin on which cell 0 is centred.

    Returns:
        For each clip (F, frames).
    """
    if stride[0] >= bands:
        maps = maps.sum(1, keepdim=True)
    return [
        upsample(one[:, :valid], (bands, count), stride=stride, first=first)
        for one, count, valid in zip(maps, frames, cells, strict=True)
    ]
