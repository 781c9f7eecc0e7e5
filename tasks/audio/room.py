"""Random changes of recordings in training: what another room, microphone, player or instrument would make of them."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torchaudio
from torch import Tensor, nn

from tasks.data.problems import BadInput
from tasks.extras import find_class


class Change(nn.Module):
    """One random change, another for each recording of a batch.

    Args:
        probability: Share of the recordings that are changed.
    """

    sample_rate = 16000
    """In Hz; set by `Changes`."""

    def __init__(self, probability: float = 1.0):
        super().__init__()
        if not 0 <= probability <= 1:
            raise ValueError(f"probability: expected a share from 0 to 1, got {probability}; change it")
        self.probability = probability

    def forward(self, wave: Tensor) -> Tensor:
        """Change (B, S); what is beyond a recording's length stays whatever it becomes, and is not looked at."""
        there = torch.rand(len(wave), 1, device=wave.device) < self.probability
        return torch.where(there, self.change(wave), wave)

    def change(self, wave: Tensor) -> Tensor:
        """Change all of (B, S)."""
        raise NotImplementedError

    def _between(self, wave: Tensor, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(wave), 1, device=wave.device)


class Gain(Change):
    """Louder or softer by up to ``db`` decibels. A spectrogram relative to its peak does not see it."""

    def __init__(self, db: float = 12.0, probability: float = 1.0):
        super().__init__(probability)
        self.db = db

    def change(self, wave: Tensor) -> Tensor:
        """See `Change`."""
        return wave * 10 ** (self._between(wave, -self.db, self.db) / 20)


class Noise(Change):
    """Coloured noise, whose power falls with frequency to the power of 0 (white) to 2 (brown), ``snr_db`` below.

    Args:
        snr_db: Least and most decibels between the recording's power and the noise's.
        probability: Share of the recordings that are changed.
    """

    def __init__(self, snr_db: tuple[float, float] = (10.0, 40.0), probability: float = 1.0):
        super().__init__(probability)
        self.snr_db = snr_db

    def change(self, wave: Tensor) -> Tensor:
        """See `Change`."""
        spectrum = torch.fft.rfft(torch.randn_like(wave))
        fall = torch.arange(1, spectrum.shape[1] + 1, device=wave.device) ** (-self._between(wave, 0.0, 2.0) / 2)
        noise = torch.fft.irfft(spectrum * fall, wave.shape[1])
        lengths = torch.full((len(wave),), wave.shape[1], device=wave.device)
        noisy: Tensor = torchaudio.functional.add_noise(wave, noise, self._between(wave, *self.snr_db)[:, 0], lengths)
        return noisy


class Reverb(Change):
    """A room: convolution with an impulse response, of a folder or generated, its level beside the sound drawn too.

    A generated one is noise that falls by 60 dB within the reverberation time, behind a direct sound (Moorer 1979).

    Args:
        folder: Recordings of impulse responses; None = generated.
        seconds: Shortest and longest reverberation time.
        wet_db: Least and most decibels of the room's energy beside the direct sound's (generated).
        probability: Share of the recordings that are changed.

    Raises:
        BadInput: If there is no such folder, or nothing in it can be read.
    """

    def __init__(
        self,
        folder: str | None = None,
        seconds: tuple[float, float] = (0.1, 1.0),
        wet_db: tuple[float, float] = (-25.0, 0.0),
        probability: float = 0.5,
    ):
        super().__init__(probability)
        self.seconds, self.wet_db = seconds, wet_db
        self.responses = [] if folder is None else _responses(Path(folder))

    def change(self, wave: Tensor) -> Tensor:
        """See `Change`."""
        rooms = self._recorded(wave) if self.responses else self._generated(wave)
        wet: Tensor = torchaudio.functional.fftconvolve(wave, rooms)[:, : wave.shape[1]]
        return wet * (_rms(wave) / _rms(wet))

    def _recorded(self, wave: Tensor) -> Tensor:
        found = [self._at_rate[int(torch.randint(len(self.responses), ()))] for _ in wave]
        return nn.utils.rnn.pad_sequence(found, batch_first=True).to(wave)

    @functools.cached_property
    def _at_rate(self) -> list[Tensor]:
        """The responses at the recordings' rate, which is known once it was set."""
        return [torchaudio.functional.resample(one, rate, self.sample_rate) for one, rate in self.responses]

    def _generated(self, wave: Tensor) -> Tensor:
        time = torch.arange(round(self.seconds[1] * self.sample_rate), device=wave.device) / self.sample_rate
        tail: Tensor = torch.randn(len(wave), len(time), device=wave.device)
        tail = tail * 10 ** (-3 * time / self._between(wave, *self.seconds))  # -60 dB of power at the end
        tail = tail / tail.norm(dim=1, keepdim=True) * 10 ** (self._between(wave, *self.wet_db) / 20)
        direct = nn.functional.pad(torch.ones_like(tail[:, :1]), (0, len(time) - 1))
        return direct + tail


class Equaliser(Change):
    """A smooth random gain over frequency: ``bands`` gains at equal steps of pitch, joined by lines.

    Args:
        db: Standard deviation of the gains, in decibels.
        bands: How many, from 50 Hz to half the sampling rate.
        probability: Share of the recordings that are changed.
    """

    def __init__(self, db: float = 6.0, bands: int = 6, probability: float = 1.0):
        super().__init__(probability)
        self.db, self.bands = db, bands

    def change(self, wave: Tensor) -> Tensor:
        """See `Change`."""
        spectrum = torch.fft.rfft(wave)
        frequency = torch.linspace(0, self.sample_rate / 2, spectrum.shape[1], device=wave.device).clamp(min=50)
        place = (frequency / 50).log() / torch.tensor(self.sample_rate / 100).log() * (self.bands - 1)
        low = place.long().clamp(max=self.bands - 2)
        gains = self.db * torch.randn(len(wave), self.bands, device=wave.device)
        gain = gains[:, low] + (place - low) * (gains[:, low + 1] - gains[:, low])
        changed: Tensor = torch.fft.irfft(spectrum * 10 ** (gain / 20), wave.shape[1])
        return changed


class Speed(Change):
    """Faster or slower, as a tape is: pitch and tempo move together, and the end is cut off or padded with silence.

    Labels that are a pitch or a tempo do not hold any more.

    Args:
        factor: Slowest and fastest.
        steps: Of how many factors between them one is drawn; each needs a filter.
        probability: Share of the recordings that are changed.
    """

    def __init__(self, factor: tuple[float, float] = (0.9, 1.1), steps: int = 5, probability: float = 1.0):
        super().__init__(probability)
        if steps < 2:
            raise ValueError(f"steps: expected 2 or more, got {steps}; change it")
        self.factors = torch.linspace(*factor, steps).tolist()

    def change(self, wave: Tensor) -> Tensor:
        """See `Change`."""
        chosen = torch.randint(len(self.factors), (len(wave),))
        changed = torch.zeros_like(wave)
        for number in sorted(set(chosen.tolist())):
            rows = (chosen == number).nonzero().flatten().to(wave.device)
            rate = round(self.factors[number] * 100)
            found = torchaudio.functional.resample(wave[rows], rate, 100)[:, : wave.shape[1]]
            changed[rows] = nn.functional.pad(found, (0, wave.shape[1] - found.shape[1]))
        return changed


class Changes(nn.Module):
    r"""Random changes one after the other, in training alone.

    Args:
        listed: Class paths, or mappings of ``class_path`` and ``init_args``, plain values: `Change`\\ s, or classes of
            torch-audiomentations, which take (B, 1, S) and a sampling rate.
        sample_rate: In Hz.

    Raises:
        ValueError: If one cannot be built.

    Example:
        >>> changes = Changes(["tasks.audio.room.Gain", {"class_path": "tasks.audio.room.Noise"}], 16000)
        >>> changes(torch.randn(2, 800)).shape
        torch.Size([2, 800])
    """

    def __init__(self, listed: Sequence[str | Mapping[str, Any]], sample_rate: int):
        super().__init__()
        self.sample_rate = sample_rate
        self.steps = nn.ModuleList([_build(one) for one in listed])
        for step in self.steps:
            step.sample_rate = sample_rate  # type: ignore[assignment]

    def forward(self, wave: Tensor) -> Tensor:
        """Change (B, S) if training."""
        if not self.training:
            return wave
        for step in self.steps:
            own = isinstance(step, Change)
            wave = step(wave) if own else step(wave[:, None], sample_rate=self.sample_rate)[:, 0]
        return wave


def _build(one: str | Mapping[str, Any]) -> nn.Module:
    path, options = (one, {}) if isinstance(one, str) else (one.get("class_path", ""), one.get("init_args", {}))
    if path.startswith("torch_audiomentations."):  # it returns an object without this
        options = {"output_type": "tensor", **options}
    try:
        made = find_class(path)(**options)
    except (TypeError, ValueError, BadInput) as error:
        raise ValueError(f"waveform: {path} cannot be built: {error}") from error
    if not isinstance(made, nn.Module):
        raise ValueError(f"waveform: expected modules that change waveforms, got {path}; name others")
    return made


def _responses(folder: Path) -> list[tuple[Tensor, int]]:
    import soundfile

    found, wrong = [], []
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        try:
            wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
            found.append((torch.from_numpy(wave[:, 0]), int(rate)))
        except (soundfile.LibsndfileError, OSError):
            wrong.append(path.name)
    if not found:
        got = f"{len(wrong)} files that are none ({', '.join(wrong[:3])})" if wrong else "none"
        raise BadInput(
            f"{folder}: expected a folder of impulse responses, got {got}; leave folder out to generate them"
        )
    return found


def _rms(x: Tensor) -> Tensor:
    return x.square().mean(1, keepdim=True).sqrt().clamp(min=1e-9)
