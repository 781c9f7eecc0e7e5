"""What a recording says without a network: its spectrogram's means, its cepstrum, and its spectrogram in few cells."""

from collections.abc import Sequence
from typing import Any

import torch
import torchaudio
from torch import Tensor
from torch.nn import functional

COEFFICIENTS = 19  # of the cepstrum, without the first, which is the level
CELLS = (16, 16)  # bands and moments of the coarse spectrogram


def audio_floors(x: Tensor, frames: Tensor, axis: str) -> dict[str, Sequence[Any]]:
    """Describe each recording of a batch by a few numbers of its spectrogram.

    Args:
        x: Log-mel spectrograms, (B, F, T).
        frames: How many of the T frames are valid, (B,).
        axis: What the task pools: time, frequency or both. The mean and the standard deviation are taken over the same.

    Returns:
        By name a vector of each recording. Over time there are two numbers a band, over frequency two a frame, over
        both two in all; of the mel-frequency cepstral coefficients (Davis and Mermelstein 1980), a cosine transform of
        each frame, means and standard deviations over time; and means of ``CELLS`` equal parts of the spectrogram.

    Example:
        >>> found = audio_floors(torch.rand(2, 64, 50), torch.tensor([50, 40]), "time")
        >>> {name: [len(vector) for vector in vectors] for name, vectors in found.items()}
        {'log-mel over time': [128, 128], 'MFCC': [38, 38], 'coarse log-mel': [256, 256]}
    """
    own = [one[:, :count] for one, count in zip(x, frames.tolist(), strict=True)]
    dims = {"time": (1,), "frequency": (0,), "both": (0, 1)}[axis]
    cosines = torchaudio.functional.create_dct(COEFFICIENTS + 1, x.shape[1], "ortho").to(x)[:, 1:]
    # Mean and deviation of a frame stand side by side: what a shorter recording lacks is then missing at the end.
    pooled = [torch.stack([one.mean(dims), one.std(dims, correction=0)], -1).flatten() for one in own]
    cepstra = [cosines.T @ one for one in own]  # (19, frames)
    return {
        f"log-mel over {axis}": pooled,
        "MFCC": [torch.cat([one.mean(1), one.std(1, correction=0)]) for one in cepstra],
        "coarse log-mel": [functional.adaptive_avg_pool2d(one[None], CELLS).flatten() for one in own],
    }
