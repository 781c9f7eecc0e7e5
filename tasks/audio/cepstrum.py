"""What a network is given of a log-mel spectrogram, where that is not its bands as they are."""

from typing import Any

import torch
import torchaudio
from torch import Tensor, nn

from tasks.audio.encoder import OwnNetwork, SpectrogramNet, zero_beyond

_QUIET = 1e-6  # variance, of levels between 0 and 1, below which a band counts as constant


class Prepared(nn.Module):
    """A network that is given cepstral coefficients, or rows with the mean 0 and the variance 1 over each clip.

    The coefficients are torchaudio's (Davis and Mermelstein 1980): an orthonormal cosine transform of the bands of each
    frame, here of levels below the clip's peak, which shifts the first by a constant, in units of the spectrogram's
    range. Every coefficient sees all bands, so that a map of one tells moments and no bands. The normalisation is
    torchaudio's ``sliding_window_cmn`` with the clip as its window (cepstral mean and variance normalisation).

    Args:
        network: The network.
        bands: Mel bands of the spectrogram.
        mfcc: Coefficients; 0 = the bands.
        standardise: Whether rows are brought to mean 0 and variance 1 over the valid frames of their clip.

    Shape:
        As the network's.
    """

    cosines: Tensor

    def __init__(self, network: SpectrogramNet | OwnNetwork, bands: int, *, mfcc: int = 0, standardise: bool = False):
        super().__init__()
        if network.waveform:
            raise ValueError(
                "mfcc and standardise change spectrograms, and the encoder takes waveforms; leave them out"
            )
        if not 0 <= mfcc <= bands:
            raise ValueError(f"mfcc: expected at most {bands} coefficients, the number of mel bands, got {mfcc}")
        self.given, self.standardise = network, standardise
        self.register_buffer("cosines", torchaudio.functional.create_dct(mfcc or 1, bands, "ortho"), persistent=False)
        self.waveform, self.relative, self.mixes = False, getattr(network, "relative", False), bool(mfcc)
        (high, long), (low, early) = network.cell, network.first
        # All coefficients stand where all bands do.
        self.cell = (bands, long) if mfcc else (high, long)
        self.first = ((bands - 1) / 2, early) if mfcc else (low, early)

    @property
    def network(self) -> nn.Module:
        """The network as it was written, which `weights` are for."""
        inner = getattr(self.given, "network", self.given)
        assert isinstance(inner, nn.Module)
        return inner

    def count(self, length: int) -> int:
        """Cells along time of a clip of so many frames."""
        return self.given.count(length)

    def forward(self, x: Tensor, frames: Tensor, mean: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode a batch of spectrograms; ``mean`` is the mean level of the whole clip, where this is a part."""
        known: dict[str, Any] = {} if mean is None else {"mean": self.rows(mean)}
        x = self.rows(x)
        if self.standardise:
            x = standardised(x, frames)
        features: tuple[Tensor, Tensor] = self.given(x, frames, **known)
        return features

    def rows(self, x: Tensor) -> Tensor:
        """The coefficients of frames, or their bands as they are."""
        if not self.mixes:
            return x
        return torch.einsum("bcft,fk->bckt", x.expand(-1, -1, len(self.cosines), -1), self.cosines.to(x))


Network = SpectrogramNet | OwnNetwork | Prepared


def prepared(network: SpectrogramNet | OwnNetwork, bands: int, *, mfcc: int = 0, standardise: bool = False) -> Network:
    """The network, or what is asked for around it (`Prepared`)."""
    return Prepared(network, bands, mfcc=mfcc, standardise=standardise) if mfcc or standardise else network


def standardised(x: Tensor, frames: Tensor) -> Tensor:
    """Rows of (B, 1, F, T) with the mean 0 and the variance 1 over the valid frames of each clip; zero beyond.

    Example:
        >>> standardised(torch.tensor([1.0, 3.0, 9.0])[None, None, None], torch.tensor([2]))
        tensor([[[[-1.,  1.,  0.]]]])
    """
    count = frames[:, None, None, None]
    mean = zero_beyond(x, frames).sum(-1, keepdim=True) / count
    centred = zero_beyond(x - mean, frames)
    var = centred.square().sum(-1, keepdim=True) / count
    return torch.where(var > _QUIET, centred * var.clamp(min=_QUIET).rsqrt(), 0.0)
