"""Files into the audio task and out of it: recordings of any length; pictures, maps with times and frequencies."""

import functools
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from tasks.audio.cepstrum import Network
from tasks.audio.clips import Clip, collate_clips, read_clip
from tasks.audio.frontend import LogMel
from tasks.audio.heard import write_heard
from tasks.audio.long import CHUNK, Long
from tasks.audio.stream import Stream
from tasks.audio.windows import windows_of
from tasks.data.problems import BadInput
from tasks.task.base import PoolingTask
from tasks.task.decisions import Decision
from tasks.tiles import Parts


class AudioFiles(PoolingTask):
    """The part of `tasks.audio.AudioTask` that reads and writes files."""

    spectrogram: LogMel
    encoder: Network
    axis: str

    @abstractmethod
    def sets(self, x: Tensor, frames: Tensor) -> dict[str, Tensor]:
        """The pool's keyword arguments."""

    def in_parts(self, batch: dict[str, Any]) -> tuple[Parts, dict[str, Tensor]] | None:
        """The chunks of a long recording."""
        if "long" not in batch:
            return None
        parts = batch["long"][0].parts
        cells = torch.tensor(parts.cells, device=self.device)
        return parts, self.sets(cells.new_empty(1, 1, 1, parts.cells[0]), cells)

    def windows(self, source: str, window: float, hop: float) -> Iterator[tuple[list[float], list[float], Any]]:
        """Windows of a sound file, each a clip of its own."""
        return windows_of(Stream(Path(source), self.spec["sample_rate"]), window, hop)

    def draw(self, batch: dict[str, Any], number: int, shown: Tensor, decision: Decision, path: Path) -> None:
        """Draw the spectrogram with the map over it, see `tasks.audio.pictures`."""
        from tasks.audio.pictures import draw_spectrogram

        draw_spectrogram(
            self._spectrum(batch, number),
            shown,
            path,
            title=decision.title,
            label=decision.label,
            frame_s=self.spectrogram.hop / self.spectrogram.sample_rate,
            frequencies=self.spectrogram.frequencies(),
            range_db=self.spectrogram.range_db,
            pooled=self.axis,
            truth=batch["truth"][number],
        )

    def paint(self, batch: dict[str, Any], number: int, panels: Mapping[str, Tensor], title: str, path: Path) -> None:
        """Draw the spectrogram, and below it each panel on the same axes."""
        from tasks.audio.pictures import paint_spectrogram

        frame_s = self.spectrogram.hop / self.spectrogram.sample_rate
        frequencies = self.spectrogram.frequencies()
        paint_spectrogram(
            self._spectrum(batch, number), panels, path, title=title, frame_s=frame_s, frequencies=frequencies
        )

    def show(self, batch: dict[str, Any], number: int, title: str, path: Path) -> list[Path]:
        """Draw the spectrogram, and write the clip as WAV beside it."""
        self.paint(batch, number, {}, title, path)
        wave = batch["wave"][number, : int(batch["lengths"][number])].float().cpu().numpy()
        heard = path.with_suffix(".wav")
        soundfile.write(heard, wave, self.spectrogram.sample_rate)
        return [heard]

    def export(self, batch: dict[str, Any], number: int, shown: Tensor, decision: Decision, stem: Path) -> list[Path]:
        """Write map and spectrogram as NumPy's ``.npz``, and as WAV the clip and what in it speaks for and against.

        The arrays: ``map`` (F, T), each bin's share of the logit; ``spectrogram_db`` (F, T), dB below the clip's peak;
        ``times`` (T,) in s and ``frequencies`` (F,) in Hz.
        """
        path, front = stem.with_name(f"{stem.name}_map.npz"), self.spectrogram
        frames = np.arange(shown.shape[1])
        np.savez_compressed(
            path,
            map=shown.cpu().numpy(),
            spectrogram_db=((self._spectrum(batch, number) - 1) * front.range_db).cpu().numpy(),
            times=frames * front.hop / front.sample_rate,
            frequencies=front.frequencies().numpy(),
        )
        length = int(batch["lengths"][number])
        if 2 * front.hop > front.mel.win_length:  # windows that overlap by less than half cannot be turned back
            return [path]
        return [*write_heard(functools.partial(self._samples, batch, number), length, shown, front, stem), path]

    def _samples(self, batch: dict[str, Any], number: int, first: int, last: int) -> Tensor:
        """Samples of one clip, from one number to another, zeros beyond its ends."""
        if "long" in batch:
            long: Long = batch["long"][0]
            return long.stream.read(first, last)
        length = int(batch["lengths"][number])
        low, high = max(first, 0), max(min(last, length), max(first, 0))
        wave: Tensor = batch["wave"][number, low:high]
        return torch.nn.functional.pad(wave, (low - first, last - low - len(wave)))

    def read(self, source: str) -> dict[str, Any]:
        """A sound file as a batch; what is longer than two chunks of ``tile`` seconds is read chunk by chunk."""
        stream = Stream(Path(source), self.spec["sample_rate"])
        seconds = self.tile or CHUNK
        target, name = torch.tensor([torch.nan]), Path(source).name
        if stream.seconds > 2 * seconds:
            long = Long(stream, self.spectrogram, self.encoder, seconds)
            rest = {"lengths": torch.tensor([len(stream)]), "target": target[None], "id": [name]}
            return {**rest, "truth": [[]], "long": [long]}
        try:
            wave = read_clip(Path(source), sample_rate=self.spec["sample_rate"])
        except ValueError as error:
            raise BadInput(f"{source}: {error}") from error
        return collate_clips([Clip(wave=wave, target=target, id=name, truth=[])])

    def _spectrum(self, batch: dict[str, Any], number: int) -> Tensor:
        """The spectrogram (F, T) of one clip of a batch."""
        if "long" in batch:
            whole: Tensor = batch["long"][0].spectrogram()
            return whole
        lengths = batch["lengths"][number : number + 1]
        x: Tensor = self.spectrogram(batch["wave"][number : number + 1, : int(lengths)], lengths)[0]
        return x[0, 0]
