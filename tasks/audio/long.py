"""A long recording through a network: chunks of its spectrogram, with what belongs to the whole found before."""

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tasks.audio.cepstrum import Network
from tasks.audio.frontend import LogMel
from tasks.audio.stream import Stream
from tasks.data.problems import BadInput
from tasks.tiles import Parts, View, cut, field_of_view

CHUNK = 30.0
"""Seconds of a chunk unless said otherwise; what is longer than two of them comes in chunks."""
_LARGEST = {True: 2**17, False: 2**12}  # samples and frames: who looks farther looks at the whole


class Long:
    """A recording that is encoded chunk by chunk.

    What a spectrogram knows of the whole clip, its peak and, for a network that takes levels relative to it, the mean
    of each band, is found in a pass before; then a chunk has the numbers that it has in the whole.

    Args:
        stream: The recording.
        front: The front end.
        encoder: The network, `tasks.audio.encoder`.
        seconds: Of a chunk.
    """

    def __init__(self, stream: Stream, front: LogMel, encoder: Network, seconds: float = CHUNK):
        self.stream, self.front, self.encoder, self.seconds = stream, front, encoder, seconds
        self.frames = len(stream) // front.hop + 1
        self.waveform = bool(encoder.waveform)
        self.device = next((weight.device for weight in encoder.parameters()), torch.device("cpu"))

    @functools.cached_property
    def peak(self) -> Tensor:
        """The largest power of any bin, (1, 1, 1).

        Raises:
            BadInput: If the recording is silent.
        """
        peak = torch.zeros(1, 1, 1, device=self.device)
        for first, last in self._pieces():
            peak = torch.maximum(peak, self._power(first, last).amax((1, 2), keepdim=True))
        if not float(peak):
            raise BadInput(f"{self.stream.path}: silent: every sample is zero; choose another file")
        return peak

    @functools.cached_property
    def mean(self) -> Tensor | None:
        """The mean level of each band, (1, 1, F, 1), for a network that asks for it."""
        if not getattr(self.encoder, "relative", False):
            return None
        total = sum(self.level(*piece).double().sum(-1, keepdim=True) for piece in self._pieces())
        assert isinstance(total, Tensor)
        return (total / self.frames).float()

    def level(self, first: int, last: int) -> Tensor:
        """Frames ``first`` to ``last`` of the spectrogram, (1, 1, F, last - first)."""
        return self.front.level(self._power(first, last), self.peak)[:, None]

    def spectrogram(self) -> Tensor:
        """All of it, (F, T)."""
        return torch.cat([self.level(*piece)[0, 0] for piece in self._pieces()], -1)

    @functools.cached_property
    def view(self) -> View:
        """What the network's cells see, in frames, or in samples."""
        if self.waveform:
            return field_of_view(self.encoder, _call, (1, 1024), -1, largest=_LARGEST[True])
        return field_of_view(self.encoder, _call, (1, 1, self.front.mel.n_mels, 32), -1, largest=_LARGEST[False])

    @functools.cached_property
    def parts(self) -> Parts:
        """The chunks."""
        size = len(self.stream) if self.waveform else self.frames
        unit = self.front.sample_rate if self.waveform else self.front.sample_rate / self.front.hop
        view, chunk = self.view, round(self.seconds * unit)
        if view.whole:
            print(
                f"{self.stream.path.name}: the network looks at the whole of what it is given (a norm with the clip's "
                f"own statistics, attention), so that chunks of {self.seconds:g} s do not give quite the logit of one "
                "pass; --tile SECONDS makes them longer"
            )
        cells = self.encoder.count(size) if not self.waveform else self._count(size, view)
        return Parts(cut([size], [cells], [chunk], [view.within(chunk)]), self._encode, (cells,))

    def _count(self, size: int, view: View) -> int:
        """Cells of so many samples, found out on a shorter input that ends alike."""
        short = min(size, size % view.period + view.period * (2**14 // view.period + 1))
        return self.encoder.count(short) + (size - short) // view.period * view.cells

    def _encode(self, read: tuple[slice, ...]) -> Tensor:
        (at,) = read
        if self.waveform:
            x = self.stream.read(at.start, at.stop)[None].to(self.device)
        else:
            x = self.level(at.start, at.stop)
        lengths = torch.tensor([x.shape[-1]], device=self.device)
        features: Tensor = self.encoder(x, lengths, **({} if self.mean is None else {"mean": self.mean}))[0]
        return features

    def _power(self, first: int, last: int) -> Tensor:
        """Power in each band of some frames, (1, F, last - first), each in the samples that it has in the whole."""
        hop, around = self.front.hop, -(-self.front.mel.n_fft // 2 // self.front.hop)
        wave = self.stream.read((first - around) * hop, (last - 1 + around) * hop).to(self.device)
        return self.front.power(wave[None])[..., around : around + last - first]

    def _pieces(self) -> Iterator[tuple[int, int]]:
        step = max(round(self.seconds * self.front.sample_rate / self.front.hop), 1)
        for first in range(0, self.frames, step):
            yield first, min(first + step, self.frames)


def _call(encoder: nn.Module, x: Tensor) -> Tensor:
    """Features of one input, whose levels are taken to be relative already."""
    known: dict[str, Any] = {"mean": x.new_zeros(1, 1, 1, 1)} if getattr(encoder, "relative", False) else {}
    features: Tensor = encoder(x, torch.tensor([x.shape[-1]], device=x.device), **known)[0]
    return features
