"""Windows of a recording: clips of one length, at even steps in time."""

from collections.abc import Iterator
from typing import Any

import torch

from tasks.audio.clips import Clip, collate_clips
from tasks.audio.stream import Stream
from tasks.data.problems import BadInput

_BATCH = 30.0  # s of sound in a batch of windows


def windows_of(stream: Stream, window: float, hop: float) -> Iterator[tuple[list[float], list[float], Any]]:
    """Cut a recording into windows.

    Each is a clip as the training's are: its level is relative to its own peak. The last one ends with the recording; a
    recording shorter than a window is one.

    Args:
        stream: The recording.
        window: Length in s.
        hop: Time from one to the next, in s.

    Yields:
        Some windows' begins and ends in s, and their batch; its ids are FILE@BEGIN.

    Raises:
        BadInput: If window or hop is not positive, or shorter than a sample.
    """
    rate, total = stream.sample_rate, len(stream)
    size, step = min(round(window * rate), total), round(hop * rate)
    if size < 1 or step < 1:
        raise BadInput(f"expected --window and --hop in seconds, longer than a sample, got {window:g} and {hop:g}")
    starts = list(range(0, total - size + 1, step))
    if starts[-1] + size < total:
        starts.append(total - size)
    at_once = max(round(_BATCH * rate / size), 1)
    for place in range(0, len(starts), at_once):
        some = starts[place : place + at_once]
        wave = stream.read(some[0], some[-1] + size)
        clips = [
            Clip(
                wave=wave[start - some[0] : start - some[0] + size],
                target=torch.tensor(torch.nan),
                id=f"{stream.path.name}@{start / rate:.3f}",
                truth=[],
            )
            for start in some
        ]
        yield [start / rate for start in some], [(start + size) / rate for start in some], collate_clips(clips)
