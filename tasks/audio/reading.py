"""The sound of a table's rows: all read before training and kept, or each when it is asked for."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple, overload

import torch
from torch import Tensor

from tasks.audio.clips import Clip
from tasks.audio.tables import Table
from tasks.audio.times import clip_name
from tasks.data.checking import Check, drawn
from tasks.data.digests import digest
from tasks.data.manifest import Row
from tasks.data.problems import BadInput, OnBad, Problems
from tasks.data.threads import side_by_side
from tasks.data.trained import ToldBy, Trained

Cache = Literal["none", "memory"]


class Heard(NamedTuple):
    """What is known of a row's sound."""

    digest: int
    """Of its samples, or of where the table says that they are (`Sounds.told_by`)."""
    wave: Tensor | None = None
    """Its samples, (S,), where they are kept."""
    wrong: str | None = None
    """Why it cannot be used."""


class Sounds:
    """Where the samples of rows come from.

    Args:
        table: The table.
        sample_rate: In Hz.
        cache: Whether samples are kept in memory, or read anew whenever a batch needs them.
        check: What is read before training (`tasks.data.checking`).
        on_bad: With ``"skip"`` what turns out to be unreadable in the course of a training is left out of its batch.
        seed: Of the draw of rows that are read.
    """

    def __init__(self, table: Table, *, sample_rate: int, cache: Cache, check: Check, on_bad: OnBad, seed: int):
        if cache == "memory" and check != "all":
            raise ValueError(
                f"check: expected all where clips are kept in memory, for which all are read, got {check}; "
                "add --data.cache none"
            )
        self.table, self.sample_rate, self.cache, self.on_bad, self.seed = table, sample_rate, cache, on_bad, seed
        self.check: Check = check
        self.told_by: ToldBy = "content" if check == "all" else "index"

    def serve(self, trained: Trained, sample_rate: int, say: Callable[[str], None]) -> None:
        """Read for a model, at its rate, and tell clips as it knows them."""
        self.sample_rate, self.told_by = sample_rate, trained.told_by
        if self.told_by == "content" and self.check != "all":
            self.check = "all"
            say("check: all clips are read, as the model knows those that it was trained on by their content")

    def look(self, rows: Sequence[Row], look_at: Callable[[Row], None], problems: Problems) -> dict[int, Heard]:
        """What is known of each usable row, by the row's number; the others are reported.

        Args:
            rows: All rows.
            look_at: Looks at a row's cells; a ValueError says what is wrong with them.
            problems: Takes what is wrong.
        """
        read = {row.number for row in drawn(rows, self.check, self.seed)}
        found = {}
        looks = side_by_side(partial(self._look, look_at=look_at, read=read), rows, "clips")
        for row, heard in zip(rows, looks, strict=True):
            if heard.wrong:
                problems.add(row.where, heard.wrong)
            else:
                found[row.number] = heard
        return found

    def _look(self, row: Row, *, look_at: Callable[[Row], None], read: set[int]) -> Heard:
        wave = None
        try:
            look_at(row)
            if self.check == "header":
                self.table.measure(row)
            elif row.number in read:
                wave = self.table.hear(row, sample_rate=self.sample_rate)
            place = self.table.place(row)
        except ValueError as error:
            return Heard(0, wrong=str(error))
        known = wave.numpy().tobytes() if wave is not None and self.told_by == "content" else str(place)
        return Heard(digest(known), wave if self.cache == "memory" else None)


class Listed(Sequence[Clip]):
    """The clips of some rows, whose samples are read when they are asked for where they are not kept.

    Args:
        rows: The rows.
        sounds: Where their samples come from.
        heard: What is known of them, by the row's number.
        targets: Their targets, by the row's number; a row to be predicted has none.
    """

    def __init__(self, rows: Sequence[Row], sounds: Sounds, heard: Mapping[int, Heard], targets: Mapping[int, Tensor]):
        nothing = torch.tensor([torch.nan])
        self.rows, self.sounds = rows, sounds
        self.waves = [heard[row.number].wave for row in rows]
        self.digests = [heard[row.number].digest for row in rows]
        self.targets = [targets.get(row.number, nothing) for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, number: int) -> Clip: ...
    @overload
    def __getitem__(self, number: slice) -> list[Clip]: ...
    def __getitem__(self, number: int | slice) -> Clip | list[Clip] | None:
        """One clip, or several; None for one that has become, or always was, unreadable and is to be skipped.

        Raises:
            BadInput: For such a clip, if it is not to be skipped.
        """
        if isinstance(number, slice):
            return [self[one] for one in range(len(self))[number]]
        row, wave = self.rows[number], self.waves[number]
        if wave is None:
            try:
                wave = self.sounds.table.hear(row, sample_rate=self.sounds.sample_rate)
            except ValueError as error:
                if self.sounds.on_bad == "raise":
                    raise BadInput(f"{row.where}: {error}") from error
                warnings.warn(f"{row.where}: left out: {error}", stacklevel=2)
                return None
        return Clip(wave=wave, target=self.targets[number], id=clip_name(row), truth=[])
