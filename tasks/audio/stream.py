"""A recording of any length, read piece by piece: what `read_clip` gives of the whole, in memory for one piece."""

import math
from pathlib import Path

import soundfile
import torch
import torchaudio
from torch import Tensor

from tasks.data.problems import BadInput

_FILTER = 6 / 0.99  # half the width of torchaudio's interpolation filter, in samples of the lower rate


class Stream:
    """A sound file as mono at a sampling rate.

    Another rate is converted piece by piece, with as much around a piece as the filter is wide.

    Args:
        path: What libsndfile reads.
        sample_rate: Of what is read, in Hz.

    Raises:
        BadInput: If the file is missing, unreadable or empty.
    """

    def __init__(self, path: Path, sample_rate: int):
        self.path, self.sample_rate = path, sample_rate
        if not path.is_file():
            raise BadInput(f"{path}: file does not exist; correct the path or leave it out")
        try:
            info = soundfile.info(path)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            why = str(getattr(error, "error_string", error)).strip().rstrip(".")
            raise BadInput(
                f"{path}: cannot be read as audio ({why}); export it again as wav, flac, ogg or mp3"
            ) from error
        if not info.frames:
            raise BadInput(f"{path}: holds no samples; record it again or leave it out")
        self.rate, self.frames = int(info.samplerate), int(info.frames)
        common = math.gcd(self.rate, sample_rate)
        self.step = self.rate // common, sample_rate // common
        """So many samples of the file become so many of ours."""

    def __len__(self) -> int:
        """Samples."""
        theirs, ours = self.step
        return -(-self.frames * ours // theirs)

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.frames / self.rate

    def read(self, first: int, last: int) -> Tensor:
        """Samples ``first`` to ``last`` of ours, (last - first,); zeros beyond the ends.

        Raises:
            BadInput: If the file is truncated or damaged there, or holds NaN or inf.
        """
        low, high = max(first, 0), min(last, len(self))
        if low >= high:
            return torch.zeros(last - first)
        theirs, ours = self.step
        around = 0 if theirs == ours else math.ceil(_FILTER * max(theirs / ours, 1) / theirs) + 1
        begin = max(low // ours - around, 0)  # in steps
        end = -(-high // ours) + around
        start, stop = begin * theirs, min(end * theirs, self.frames)
        wave = _read(self.path, start, stop)
        if theirs != ours:
            wave = torchaudio.functional.resample(wave, self.rate, self.sample_rate)
        wave = wave[low - begin * ours : high - begin * ours]
        return torch.nn.functional.pad(wave, (low - first, last - high))


def _read(path: Path, start: int, stop: int) -> Tensor:
    """Samples of a file, all channels averaged.

    Raises:
        BadInput: If they are not there, or no numbers.
    """
    at = f"{path}: at sample {start}"
    try:
        data, _ = soundfile.read(path, stop - start, start, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise BadInput(f"{at}: cannot be read ({error}); export it again as wav, flac, ogg or mp3") from error
    if len(data) < stop - start:
        raise BadInput(f"{at}: truncated: expected {stop - start} samples, got {len(data)}; copy the file again")
    wave = torch.from_numpy(data).mean(1)
    if not wave.isfinite().all():
        raise BadInput(f"{at}: {int((~wave.isfinite()).sum())} samples are NaN or inf; export the file again")
    return wave
