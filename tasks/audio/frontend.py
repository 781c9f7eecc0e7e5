"""From samples to a log-mel spectrogram, on the device, and the random changes that training makes to it."""

import torch
import torchaudio
from torch import Tensor, nn


class LogMel(nn.Module):
    """Log-mel spectrogram in decibels below the clip's own peak, between 0 (``-range_db``) and 1 (the peak).

    The level is taken out clip by clip, so that a recording's gain says nothing. Frame t is centred at t·hop; the edges
    see silence, so that a clip gives the same frames alone and padded in a batch.

    Args:
        sample_rate: Of the samples, in Hz.
        mels: Number of mel bands.
        window_ms: Length of the Hann window in ms; its transform is as long as the next power of two.
        hop_ms: Time from frame to frame in ms.
        f_min: Lowest frequency in Hz.
        range_db: Decibels below the peak that count as silence.

    Shape:
        Samples (B, S) and lengths (B,) to (B, 1, F, T) and the number of valid frames (B,).
    """

    def __init__(
        self,
        sample_rate: int,
        *,
        mels: int = 64,
        window_ms: float = 64.0,
        hop_ms: float = 10.0,
        f_min: float = 30.0,
        range_db: float = 80.0,
    ):
        super().__init__()
        self.sample_rate, self.range_db, self.f_min = sample_rate, range_db, f_min
        self.hop = round(hop_ms * sample_rate / 1000)
        window = round(window_ms * sample_rate / 1000)
        self.mel = torchaudio.transforms.MelSpectrogram(
            sample_rate,
            n_fft=1 << (window - 1).bit_length(),
            win_length=window,
            hop_length=self.hop,
            n_mels=mels,
            f_min=f_min,
            power=2.0,
            pad_mode="constant",
        )

    def forward(self, wave: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the spectrogram; frames beyond a clip's length are zero."""
        power = self.power(wave)
        frames = self.count(lengths)
        keep = (torch.arange(power.shape[-1], device=power.device) < frames[:, None])[:, None]  # (B, 1, T)
        power = power * keep
        return (self.level(power, power.amax((1, 2), keepdim=True)) * keep)[:, None], frames

    def power(self, wave: Tensor) -> Tensor:
        """Power in each band, (B, F, T)."""
        with torch.autocast(
            wave.device.type, enabled=False
        ):  # the squares of quiet samples underflow in half precision
            power: Tensor = self.mel(wave.float())
        return power

    def level(self, power: Tensor, peak: Tensor) -> Tensor:
        """Level of each bin below the peak of its clip, (B, 1, 1), between 0 and 1."""
        level = 1 + 10 / self.range_db * (power / peak.clamp(min=1e-20)).clamp(min=1e-12).log10()
        return level.clamp(min=0)

    def count(self, lengths: Tensor) -> Tensor:
        """Number of frames of clips of so many samples."""
        return lengths // self.hop + 1

    def frequencies(self) -> Tensor:
        """Centre of each mel band in Hz, (F,), on the HTK scale that torchaudio uses."""
        ends = to_mel(torch.tensor([self.f_min, self.sample_rate / 2], dtype=torch.float64))
        mels = torch.linspace(float(ends[0]), float(ends[1]), self.mel.n_mels + 2, dtype=torch.float64)[1:-1]
        return 700 * (10 ** (mels / 2595) - 1)


def to_mel(hertz: Tensor) -> Tensor:
    """Mel of frequencies in Hz, HTK's formula, which torchaudio uses."""
    return 2595 * torch.log10(1 + hertz / 700)


class Augment(nn.Module):
    """Random changes of a log-mel spectrogram in training: pitch, colour, noise, and SpecAugment's masks.

    SpecAugment: Park et al. 2019, arXiv 1904.08779, through torchaudio. In evaluation the input is returned as it is.

    Args:
        frequencies: Centre of each mel band in Hz.
        range_db: Decibels from 0 to 1 (`LogMel`).
        pitch: Largest transposition, in semitones, up or down; partials and formants move together.
        colour_db: Standard deviation of a random smooth gain over frequency, in dB.
        noise_db: Standard deviation of independent noise, in dB.
        mask_bands: Widest band of frequencies set to silence, in mel bands.
        mask_frames: Longest stretch of time set to silence, in frames.
    """

    frequencies: Tensor

    def __init__(
        self,
        frequencies: Tensor,
        *,
        range_db: float = 80.0,
        pitch: float = 0.0,
        colour_db: float = 0.0,
        noise_db: float = 0.0,
        mask_bands: int = 0,
        mask_frames: int = 0,
    ):
        super().__init__()
        self.pitch = pitch
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.colour, self.noise = colour_db / range_db, noise_db / range_db
        self.masks = nn.Sequential()
        if mask_bands:
            self.masks.append(torchaudio.transforms.FrequencyMasking(mask_bands, iid_masks=True))
        if mask_frames:
            self.masks.append(torchaudio.transforms.TimeMasking(mask_frames, iid_masks=True))

    def forward(self, x: Tensor) -> Tensor:
        """Change (B, 1, F, T) if training."""
        if not self.training:
            return x
        if self.pitch:
            x = self._transpose(x)
        batch, _, bands, _ = x.shape
        if self.colour:  # four random gains, joined by straight lines over frequency
            gains = torch.randn(batch, 1, 4, device=x.device) * self.colour
            gains = nn.functional.interpolate(gains, bands, mode="linear", align_corners=True)[..., None]
            x = x + gains * (x > 0)
        if self.noise:
            x = x + self.noise * torch.randn_like(x) * (x > 0)
        masked: Tensor = self.masks(x).clamp(min=0)
        return masked

    def _transpose(self, x: Tensor) -> Tensor:
        """Transpose each spectrogram by its own interval: read it at r·f, between bands on a straight line."""
        batch, _, bands, frames = x.shape
        semitones = self.pitch * (2 * torch.rand(batch, 1, device=x.device) - 1)
        mels, wanted = to_mel(self.frequencies), to_mel(self.frequencies * 2 ** (semitones / 12))
        source = (wanted - mels[0]) / (mels[1] - mels[0])  # (B, F), in bands
        inside = (source > -1) & (source < bands)
        below = source.floor().clamp(0, bands - 2)
        share = (source - below).clamp(0, 1)[:, None, :, None].to(x.dtype)
        below = below.long()[:, None, :, None].expand(batch, 1, bands, frames)
        moved = (1 - share) * x.gather(2, below) + share * x.gather(2, below + 1)
        return moved * inside[:, None, :, None]
