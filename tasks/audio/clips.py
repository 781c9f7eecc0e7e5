"""Recordings in memory: read a part of a file as mono at one sampling rate, and make batches of different lengths."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypedDict

import soundfile
import torch
import torchaudio
from torch import Tensor
from torch.utils.data import Dataset

from tasks.audio.times import Unit
from tasks.data.problems import BadInput
from tasks.data.shards import Member

Fill = Literal["wrap", "silence"]
_GONE = 1e-3  # of the power, 30 dB below it: what is left of it is not the sound any more


class Clip(TypedDict):
    """One recording: (S,) samples, its target, its name in predictions.csv, and the boxes of its known events, if any.

    A box is (start, end, low, high) in seconds and hertz.
    """

    wave: Tensor
    target: Tensor
    id: str
    truth: list[tuple[float, float, float, float]]


def read_clip(
    path: Path | Member,
    *,
    sample_rate: int,
    start: float = 0.0,
    duration: float | None = None,
    unit: Unit = "seconds",
    channel: int | None = None,
) -> Tensor:
    """Read a recording, or a part of it, as mono at a sampling rate.

    Channels are averaged; another rate is converted by torchaudio's band-limited interpolation (J. O. Smith, Digital
    audio resampling).

    Args:
        path: A file that libsndfile reads: wav, flac, ogg, mp3 and others; or one in a shard.
        sample_rate: Samples per second of the result, in Hz.
        start: Where to start.
        duration: How much to read; everything up to the end unless given.
        unit: Of both: seconds, or samples of the file.
        channel: Which channel is read, from 0; None = the mean of all.

    Returns:
        (S,) samples, full scale being ±1.

    Raises:
        ValueError: If the file is missing, unreadable or truncated, holds NaN or inf, or ends before the part, or if
            nothing is left to hear: it is silent or constant, its channels cancel, or all is above half the rate.
    """
    return convert(*read_part(path, start=start, duration=duration, unit=unit, channel=channel), sample_rate)


def read_part(
    path: Path | Member,
    *,
    start: float = 0.0,
    duration: float | None = None,
    unit: Unit = "seconds",
    channel: int | None = None,
) -> tuple[Tensor, int]:
    """The samples (S,) of a recording as they are in the file, and their rate; arguments and errors of `read_clip`."""
    with _opened(path) as file:
        rate = int(file.samplerate)
        first, count = _part(start, duration, unit, file.frames, rate)
        file.seek(first)
        data = file.read(count, dtype="float32", always_2d=True)
    if len(data) < count:
        raise ValueError(f"truncated: expected {count} samples from its header, got {len(data)}; copy the file again")
    return _mono(torch.from_numpy(data), channel), rate


def convert(wave: Tensor, rate: int, sample_rate: int) -> Tensor:
    """Samples at another rate.

    Raises:
        ValueError: If hardly anything of the sound is below half of it.
    """
    converted = _resample(wave, rate, sample_rate)
    if converted.square().mean() < _GONE * wave.square().mean():
        raise ValueError(
            f"nearly all of it is above {sample_rate / 2:g} Hz and lost at {sample_rate} Hz; raise --data.sample_rate, "
            "or leave it out"
        )
    return converted


def measure_clip(
    path: Path | Member, *, start: float = 0.0, duration: float | None = None, unit: Unit = "seconds"
) -> int:
    """The sampling rate of a file, whose header says that the part is there; arguments and errors of `read_clip`."""
    with _opened(path) as file:
        _part(start, duration, unit, file.frames, file.samplerate)
        return int(file.samplerate)


@contextmanager
def _opened(path: Path | Member) -> Iterator[soundfile.SoundFile]:
    if isinstance(path, Path) and not path.is_file():
        raise ValueError("file does not exist; correct the path or leave it out")
    try:
        with soundfile.SoundFile(path if isinstance(path, Path) else path.open()) as file:
            yield file
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise ValueError(
            f"cannot be read as audio ({_reason(error)}); export it again as wav, flac, ogg or mp3"
        ) from error


def _mono(channels: Tensor, channel: int | None) -> Tensor:
    """One channel of (S, C), or the mean of all."""
    total = channels.shape[1]
    if channel is not None and not 0 <= channel < total:
        raise ValueError(f"channel: expected 0 to {total - 1}, as the file has {total}, got {channel}; choose another")
    wave = channels.mean(1) if channel is None else channels[:, channel]
    if not wave.isfinite().all():
        raise ValueError(f"{int((~wave.isfinite()).sum())} samples are NaN or inf; export the file again")
    loudness = channels.square().mean()
    if channel is None and wave.square().mean() < _GONE * loudness:
        raise ValueError(
            f"its {total} channels cancel each other in their mean (one is another turned around); take one of them "
            "with --data.channel 0"
        )
    if not wave.any():
        quiet = " in this channel" if loudness > 0 else ""
        raise ValueError(f"silent{quiet}: every sample is zero; choose another part or leave it out")
    if len(wave) > 1 and bool((wave == wave[0]).all()):
        raise ValueError(f"constant: every sample is {float(wave[0]):.3g}; choose another part or leave it out")
    return wave


def _part(start: float, duration: float | None, unit: Unit, frames: int, rate: int) -> tuple[int, int]:
    """First sample and number of samples of a part of a file, checked against what the file holds."""
    if unit == "samples":
        start, duration = start / rate, None if duration is None else duration / rate
    seconds = frames / rate
    if frames == 0:
        raise ValueError("holds no samples; record it again or leave it out")
    if not 0 <= start < seconds:
        raise ValueError(f"start: expected 0 to {seconds:.3f} s (the file's length), got {start:g}; correct the row")
    first = round(start * rate)
    count = frames - first if duration is None else round(duration * rate)
    # Lengths in tables are rounded, to hundredths of a second: so much beyond the end is not an error.
    if count <= 0 or first + count > frames + rate / 100:
        raise ValueError(
            f"duration: expected more than 0 and at most {seconds - start:.3f} s after start {start:g} s "
            f"(the file has {seconds:.3f} s), got {duration:g}; correct the row"
        )
    return first, min(count, frames - first)


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).strip().rstrip(".") or type(error).__name__


def _resample(wave: Tensor, rate: int, sample_rate: int) -> Tensor:
    if rate == sample_rate:
        return wave
    resampled: Tensor = torchaudio.functional.resample(wave, rate, sample_rate)
    return resampled


class Clips(Dataset[Clip]):
    """Clips in memory, moved in time by a random amount where asked.

    A shift is drawn anew at every look in training; with ``fixed=True`` clip i always gets the same one, so that a test
    gives the same number twice.

    Args:
        clips: The recordings.
        sample_rate: Their sampling rate in Hz.
        shift: Longest shift to a later time, in seconds; 0 leaves the clips where they are.
        fill: What comes in from the left: ``"wrap"`` the clip's own end (a loop), ``"silence"`` zeros.
        fixed: Draw each clip's shift once.
        seed: Seed of the fixed shifts.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        *,
        sample_rate: int,
        shift: float = 0.0,
        fill: Fill = "wrap",
        fixed: bool = False,
        seed: int = 0,
    ):
        if shift < 0:
            raise ValueError(f"expected a shift of 0 s or more, got {shift}; a clip can only be moved to a later time")
        self.clips = clips
        self.sample_rate, self.shift, self.fill = sample_rate, shift, fill
        self.draws = torch.rand(len(clips), generator=torch.Generator().manual_seed(seed)) if fixed else None

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, number: int) -> Clip:
        clip = self.clips[number]
        if self.shift == 0 or clip is None:
            return clip
        draw = torch.rand(()) if self.draws is None else self.draws[number]
        samples = round(float(draw) * self.shift * self.sample_rate)
        # The known events stay with a clip only where it does: after a shift their boxes would be wrong.
        return {**clip, "wave": shifted(clip["wave"], samples, self.fill), "truth": []}


def shifted(wave: Tensor, samples: int, fill: Fill = "wrap") -> Tensor:
    """Move a clip to a later time; its length stays.

    Example:
        >>> shifted(torch.arange(4.0), 1), shifted(torch.arange(4.0), 1, "silence")
        (tensor([3., 0., 1., 2.]), tensor([0., 0., 1., 2.]))
    """
    if fill == "wrap":
        return wave.roll(samples)
    samples = min(samples, len(wave))
    return torch.cat([wave.new_zeros(samples), wave[: len(wave) - samples]])


def collate_clips(samples: Sequence[Clip]) -> dict[str, Any]:
    """Pad clips at their end to the longest one.

    Returns:
        ``wave`` (B, S), ``lengths`` (B,) in samples, ``target`` (B, ...), and the lists ``id`` and ``truth``.

    Raises:
        BadInput: If none of them could be read.
    """
    samples = [sample for sample in samples if sample is not None]  # where unreadable ones are to be skipped
    if not samples:
        raise BadInput("expected a batch with clips that can be read, got none; correct the files named above")
    return {
        "wave": torch.nn.utils.rnn.pad_sequence([sample["wave"] for sample in samples], batch_first=True),
        "lengths": torch.tensor([len(sample["wave"]) for sample in samples]),
        "target": torch.stack([sample["target"] for sample in samples]),
        "id": [sample["id"] for sample in samples],
        "truth": [sample["truth"] for sample in samples],
    }
