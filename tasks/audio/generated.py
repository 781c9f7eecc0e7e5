"""Generated recordings as data: made on the spot, the same on every machine, with known boxes of what matters."""

from abc import abstractmethod

import torch
from torch import Tensor

from tasks.audio.clips import Clip, Clips, collate_clips
from tasks.audio.events import KINDS, make_events
from tasks.audio.sounds import FORMANTS, Box, make_rhythm, make_timbre, rhythm_patterns, to_hertz
from tasks.data.base import PoolingData


class _Generated(PoolingData):
    """Made clips in three parts, each from its own seed."""

    def __init__(self, sizes: dict[str, int], sample_rate: int, classes: list[str], **base):
        super().__init__(**base)
        self.sizes, self.sample_rate, self.classes = sizes, sample_rate, classes

    @abstractmethod
    def make(self, number: int, seed: int) -> tuple[list[Tensor], list[int], list[list[Box]]]:
        """Make clips, their classes and their boxes."""

    def load(self) -> None:
        """Make the clips; the fold is part of the seed, so that another fold is another draw of everything."""
        for part, (name, size) in enumerate(self.sizes.items()):
            made = zip(*self.make(size, seed=3 * (1000 * self.seed + self.fold) + part), strict=True)
            clips = [
                Clip(wave=wave, target=torch.tensor(label), id=f"{name}_{i:04d}", truth=boxes)
                for i, (wave, label, boxes) in enumerate(made)
            ]
            self.datasets[name] = Clips(clips, sample_rate=self.sample_rate)
        labels = torch.stack([clip["target"] for clip in self.datasets["train"].clips])
        self._spec = {
            "kind": "multiclass",
            "classes": self.classes,
            "channels": 1,
            "sample_rate": self.sample_rate,
            "class_counts": torch.bincount(labels, minlength=len(self.classes)).tolist(),
            "train_size": len(labels),
        }

    def collate(self, samples: list[Clip]) -> dict:
        """Pad the clips of a batch to one length."""
        return collate_clips(samples)

    def elements(self, sample: Clip) -> int:
        """Samples of the wave."""
        return len(sample["wave"])


class TimbreData(_Generated):
    """Buzzes of random pitch and onset; the class is the place of their formant (`make_timbre`).

    Args:
        train: Number of training clips.
        val: Number of validation clips.
        test: Number of test clips.
        seconds: Longest clip; of several, the clips take turns.
        sample_rate: In Hz.
        base: batch_size, num_workers, fold, seed, on_bad.
    """

    def __init__(
        self,
        *,
        train: int = 240,
        val: int = 80,
        test: int = 200,
        seconds: float | list[float] = 1.5,
        sample_rate: int = 16000,
        **base,
    ):
        sizes = {"train": train, "val": val, "test": test}
        super().__init__(sizes, sample_rate, [f"formant at {to_hertz(mel):.0f} Hz" for mel in FORMANTS], **base)
        self.seconds = seconds

    def make(self, number: int, seed: int) -> tuple[list[Tensor], list[int], list[list[Box]]]:
        """Make a part of the data."""
        return make_timbre(number, seconds=self.seconds, sample_rate=self.sample_rate, seed=seed)


class RhythmData(_Generated):
    """Loops of hits with random sounds; the class is the cyclic order of the intervals between them (`make_rhythm`).

    Args:
        train: Number of training clips.
        val: Number of validation clips.
        test: Number of test clips.
        cycles: Times that the pattern is played; of several, the clips take turns.
        sample_rate: In Hz.
        base: batch_size, num_workers, fold, seed, on_bad.
    """

    def __init__(
        self,
        *,
        train: int = 360,
        val: int = 90,
        test: int = 240,
        cycles: int | list[int] = 2,
        sample_rate: int = 16000,
        **base,
    ):
        sizes = {"train": train, "val": val, "test": test}
        super().__init__(sizes, sample_rate, ["-".join(map(str, order)) for order in rhythm_patterns()], **base)
        self.cycles = cycles

    def make(self, number: int, seed: int) -> tuple[list[Tensor], list[int], list[list[Box]]]:
        """Make a part of the data."""
        return make_rhythm(number, cycles=self.cycles, sample_rate=self.sample_rate, seed=seed)


class EventData(_Generated):
    """Noise with one event in it; the class is its kind, and its box in time and frequency is known (`make_events`).

    Args:
        train: Number of training clips.
        val: Number of validation clips.
        test: Number of test clips.
        seconds: Longest clip; of several, the clips take turns.
        sample_rate: In Hz.
        base: batch_size, num_workers, fold, seed, on_bad.
    """

    def __init__(
        self,
        *,
        train: int = 400,
        val: int = 120,
        test: int = 240,
        seconds: float | list[float] = 2.4,
        sample_rate: int = 16000,
        **base,
    ):
        super().__init__({"train": train, "val": val, "test": test}, sample_rate, list(KINDS), **base)
        self.seconds = seconds

    def make(self, number: int, seed: int) -> tuple[list[Tensor], list[int], list[list[Box]]]:
        """Make a part of the data."""
        return make_events(number, seconds=self.seconds, sample_rate=self.sample_rate, seed=seed)
