"""Generated recordings as data: made on the spot, the same on every machine, with known boxes of what matters."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from tasks.audio.base import Recordings
from tasks.audio.clips import Clip, Clips
from tasks.audio.events import KINDS, make_events
from tasks.audio.sounds import FORMANTS, Box, make_rhythm, make_timbre, rhythm_patterns, to_hertz


class Generated(Recordings):
    """Made clips in three parts, each from its own seed.

    Args:
        train: Number of training clips; unless given, as many as `sizes` says.
        val: Number of validation clips.
        test: Number of test clips.
        sample_rate: In Hz.
        base: batch_size, num_workers, fold, seed, on_bad.
    """

    sizes: ClassVar[Mapping[str, int]]
    """Clips of each part."""
    classes: ClassVar[Sequence[str]]
    """What the classes are called."""

    def __init__(
        self,
        *,
        train: int | None = None,
        val: int | None = None,
        test: int | None = None,
        sample_rate: int = 16000,
        **base: Any,
    ):
        super().__init__(**base)
        asked = {"train": train, "val": val, "test": test}
        self.counts = {**self.sizes, **{part: size for part, size in asked.items() if size is not None}}
        self.sample_rate = sample_rate

    @abstractmethod
    def make(self, number: int, seed: int) -> tuple[list[Tensor], list[int], list[list[Box]]]:
        """Make clips, their classes and their boxes."""

    def load(self) -> None:
        """Make the clips; the fold is part of the seed, so that another fold is another draw of everything."""
        made: dict[str, list[Clip]] = {}
        for part, (name, size) in enumerate(self.counts.items()):
            clips = zip(*self.make(size, seed=3 * (1000 * self.seed + self.fold) + part), strict=True)
            made[name] = [
                Clip(wave=wave, target=torch.tensor(label), id=f"{name}_{i:04d}", truth=boxes)
                for i, (wave, label, boxes) in enumerate(clips)
            ]
            self.datasets[name] = Clips(made[name], sample_rate=self.sample_rate)
        labels = torch.stack([clip["target"] for clip in made["train"]])
        self._spec = {
            "kind": "multiclass",
            "classes": list(self.classes),
            "channels": 1,
            "sample_rate": self.sample_rate,
            "class_counts": torch.bincount(labels, minlength=len(self.classes)).tolist(),
            "train_size": len(labels),
        }


class TimbreData(Generated):
    """Buzzes of random pitch and onset; the class is the place of their formant (`make_timbre`).

    Args:
        seconds: Longest clip; of several, the clips take turns.
        base: train (240 unless given), val (80), test (200), sample_rate; batch_size, num_workers, fold, seed, on_bad.
    """

    sizes: ClassVar = {"train": 240, "val": 80, "test": 200}
    classes: ClassVar = [f"formant at {to_hertz(mel):.0f} Hz" for mel in FORMANTS]

    def __init__(self, *, seconds: float | list[float] = 1.5, **base: Any):
        super().__init__(**base)
        self.seconds = seconds

    def make(self, number: int, seed: int) -> tuple[list[Tensor], list[int], list[list[Box]]]:
        """Make a part of the data."""
        return make_timbre(number, seconds=self.seconds, sample_rate=self.sample_rate, seed=seed)


class RhythmData(Generated):
    """Loops of hits with random sounds; the class is the cyclic order of the intervals between them (`make_rhythm`).

    Args:
        cycles: Times that the pattern is played; of several, the clips take turns.
        base: train (360 unless given), val (90), test (240), sample_rate; batch_size, num_workers, fold, seed, on_bad.
    """

    sizes: ClassVar = {"train": 360, "val": 90, "test": 240}
    classes: ClassVar = ["-".join(map(str, order)) for order in rhythm_patterns()]

    def __init__(self, *, cycles: int | list[int] = 2, **base: Any):
        super().__init__(**base)
        self.cycles = cycles

    def make(self, number: int, seed: int) -> tuple[list[Tensor], list[int], list[list[Box]]]:
        """Make a part of the data."""
        return make_rhythm(number, cycles=self.cycles, sample_rate=self.sample_rate, seed=seed)


class EventData(Generated):
    """Noise with one event in it; the class is its kind, and its box in time and frequency is known (`make_events`).

    Args:
        seconds: Longest clip; of several, the clips take turns.
        base: train (400 unless given), val (120), test (240), sample_rate; batch_size, num_workers, fold, seed, on_bad.
    """

    sizes: ClassVar = {"train": 400, "val": 120, "test": 240}
    classes: ClassVar = KINDS

    def __init__(self, *, seconds: float | list[float] = 2.4, **base: Any):
        super().__init__(**base)
        self.seconds = seconds

    def make(self, number: int, seed: int) -> tuple[list[Tensor], list[int], list[list[Box]]]:
        """Make a part of the data."""
        return make_events(number, seconds=self.seconds, sample_rate=self.sample_rate, seed=seed)
