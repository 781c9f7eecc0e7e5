"""Sound events with a known place: one textured event in noise, beside bursts of noise that are as loud or louder.

What tells the classes apart is the event's texture, which fills its box in time and frequency: sweeps that rise or
fall, pulses, or steady tones. Its place, size, level and surroundings are drawn before the class is looked at, so they
say nothing about it; the loudest bins of a clip mostly belong to the bursts, so loudness does not say where to look.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tasks.audio.sounds import Box, Draw, to_hertz
from tasks.data.turns import take_turns

KINDS = ("rising", "falling", "pulses", "tones")
_LONGEST = 0.7  # s of what is in a box
_LOWEST, _HIGHEST = 300.0, 2700.0  # mel of what may be in a box: 213 Hz to 6985 Hz


def make_events(
    number: int, *, seconds: float | Sequence[float] = 2.4, sample_rate: int = 16000, seed: int = 0
) -> tuple[list[Tensor], list[int], list[list[Box]]]:
    """Make clips of noise with one event and one or two bursts of noise, which do not overlap.

    Args:
        number: How many clips; the kinds of event take turns.
        seconds: Longest clip, at least 1.4; clips last between half of it and all of it. Of several, they take turns.
        sample_rate: In Hz.
        seed: The same seed gives the same clips.

    Returns:
        The clips (S,), the kinds of their events (numbers in `KINDS`), and for each the box (start s, end s, low Hz,
        high Hz) of its event.

    Raises:
        ValueError: If the shortest clip has no room for the longest event.

    Example:
        >>> waves, kinds, boxes = make_events(4)
        >>> kinds, [len(one) for one in boxes]
        ([0, 1, 2, 3], [1, 1, 1, 1])
    """
    longest = [take_turns(seconds, i, len(KINDS)) for i in range(number)]
    if min(longest) < 2 * _LONGEST:
        raise ValueError(f"expected seconds >= {2 * _LONGEST}, so that every event fits, got {seconds}; raise it")
    made = [
        _clip(i % len(KINDS), Draw(seed * 1_000_003 + i), seconds=longest[i], sample_rate=sample_rate)
        for i in range(number)
    ]
    return [wave for wave, _ in made], [i % len(KINDS) for i in range(number)], [[box] for _, box in made]


def _clip(kind: int, draw: Draw, *, seconds: float, sample_rate: int) -> tuple[Tensor, Box]:
    """One clip and the box of its event."""
    length = round(draw.uniform(0.5, 1) * seconds * sample_rate)
    background = _noise(draw, length, sample_rate)
    wave = background.clone()
    boxes = _boxes(draw, length / sample_rate, 1 + round(draw.uniform(0.5, 2.5)))
    levels = [draw.uniform(6, 18)] + [draw.uniform(10, 22) for _ in boxes[1:]]  # dB over the background in the same box
    pace, phase, fill = draw.uniform(0, 1), draw.uniform(0, 1), draw.normal(length)
    for place, (box, level) in enumerate(zip(boxes, levels, strict=True)):
        start, end, low, high = box
        first, last = round(start * sample_rate), round(end * sample_rate)
        if place == 0:
            sound = _texture(KINDS[kind], last - first, low, high, pace, phase, sample_rate)
        else:
            sound = _band(fill, low, high, sample_rate)[first:last]
        around = _band(background, low, high, sample_rate)[first:last]
        sound = sound / sound.square().mean().sqrt() * around.square().mean().sqrt() * 10 ** (level / 20)
        ramp = torch.linspace(0, 1, round(0.01 * sample_rate))
        sound[: len(ramp)] *= ramp
        sound[-len(ramp) :] *= ramp.flip(0)
        wave[first:last] += sound
    start, end, low, high = boxes[0]
    return wave * draw.uniform(0.2, 0.9) / wave.abs().max(), (start, end, to_hertz(low), to_hertz(high))


def _boxes(draw: Draw, seconds: float, number: int) -> list[tuple[float, float, float, float]]:
    """Boxes (start s, end s, low mel, high mel) that do not overlap; the first one always finds a place."""
    boxes: list[tuple[float, float, float, float]] = []
    for _ in range(20 * number):
        duration, width = draw.uniform(0.3, _LONGEST), draw.uniform(450, 900)
        start, low = draw.uniform(0, seconds - duration), draw.uniform(_LOWEST, _HIGHEST - width)
        box = (start, start + duration, low, low + width)
        if len(boxes) < number and all(_apart(box, other) for other in boxes):
            boxes.append(box)
    return boxes


def _apart(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether 50 ms or 100 mel lie between two boxes."""
    gaps = [max(one[i] - other[i + 1], other[i] - one[i + 1]) for i in (0, 2)]
    return gaps[0] > 0.05 or gaps[1] > 100


def _noise(draw: Draw, length: int, sample_rate: int) -> Tensor:
    """Noise whose colour and level change from clip to clip and, slowly, in time."""
    spectrum = torch.fft.rfft(draw.normal(length))
    mel = _mel(len(spectrum), sample_rate)
    colour = _curve(draw, 5, len(spectrum), 5.0, at=mel / mel[-1])
    even = (700 / (700 + torch.linspace(0, sample_rate / 2, len(spectrum)))).sqrt()  # the same power in every mel
    noise = torch.fft.irfft(spectrum * even * colour, n=length)
    shaped: Tensor = noise * _curve(draw, 6, length, 2.0, at=torch.linspace(0, 1, length))
    return shaped


def _curve(draw: Draw, knots: int, length: int, decibels: float, at: Tensor) -> Tensor:
    """Random gains at a few knots from 0 to 1, joined in dB by straight lines and read at ``at`` (length,)."""
    gains = decibels * draw.normal(knots)
    place = at.clamp(0, 1) * (knots - 1)
    below = place.floor().long().clamp(max=knots - 2)
    share = place - below
    return 10 ** (((1 - share) * gains[below] + share * gains[below + 1]) / 20)


def _texture(kind: str, length: int, low: float, high: float, pace: float, phase: float, sample_rate: int) -> Tensor:
    """A sound of a kind that fills the band from ``low`` to ``high`` (mel); ``pace`` and ``phase`` are 0 to 1."""
    time = torch.arange(length, dtype=torch.float64) / sample_rate
    if kind in ("rising", "falling"):
        period = 0.09 + 0.06 * pace  # s a sweep
        part = (time / period + phase) % 1
        mel = low + (high - low) * (part if kind == "rising" else 1 - part)
        hertz = 700 * (10 ** (mel / 2595) - 1)
        return torch.sin(2 * math.pi * (hertz / sample_rate).cumsum(0)).float()
    if kind == "pulses":
        period = 0.04 + 0.03 * pace  # s from pulse to pulse
        moments = ((torch.arange(int(length / sample_rate / period) + 1) + phase) * period * sample_rate).long()
        pulses = torch.zeros(length)
        pulses[moments[moments < length]] = 1.0
        return _band(pulses, low, high, sample_rate)
    number = round((high - low) / (110 + 50 * pace))  # partials 110 to 160 mel apart
    mels = low + (high - low) * (torch.arange(number) + 0.5) / number
    hertz = 700 * (10 ** (mels.double() / 2595) - 1)
    phases = 2 * math.pi * ((phase * (1 + torch.arange(number)) ** 2) % 1)
    return torch.sin(2 * math.pi * hertz[:, None] * time + phases[:, None]).sum(0).float()


def _band(wave: Tensor, low: float, high: float, sample_rate: int) -> Tensor:
    """Keep what lies between two frequencies (mel), with edges 20 mel wide and the same power in every mel."""
    spectrum = torch.fft.rfft(wave)
    mel = _mel(len(spectrum), sample_rate)
    hertz = torch.linspace(0, sample_rate / 2, len(spectrum))
    gain = ((mel - low) / 20 + 0.5).clamp(0, 1) * ((high - mel) / 20 + 0.5).clamp(0, 1)
    shaped: Tensor = torch.fft.irfft(spectrum * gain * (700 / (700 + hertz)).sqrt(), n=len(wave))
    return shaped


def _mel(bins: int, sample_rate: int) -> Tensor:
    return 2595 * torch.log10(1 + torch.linspace(0, sample_rate / 2, bins) / 700)
