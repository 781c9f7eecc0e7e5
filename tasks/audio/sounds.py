"""Sounds with a known answer: timbre that only the frequency axis tells, rhythm that only time tells.

Pooling over the wrong axis is at chance by construction, as long as the network has no input that says which band an
element is in (``position: false``) and its own view is short.

- Timbre: every class is the same buzz through the same formant, moved along the mel axis. The pitch is lower than the
  spectrogram resolves, the density of power is the same in every mel band, so the formant looks alike everywhere, and a
  sum over frequency does not change when its terms are moved.
- Rhythm: every class has the same four intervals between hits in another cyclic order, played from a random point of
  the cycle with random sounds. A sum over time sees the intervals, not their order.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial

import scipy.fft
import torch
from torch import Tensor

from tasks.data.threads import side_by_side
from tasks.data.turns import take_turns

Box = tuple[float, float, float, float]

FORMANTS = (850.0, 1200.0, 1550.0, 1900.0)  # centres on the mel scale: 784, 1330, 2070, 3080 Hz
INTERVALS = (2, 3, 4, 5)  # sixteenths between hits
SIXTEENTH = 0.125  # s


def make_timbre(
    number: int, *, seconds: float | Sequence[float] = 1.5, sample_rate: int = 16000, seed: int = 0
) -> tuple[list[Tensor], list[int], list[list[Box]]]:
    """Make buzzes of a random pitch and onset whose class is the place of their formant.

    Args:
        number: How many clips; the classes take turns.
        seconds: Longest clip; clips last between two thirds of it and all of it. Of several, they take turns.
        sample_rate: In Hz.
        seed: The same seed gives the same clips.

    Returns:
        The clips (S,), their classes, and for each the box (start s, end s, low Hz, high Hz) of its buzz and formant.
    """
    draw = Draw(seed)
    made: list[Callable[[], Tensor]] = []
    labels, truth = [], []
    for i in range(number):
        label = i % len(FORMANTS)
        longest = take_turns(seconds, i, len(FORMANTS))
        length = round(draw.uniform(2 / 3, 1) * longest * sample_rate)
        duration = draw.uniform(0.3, 0.5) * length / sample_rate
        start = draw.uniform(0.05, 0.95) * (length / sample_rate - duration)
        pulses = torch.zeros(length)
        moment, pitch = start, draw.uniform(40, 90)  # Hz: slower than a 16 ms window can tell apart from single pulses
        while moment < start + duration:
            pulses[int(moment * sample_rate)] = 1.0
            moment += draw.uniform(0.97, 1.03) / pitch
        centre, width = FORMANTS[label] + draw.uniform(-50, 50), draw.uniform(70, 110)  # mel
        level = draw.uniform(15, 25)  # dB of a pulse over the noise, in its own mel band
        noise, peak = draw.normal(length), draw.uniform(0.2, 0.9)
        made.append(partial(_buzz, pulses, noise, start, duration, centre, width, level, peak, sample_rate))
        labels.append(label)
        truth.append([(start, start + duration, to_hertz(centre - 2 * width), to_hertz(centre + 2 * width))])
    return side_by_side(lambda one: one(), made), labels, truth


def _buzz(
    pulses: Tensor,
    noise: Tensor,
    start: float,
    duration: float,
    centre: float,
    width: float,
    level: float,
    peak: float,
    sample_rate: int,
) -> Tensor:
    """A buzz through its formant, faded in and out, over noise that is flat in mel."""
    buzz = _shape(pulses, centre, width, sample_rate)
    noise = _shape(noise, None, None, sample_rate)
    time = torch.arange(len(pulses)) / sample_rate
    rise = ((time - start) / 0.05).clamp(0, 1) * ((start + duration - time) / 0.05).clamp(0, 1)
    # Every pulse has the energy one, in however many hertz, so its level over the noise is the same in every class.
    buzz = buzz * pulses.sum().sqrt() / buzz.norm() * rise
    wave = buzz + noise / noise.std() * 0.36 * 10 ** (-level / 20)
    scaled: Tensor = wave * peak / wave.abs().max()
    return scaled


def rhythm_patterns() -> list[tuple[int, ...]]:
    """The cyclic orders of the four intervals: (4 - 1)! = 6 classes.

    Example:
        >>> rhythm_patterns()[0], len(rhythm_patterns())
        ((2, 3, 4, 5), 6)
    """
    return [(INTERVALS[0], *rest) for rest in itertools.permutations(INTERVALS[1:])]


def make_rhythm(
    number: int, *, cycles: int | Sequence[int] = 2, sample_rate: int = 16000, seed: int = 0
) -> tuple[list[Tensor], list[int], list[list[Box]]]:
    """Make loops of hits whose class is the cyclic order of the intervals between them.

    Every hit has its own pitch, mixture of tone and noise, decay and level; every clip starts at its own point of the
    cycle and lasts a whole number of cycles.

    Args:
        number: How many clips; the classes take turns.
        cycles: Times that the pattern is played; one lasts 1.75 s. Of several, the clips take turns.
        sample_rate: In Hz.
        seed: The same seed gives the same clips.

    Returns:
        The clips (S,), their classes, and for each the boxes (start s, end s, low Hz, high Hz) of its hits.
    """
    draw = Draw(seed)
    period = round(sum(INTERVALS) * SIXTEENTH * sample_rate)
    waves, labels, truth = [], [], []
    for i in range(number):
        label = i % len(rhythm_patterns())
        times = take_turns(cycles, i, len(rhythm_patterns()))
        intervals, length = rhythm_patterns()[label] * times, times * period
        phase = draw.uniform(0, length / sample_rate)
        wave, boxes = torch.zeros(length), []
        moments = torch.tensor((0, *intervals[:-1])).cumsum(0) * SIXTEENTH
        for moment in ((moments + phase) % (length / sample_rate)).tolist():
            hit, box = _hit(draw, sample_rate)
            # What rings beyond the end comes in again at the start: the clip is a loop.
            first = round((moment + draw.uniform(-0.005, 0.005)) * sample_rate)
            wave.index_add_(0, (torch.arange(len(hit)) + first) % length, hit)
            boxes.append((moment, min(moment + 0.1, length / sample_rate), *box))
        wave = wave + 0.003 * draw.normal(length)
        waves.append(wave * draw.uniform(0.2, 0.9) / wave.abs().max())
        labels.append(label)
        truth.append(sorted(boxes))
    return waves, labels, truth


class Draw:
    """Random numbers from one generator, so that a set is the same on every machine."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, low: float, high: float) -> float:
        """Draw a number between two."""
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def normal(self, length: int) -> Tensor:
        """Draw normal numbers, (length,)."""
        return torch.randn(length, generator=self.generator)


def _shape(wave: Tensor, centre: float | None, width: float | None, sample_rate: int) -> Tensor:
    """Filter white sound so that its power per mel is a Gaussian around ``centre`` (mel), flat if None."""
    spectrum = torch.from_numpy(scipy.fft.rfft(wave.numpy()))  # for such lengths twice to ten times as fast as torch's
    hertz = torch.linspace(0, sample_rate / 2, len(spectrum))
    gain = (700 / (700 + hertz)).sqrt()  # power per Hz falls as the mel scale widens
    if centre is not None and width is not None:
        mel = 2595 * torch.log10(1 + hertz / 700)
        gain = gain * torch.exp(-0.25 * ((mel - centre) / width) ** 2)
    return torch.from_numpy(scipy.fft.irfft((spectrum * gain).numpy(), n=len(wave)))


def _hit(draw: Draw, sample_rate: int) -> tuple[Tensor, tuple[float, float]]:
    """One drum-like sound and the band (low Hz, high Hz) where most of it is."""
    time = torch.arange(round(0.2 * sample_rate)) / sample_rate
    pitch = 150 * 2 ** draw.uniform(0, 4.5)  # Hz, up to 3.4 kHz
    bend, decay, noisy = draw.uniform(0, 1), draw.uniform(0.015, 0.05), draw.uniform(0, 1)
    phase = 2 * math.pi * pitch * (time + bend * 0.02 * (1 - torch.exp(-time / 0.02)))
    tone = torch.sin(phase)
    noise = _shape(draw.normal(len(time)), 2595 * math.log10(1 + pitch / 700), 150, sample_rate)
    noise = noise / noise.std() / math.sqrt(2)
    hit = ((1 - noisy) * tone + noisy * noise) * torch.exp(-time / decay)
    return hit * 10 ** (draw.uniform(-6, 0) / 20), (pitch / 1.5, pitch * 1.5)


def to_hertz(mel: float) -> float:
    """Frequency in Hz of a place on HTK's mel scale."""
    return 700 * (10 ** (mel / 2595) - 1)
