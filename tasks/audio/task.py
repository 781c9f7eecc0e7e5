"""The audio task: spectrogram, 2D network, pool over one axis or both, readout along the axis that is left."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tasks.audio.cepstrum import Network, prepared
from tasks.audio.encoder import OwnNetwork, SpectrogramNet, valid_frames
from tasks.audio.files import AudioFiles
from tasks.audio.floors import audio_floors
from tasks.audio.frontend import Augment, LogMel
from tasks.audio.places import bins_inside, to_bins
from tasks.audio.readout import PatternReadout
from tasks.audio.room import Changes
from tasks.task.fingerprint import fingerprint
from tasks.task.regularise import Mixture, own_share

Axis = Literal["time", "frequency", "both"]
LAYOUTS = {"time": "b c f [t]", "frequency": "b c [f] t", "both": "b c [f t]"}
STRIDES = {"time": (1, 2), "frequency": (2, 1), "both": (2, 2)}  # (frequency, time): only what is pooled gets coarser


class AudioTask(AudioFiles):
    """Classify or rate recordings by their log-mel spectrogram, pooled over time, over frequency, or over both.

    Over time one vector per frequency is left, which a linear layer reads: what the sound is like, not when (timbre).
    Over frequency one vector per frame is left, which templates in time read (`PatternReadout`): when, not what
    (rhythm). Over both one vector is left. Over time and over both a map plus the head's bias sums to the logit; the
    rhythm readout is not linear, and its map is its slope times what an element adds to the pooled frames.

    Args:
        spec: What the data says of itself.
        pool: The axis that is pooled.
        encoder: Path of another network's class (`tasks.audio.encoder.OwnNetwork`), for which the options from
            ``widths`` to ``dropout`` are not read.
        encoder_args: Arguments of its constructor.
        widths: Channels of the network's layers.
        halvings: How many layers, from the first, halve the pooled axis; None = all. Fewer make sharper maps.
        relative: Take the level of each band relative to its mean over the clip: what sounds all the time says nothing.
        onsets: Give the network the rise of the level from frame to frame beside the level.
        position: Tell the network which band it looks at; without it, pooling over frequency is blind to the band.
        dropout: Share of channels set to zero after each layer in training.
        mels: Number of mel bands.
        window_ms: Window of the spectrogram in ms.
        hop_ms: Time between frames in ms.
        f_min: Lowest frequency of the spectrogram in Hz.
        range_db: Range below a clip's peak that is kept, in dB.
        mfcc: Give the network so many cepstral coefficients (`tasks.audio.cepstrum`); 0 = the bands as they are.
        standardise: Bring each band, or coefficient, to mean 0 and variance 1 over its clip.
        pitch: Augmentation: largest random transposition, in semitones.
        colour_db: Augmentation: random smooth gain over frequency, standard deviation in dB.
        noise_db: Augmentation: independent noise on the spectrogram, standard deviation in dB.
        mask_bands: SpecAugment: widest band set to silence, in mel bands.
        mask_frames: SpecAugment: longest stretch set to silence, in frames.
        waveform: Augmentation: changes of the recordings, by class path and options (`tasks.audio.room.Changes`): gain,
            noise, reverberation, equalisation, speed, or torch-audiomentations' own.
        mixup: Augmentation: strength α of mixup (Zhang et al. 2018) in classification; 0 turns it off.
        pattern_s: Length of the templates of the rhythm readout, in s.
        pattern_layers: Convolutions before the templates; each halves the frames.
        pattern_channels: Channels of these convolutions.
        loop: Take recordings for loops: the templates go on from their end to their beginning.
        options: lr, weight_decay, warmup, balance, label_smoothing, regression_loss, head_dropout, head_norm (over time
            and over both); reduction and its options.
    """

    element = "bin"

    def __init__(
        self,
        spec: dict[str, Any],
        *,
        pool: Axis = "time",
        encoder: str | None = None,
        encoder_args: dict[str, Any] | None = None,
        widths: Sequence[int] = (16, 32, 48),
        halvings: int | None = None,
        relative: bool = False,
        onsets: bool = False,
        position: bool = True,
        dropout: float = 0.0,
        mels: int = 64,
        window_ms: float = 64.0,
        hop_ms: float = 10.0,
        f_min: float = 30.0,
        range_db: float = 80.0,
        mfcc: int = 0,
        standardise: bool = False,
        pitch: float = 0.0,
        colour_db: float = 0.0,
        noise_db: float = 0.0,
        mask_bands: int = 0,
        mask_frames: int = 0,
        waveform: list[str | dict[str, Any]] | None = None,
        mixup: float = 0.0,
        pattern_s: float = 2.0,
        pattern_layers: int = 2,
        pattern_channels: int = 32,
        loop: bool = False,
        **options: Any,
    ):
        rate, own = spec["sample_rate"], None
        if encoder is not None:
            hop = round(hop_ms * rate / 1000)
            own = OwnNetwork(encoder, encoder_args or {}, mels=mfcc or mels, hop=hop, sample_rate=rate)
            if own.waveform and any((pitch, colour_db, noise_db, mask_bands, mask_frames)):
                raise ValueError(
                    "pitch, colour_db, noise_db, mask_bands and mask_frames change spectrograms, and the encoder takes "
                    "waveforms; set them to 0"
                )
        self.axis, self.bands = pool, mels
        self.rows, frames = (mfcc or mels, 1.0) if own is None else (own.bands, own.cell[1])
        self.pattern = {
            "hidden": pattern_channels,
            "layers": pattern_layers,
            "window": max(1, round(pattern_s * 1000 / (hop_ms * frames) / 2**pattern_layers)),
            "loop": loop,
        }
        super().__init__(spec, layout=LAYOUTS[pool], channels=widths[-1] if own is None else own.channels, **options)
        self.save_hyperparameters()
        if mixup and self.pooled_mixup:
            raise ValueError(
                f"expected mixup or pooled_mixup, got {mixup} and {self.pooled_mixup}; turn one off with 0"
            )
        self.mixup = mixup
        self.changes = Changes(waveform or [], rate)
        self.spectrogram = LogMel(rate, mels=mels, window_ms=window_ms, hop_ms=hop_ms, f_min=f_min, range_db=range_db)
        self.augment = Augment(
            self.spectrogram.frequencies(),
            range_db=range_db,
            pitch=pitch,
            colour_db=colour_db,
            noise_db=noise_db,
            mask_bands=mask_bands,
            mask_frames=mask_frames,
        )
        network = own or SpectrogramNet(
            widths, stride=STRIDES[pool], halvings=halvings, relative=relative, onsets=onsets, position=position,
            dropout=dropout,
        )  # fmt: skip
        self.encoder: Network = prepared(network, mels, mfcc=mfcc, standardise=standardise)

    def setup(self, stage: str) -> None:
        """Lay the channels last in single precision, whose steps take four fifths of the time so (docs/profile.md)."""
        super().setup(stage)
        if self.trainer.precision == "32-true":
            self.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def build_head(self) -> nn.Module:
        """Read the axis that is left: linear over frequency, templates over time."""
        channels = self.pooled_size
        if self.axis == "frequency":
            if self.head_norm:
                raise ValueError(
                    "expected head_norm false with pool: frequency, got true; its readout has a norm of its own, "
                    "so leave it out"
                )
            return PatternReadout(channels, self.outputs, dropout=self.head_dropout, **self.pattern)
        if self.axis == "time":
            channels *= self.rows
        return self.linear_head(channels)

    def features(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Element features (B, C, F, T) and the number of valid frames (B,)."""
        if "long" in batch:
            (long,) = batch["long"]
            x = long.parts.features()
            return x, torch.tensor([x.shape[-1]], device=x.device)
        if "spectrogram" in batch:
            x = batch["spectrogram"]
            frames = self.spectrogram.count(batch["lengths"])
            if x.shape[-1] != int(self.spectrogram.count(torch.tensor(batch["wave"].shape[1]))):
                frames = torch.full((len(x),), x.shape[-1], device=x.device)
        elif self.encoder.waveform:
            x, frames = self.changes(batch["wave"]), batch["lengths"]
        else:
            x, frames = self.spectrogram(self.changes(batch["wave"]), batch["lengths"])
        if "mix" in batch:
            x, frames = batch["mix"].mix(x), torch.maximum(frames, frames[batch["mix"].partner])
        if "hidden" in batch:  # (B, F, T)
            x = x.masked_fill(batch["hidden"][:, None], 0.0)
        features: tuple[Tensor, Tensor] = self.encoder(x if self.encoder.waveform else self.augment(x), frames)
        return features

    def sets(self, x: Tensor, frames: Tensor) -> dict[str, Tensor]:
        """The pool's keyword arguments: a mask of valid frames."""
        return {"mask": valid_frames(frames, x.shape[-1])[:, None]}  # (B, 1, T)

    def encode(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Element features in the pool's layout, and the mask of valid frames."""
        x, frames = self.features(batch)
        return x, self.sets(x, frames)

    def readout(self, sets: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
        """The head, which over frequency must know the valid frames."""
        if not isinstance(self.head, PatternReadout):
            return self.head
        return functools.partial(self.head, frames=sets["mask"].sum((1, 2)))

    place_names = ("band, Hz", "time, s")

    def places(self, batch: dict[str, Any], x: Tensor) -> Tensor:
        """The centres of the network's cells, (1, F', T', 2)."""
        (high, long), (low, early) = self.encoder.cell, self.encoder.first
        known = self.spectrogram.frequencies().to(x.device, torch.float)
        place = low + high * torch.arange(x.shape[2], device=x.device)
        place = (place % len(known)).clamp(max=len(known) - 1)  # what stands for all bands is in their middle
        below, above = known[place.floor().long()], known[place.ceil().long()]
        bands = below + (place - place.floor()) * (above - below)
        frame_s = self.spectrogram.hop / self.spectrogram.sample_rate
        times = (early + long * torch.arange(x.shape[3], device=x.device)) * frame_s
        return torch.stack(torch.meshgrid(bands, times, indexing="ij"), -1)[None]

    def target(self, batch: dict[str, Any]) -> Tensor:
        """Targets as the data gives them."""
        target: Tensor = batch["target"]
        return target

    def ids(self, batch: dict[str, Any]) -> list[str]:
        """Paths or numbers of the clips."""
        return list(batch["id"])

    def mixed(self, batch: dict[str, Any]) -> dict[str, Any]:
        """With `mixup`, clips are mixed in pairs."""
        if not self.mixup or self.kind == "regression":
            return batch
        partner = torch.randperm(len(batch["wave"]), device=batch["wave"].device)
        return {**batch, "mix": Mixture(partner=partner, share=own_share(self.mixup))}

    def batch_loss(self, logits: Tensor, batch: dict[str, Any]) -> Tensor:
        """The loss of a batch; of mixed clips the mixture of the losses."""
        if "mix" not in batch:
            return super().batch_loss(logits, batch)
        loss: Tensor = batch["mix"].loss(self.loss, logits, self.target(batch))
        return loss

    def truth(self, batch: dict[str, Any]) -> list[Tensor] | None:
        """The bins of each clip's spectrogram in which its known events lie, if the data knows events."""
        if not any(batch["truth"]):
            return None
        bands, frame_s = self.spectrogram.frequencies(), self.spectrogram.hop / self.spectrogram.sample_rate
        frames = self.spectrogram.count(batch["lengths"]).tolist()
        return [
            bins_inside(boxes, frequencies=bands, frames=count, frame_s=frame_s).to(batch["wave"].device)
            for boxes, count in zip(batch["truth"], frames, strict=True)
        ]

    def to_inputs(self, maps: Tensor, batch: dict[str, Any]) -> list[Tensor]:
        """Maps of the network's cells, (B, F', T'), to the bins (F, frames) of each clip's spectrogram."""
        frames = self.spectrogram.count(batch["lengths"]).tolist()
        lengths = batch["lengths"].tolist() if self.encoder.waveform else frames
        cells = list(batch["long"][0].parts.cells) if "long" in batch else [self.encoder.count(n) for n in lengths]
        stride, first = self.encoder.cell, self.encoder.first
        return to_bins(maps, frames=frames, cells=cells, bands=self.bands, stride=stride, first=first)

    def rival_maps(self, batch: dict[str, Any]) -> dict[str, list[Tensor]]:
        """What a clip shows without a network: how loud each bin is."""
        x, frames = self.spectrogram(batch["wave"], batch["lengths"])
        return {"intensity": [one[0, :, :count] for one, count in zip(x, frames.tolist(), strict=True)]}

    def floors(self, batch: dict[str, Any]) -> dict[str, Sequence[Any]]:
        """Means of the spectrogram over the axis that is pooled, cepstral coefficients, and a coarse spectrogram."""
        x, frames = self.spectrogram(batch["wave"], batch["lengths"])
        return audio_floors(x[:, 0], frames, self.axis)

    def fingerprints(self, batch: dict[str, Any]) -> list[Tensor]:
        """How the bands of the spectrogram go up and down, wherever a clip begins and however loud it is."""
        x, frames = self.spectrogram(batch["wave"], batch["lengths"])
        return [fingerprint(one[0, :, :count], [1]) for one, count in zip(x, frames.tolist(), strict=True)]

    def hide(self, batch: dict[str, Any], hidden: list[Tensor]) -> dict[str, Any] | None:
        """Set hidden bins to silence; a waveform has none."""
        if self.encoder.waveform:
            return None
        longest = int(self.spectrogram.count(torch.tensor(batch["wave"].shape[1])))
        return {**batch, "hidden": torch.stack([nn.functional.pad(one, (0, longest - one.shape[1])) for one in hidden])}

    def inputs(self, batch: dict[str, Any]) -> Tensor | None:
        """The spectrogram, (B, 1, F, T), if that is what the network takes."""
        if self.encoder.waveform:
            return None
        spectrogram: Tensor = self.spectrogram(batch["wave"], batch["lengths"])[0]
        return spectrogram

    def with_inputs(self, batch: dict[str, Any], x: Tensor) -> dict[str, Any]:
        """Another spectrogram; if it is as long as the batch's own, each clip keeps its valid frames, else all are."""
        return {**batch, "spectrogram": x}

    @property
    def cell(self) -> int:
        """Bins of the spectrogram in a cell of the network's grid."""
        return round(math.prod(self.encoder.cell))
