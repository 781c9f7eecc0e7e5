"""Views of recordings: a stretch of time, moved, louder or softer, in another colour, with noise."""

from typing import Any

import torch
from torch import Tensor

from tasks.data.crops import Crops, uniform


class SoundCrops(Crops):
    """Crop recordings in time and change their samples.

    The task's own ``pitch``, ``mask_bands`` and ``mask_frames`` (SpecAugment through torchaudio) change what the
    student sees beside it.

    Args:
        shift: Move a stretch to a random time: it goes on from its end to its beginning.
        gain_db: Largest gain, up or down, in dB; a spectrogram relative to its peak does not show it.
        colour_db: Equalisation: standard deviation of a smooth random gain over frequency, in dB.
        noise_db: Level of white noise under the recording's own, in dB, drawn between this and 30 dB below it; None
            adds none.
    """

    def __init__(
        self, *, shift: bool = False, gain_db: float = 6.0, colour_db: float = 4.0, noise_db: float | None = None
    ):
        self.shift, self.gain_db, self.colour_db, self.noise_db = shift, gain_db, colour_db, noise_db

    def crop(self, batch: dict[str, Any], low: float, high: float) -> dict[str, Any]:
        """Of each recording a stretch of random length and beginning; what lies beyond its end is 0."""
        wave, lengths = batch["wave"], batch["lengths"]
        size = len(lengths)
        new = (uniform(low, high, size, device=wave.device) * lengths).long().clamp(min=1)
        start = (torch.rand(size, device=wave.device) * (lengths - new + 1)).long()
        time = torch.arange(int(new.max()), device=wave.device)
        inside = time < new[:, None]
        place = (start[:, None] + time).clamp(max=wave.shape[1] - 1)
        # Events stay where they were, and their boxes would be wrong.
        return {**batch, "wave": wave.gather(1, place) * inside, "lengths": new, "truth": [[]] * size}

    def change(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Shift, colour, gain, noise."""
        wave, lengths = batch["wave"], batch["lengths"]
        inside = torch.arange(wave.shape[1], device=wave.device) < lengths[:, None]
        if self.shift:
            time = torch.arange(wave.shape[1], device=wave.device)
            by = (torch.rand(len(wave), 1, device=wave.device) * lengths[:, None]).long()
            wave = wave.gather(1, (time + by) % lengths[:, None])
        if self.colour_db:
            wave = coloured(wave, self.colour_db)
        if self.gain_db:
            wave = wave * 10 ** (uniform(-self.gain_db, self.gain_db, len(wave), 1, device=wave.device) / 20)
        if self.noise_db is not None:
            level = (wave.square() * inside).sum(1, keepdim=True) / lengths[:, None]
            under = uniform(self.noise_db, self.noise_db + 30, len(wave), 1, device=wave.device)
            wave = wave + torch.randn_like(wave) * (level * 10 ** (-under / 10)).sqrt()
        return {**batch, "wave": wave * inside}


def coloured(wave: Tensor, deviation_db: float, bands: int = 6) -> Tensor:
    """Filter each recording by its own random gain, a smooth curve over the logarithm of frequency.

    Args:
        wave: (B, S).
        deviation_db: Standard deviation of the gain at each of ``bands`` frequencies, between which it is straight.
        bands: From a 64th of half the sampling rate to all of it.
    """
    size = wave.shape[1]
    spectrum = torch.fft.rfft(wave)
    at = torch.arange(spectrum.shape[1], device=wave.device) / max(1, spectrum.shape[1] - 1)
    place = (1 + at.clamp(min=2**-6).log2() / 6) * (bands - 1)  # 0 to bands - 1
    below = place.long().clamp(max=bands - 2)
    gains = torch.randn(len(wave), bands, device=wave.device) * deviation_db
    gain = gains[:, below] + (place - below) * (gains[:, below + 1] - gains[:, below])
    filtered: Tensor = torch.fft.irfft(spectrum * 10 ** (gain / 20), n=size)
    return filtered
