"""What decided, to be heard: a map as a mask on the complex spectrogram of its recording, turned back into sound."""

from collections.abc import Callable, Iterator
from pathlib import Path

import soundfile
import torch
from torch import Tensor

from tasks.audio.frontend import LogMel, to_mel

_CHUNK = 3000  # frames that are turned back at once


def masks(evidence: Tensor, share: float = 0.995) -> tuple[Tensor, Tensor]:
    """How much of each bin is heard for, and against: the map's positive and negative part, 0 to 1.

    Args:
        evidence: Signed map (F, T).
        share: Share of the values, by magnitude, that masks tell apart; the others are heard whole.

    Example:
        >>> masks(torch.tensor([[-2.0, 1.0]]), share=1.0)
        (tensor([[0.0000, 0.5000]]), tensor([[1., 0.]]))
    """
    size = evidence.float().abs().flatten()
    size = size[size > 0]
    limit = float(size.kthvalue(max(1, round(share * len(size))))[0]) if len(size) else 1.0
    strength = (evidence / limit).clamp(-1, 1)
    return strength.clamp(min=0), (-strength).clamp(min=0)


def masked_sound(read: Callable[[int, int], Tensor], length: int, mask: Tensor, front: LogMel) -> Iterator[Tensor]:
    """A recording behind a mask, some seconds at a time.

    The mask multiplies the short-time Fourier transform of the front end's window and hop, between bands on a straight
    line over mel; its phase stays, and the inverse transform (Griffin and Lim 1984, equation 6) makes it sound.

    Args:
        read: Samples from one number to another, zeros beyond the ends.
        length: Of the recording, in samples.
        mask: (F, T), 0 to 1.
        front: The front end whose bins they are.

    Yields:
        Samples, ``length`` in all.
    """
    size, hop, window = front.mel.n_fft, front.hop, front.mel.spectrogram.window.cpu()
    options = {"n_fft": size, "hop_length": hop, "win_length": len(window), "window": window, "center": True}
    around = -(-size // hop) + 1
    frames = mask.shape[1]
    matrix = _onto_bins(front)
    for first in range(0, frames, _CHUNK):
        last = min(first + _CHUNK, frames)
        wave = read((first - around) * hop, (last + around) * hop).cpu()
        spectrum = torch.stft(wave, pad_mode="constant", return_complex=True, **options)
        here = mask[:, max(first - around, 0) : last + around + 1].float().cpu()
        lead = max(around - first, 0)
        beyond = spectrum.shape[1] - lead - here.shape[1]  # frames around the ends are let through as these are
        here = torch.nn.functional.pad(here[None], (lead, beyond), mode="replicate")[0]
        sound = torch.istft(spectrum * (matrix @ here), length=len(wave), **options)
        yield sound[around * hop : around * hop + min(last * hop, length) - first * hop]


def _onto_bins(front: LogMel) -> Tensor:
    """(transform's bins, F): what each band says of each bin, those beyond the outermost centres like these."""
    bins = to_mel(torch.linspace(0, front.sample_rate / 2, front.mel.n_fft // 2 + 1, dtype=torch.float64))
    bands = to_mel(front.frequencies().double())
    place = ((bins - bands[0]) / (bands[1] - bands[0])).clamp(0, len(bands) - 1)
    low = place.floor().long().clamp(max=len(bands) - 2)
    matrix = torch.zeros(len(bins), len(bands), dtype=torch.float64)
    rows = torch.arange(len(bins))
    matrix[rows, low], matrix[rows, low + 1] = 1 - (place - low), place - low
    return matrix.float()


def write_heard(
    read: Callable[[int, int], Tensor], length: int, evidence: Tensor, front: LogMel, stem: Path
) -> list[Path]:
    """Write a recording, and what in it speaks for and against, as WAV at the front end's rate.

    Args:
        read: As of `masked_sound`.
        length: Of the recording, in samples.
        evidence: Signed map (F, T).
        front: The front end.
        stem: Files are called ``stem``_original.wav, ``stem``_for.wav and ``stem``_against.wav.

    Returns:
        The files.
    """
    positive, negative = masks(evidence)
    step = _CHUNK * front.hop
    sounds = {
        "original": (read(first, min(first + step, length)) for first in range(0, length, step)),
        "for": masked_sound(read, length, positive, front),
        "against": masked_sound(read, length, negative, front),
    }
    files: list[Path] = []
    for name, pieces in sounds.items():
        files.append(stem.with_name(f"{stem.name}_{name}.wav"))
        with soundfile.SoundFile(files[-1], "w", front.sample_rate, 1, "PCM_16") as file:
            for piece in pieces:
                file.write(piece.float().cpu().clamp(-1, 1).numpy())
    return files
