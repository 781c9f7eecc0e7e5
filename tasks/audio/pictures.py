"""Pictures: a log-mel spectrogram, what in it made the decision, and the same evidence along the kept axis."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from tasks.audio.frontend import to_mel
from tasks.audio.sounds import Box
from tasks.outputs.drawing import TRUTH, bar, canvas, centred, outline_legend, save

_TICKS = (62.5, 125, 250, 500, 1000, 2000, 4000, 8000, 16000)  # Hz
_COLUMNS = 1500
"""Frames that a picture has room for."""


def draw_spectrogram(
    spectrum: Tensor,
    evidence: Tensor,
    path: Path,
    *,
    title: str,
    label: str,
    frame_s: float,
    frequencies: Tensor,
    range_db: float,
    pooled: str,
    truth: Sequence[Box] = (),
) -> Path:
    """Draw the spectrogram in grey, the map over it in red (for) and blue (against), transparent where it is near zero.

    Above it stands the map's sum over frequency, the class's own curve over time; beside it, where frequency is not
    all that is pooled, the sum over time.

    Args:
        spectrum: Log-mel spectrogram (F, T), 0 to 1.
        evidence: Signed map (F, T).
        path: The PNG to write.
        title: Above the picture.
        label: What the map's values are, beside the colour bar.
        frame_s: Time from frame to frame; frame t is centred at t times that.
        frequencies: Centre of each mel band in Hz, (F,).
        range_db: Decibels from 0 to 1 of the spectrogram.
        pooled: The axis that is pooled: time, frequency or both.
        truth: Boxes (start s, end s, low Hz, high Hz) of known events.

    Returns:
        ``path``.
    """
    spectrum, evidence = spectrum.float().cpu(), evidence.float().cpu()
    if spectrum.shape[1] > _COLUMNS:
        together = -(-spectrum.shape[1] // _COLUMNS)
        spectrum, frame_s = _fewer(spectrum, together, torch.amax), frame_s * together
        evidence = _fewer(evidence, together, torch.sum)
    bands, frames = spectrum.shape
    band_curve = pooled != "frequency"
    figure = canvas(9.5, 5.6)
    grid = figure.add_gridspec(
        2, 2 if band_curve else 1, height_ratios=[1, 3], width_ratios=[5, 1] if band_curve else None
    )
    main = figure.add_subplot(grid[-1, 0])
    extent = (-frame_s / 2, (frames - 0.5) * frame_s, -0.5, bands - 0.5)
    common: dict[str, Any] = {"origin": "lower", "aspect": "auto", "extent": extent, "interpolation": "nearest"}
    level = (spectrum.numpy() - 1) * range_db
    grey = main.imshow(level, cmap="gray_r", vmin=-range_db, vmax=0.25 * range_db, **common)
    scale = centred(evidence.numpy(), 0.995)
    limit = scale.get_clim()[1] or 1.0
    strength = (evidence.abs() / limit).clamp(max=1)
    main.imshow(
        evidence.numpy(), cmap=scale.cmap, vmin=-limit, vmax=limit, alpha=(0.8 * strength.sqrt()).numpy(), **common
    )
    for start, end, low, high in truth:
        bottom, top = (band_of(value, frequencies) for value in (low, high))
        main.plot([start, end, end, start, start], [bottom, bottom, top, top, bottom], color=TRUTH, lw=1.5)
    main.set(xlabel="time (s)", ylabel="frequency (Hz)", xlim=extent[:2], ylim=extent[2:])
    main.set_yticks(*_ticks(frequencies))
    beside = figure.add_subplot(grid[0, 0], sharex=main)
    _curve(beside.fill_between, torch.arange(frames) * frame_s, evidence.sum(0))
    beside.axhline(0, color="black", lw=0.6)
    beside.set(ylabel="map summed\nover frequency")
    beside.yaxis.set_major_locator(MaxNLocator(3))
    beside.ticklabel_format(axis="y", scilimits=(-2, 3))
    beside.tick_params(labelbottom=False)
    if band_curve:
        beside = figure.add_subplot(grid[-1, 1], sharey=main)
        _curve(beside.fill_betweenx, torch.arange(bands), evidence.sum(1))
        beside.axvline(0, color="black", lw=0.6)
        beside.set(xlabel="map summed\nover time")
        beside.xaxis.set_major_locator(MaxNLocator(2))
        beside.ticklabel_format(axis="x", scilimits=(-2, 3))
        beside.tick_params(labelleft=False)
    shown = list(figure.axes)
    bar(figure, scale, shown, label, pad=0.015)
    levels = figure.colorbar(
        grey, ax=shown, pad=0.015, boundaries=np.linspace(-range_db, 0, 101), spacing="proportional"
    )
    levels.set_ticks(list(range(-20 * int(range_db // 20), 1, 20)))
    levels.set_label("level (dB below the peak)", size=9)
    if truth:
        outline_legend(figure)
    figure.suptitle(title, fontsize=10)
    return save(figure, path)


def paint_spectrogram(
    spectrum: Tensor, panels: Mapping[str, Tensor], path: Path, *, title: str, frame_s: float, frequencies: Tensor
) -> Path:
    """Draw the spectrogram in grey, and below it the colours of its bins.

    Args:
        spectrum: Log-mel spectrogram (F, T), 0 to 1.
        panels: By name (F, T, 3), red, green and blue from 0 to 1.
        path: The PNG to write.
        title: Above the picture.
        frame_s: Time from frame to frame.
        frequencies: Centre of each mel band in Hz, (F,).

    Returns:
        ``path``.
    """
    bands, frames = spectrum.shape
    figure = canvas(8, 1.4 + 2 * (1 + len(panels)))
    all_axes = figure.subplots(1 + len(panels), 1, sharex=True, squeeze=False)[:, 0]
    extent = (-frame_s / 2, (frames - 0.5) * frame_s, -0.5, bands - 0.5)
    common: dict[str, Any] = {"origin": "lower", "aspect": "auto", "extent": extent, "interpolation": "nearest"}
    all_axes[0].imshow(spectrum.float().cpu().numpy(), cmap="gray_r", vmin=0, vmax=1, **common)
    ticks = _ticks(frequencies, least=0.2)
    for axes, (name, colours) in zip(all_axes, {"spectrogram": None, **panels}.items(), strict=True):
        if colours is not None:
            axes.imshow(colours.cpu().numpy(), **common)
        axes.set_title(name, fontsize=10)
        axes.set_ylabel("frequency (Hz)")
        axes.set_yticks(*ticks)
    all_axes[-1].set_xlabel("time (s)")
    figure.suptitle(title, fontsize=10)
    return save(figure, path)


def _ticks(frequencies: Tensor, least: float = 0.06) -> tuple[list[float], list[str]]:
    """Octaves from the highest down, where there is room: places and labels, ``least`` of the axis from each other."""
    places: list[float] = []
    labels = []
    for value in reversed(_TICKS):
        place = band_of(value, frequencies)
        if 0 <= place <= len(frequencies) - 1 and (not places or places[-1] - place >= least * len(frequencies)):
            places.append(place)
            labels.append(f"{value:g}")
    return places, labels


def _fewer(x: Tensor, together: int, join: Callable[..., Tensor]) -> Tensor:
    """Columns of (F, T), so many as one."""
    padded = torch.nn.functional.pad(x, (0, -x.shape[1] % together))
    return join(padded.reshape(len(x), -1, together), dim=2)


def _curve(fill: Callable[..., Any], places: Tensor, sums: Tensor) -> None:
    """Fill between a curve and zero, red above and blue below."""
    for colour, part in (("#d6604d", sums.clamp(min=0)), ("#4393c3", sums.clamp(max=0))):
        fill(places.numpy(), part.numpy(), step="mid", color=colour, linewidth=0)


def band_of(hertz: float, frequencies: Tensor) -> float:
    """The (fractional) mel band of a frequency: where it stands on the picture's axis."""
    mels = to_mel(torch.cat([frequencies, frequencies.new_tensor([hertz])]))
    return float((mels[-1] - mels[0]) / (mels[1] - mels[0]))
