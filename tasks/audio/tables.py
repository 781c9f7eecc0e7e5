"""A table, a folder or shards of recordings: the rows, and the sound that each means."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from tasks.audio.clips import convert, measure_clip, read_part
from tasks.audio.folders import read_folder, sound_endings
from tasks.audio.paths import locate, path_column
from tasks.audio.times import Part, Unit, part_of, unfold
from tasks.data.manifest import Row, read_manifest
from tasks.data.shards import Member, find_shards, read_shards


class Table:
    """The rows of a table or folder, read once, and where their sounds are.

    Args:
        path: The table, a folder (`tasks.audio.folders`), or shards (`tasks.data.shards`).
        pattern: In a folder, what the names of files are made of.
        path_column: Column of the paths; None = whichever there is (`tasks.audio.paths`).
        root: Where paths start; None = the table's folder.
        strip: Beginning of paths that is left out.
        times: What starts and ends count.
        channel: The channel that is read; None = the mean of all.
    """

    def __init__(
        self,
        path: str,
        *,
        pattern: str | None,
        path_column: str | None,
        root: str | None,
        strip: str | None,
        times: Unit,
        channel: int | None,
    ):
        self.path, self.pattern, self.path_column = Path(path), pattern, path_column
        self.folder = Path(root) if root else self.path if self.path.is_dir() else self.path.parent
        self.strip, self.times, self.channel = strip, times, channel
        self.rates: dict[Path | Member, int] = {}  # of the files that were heard
        self.files: dict[int, Path | Member] = {}  # of the rows that were heard, by their numbers
        self._rows: list[Row] = []
        self._members: dict[str, Member] = {}  # where files are that are in shards

    def rows(self, required: Sequence[str] = ()) -> list[Row]:
        """The rows; their paths are in the column ``path``, whatever the table calls it.

        Args:
            required: Columns that must be there.

        Raises:
            BadInput: If the table cannot be read, or lacks a column.
        """
        if not self._rows:
            shards = find_shards(str(self.path))
            if shards:
                rows, self._members = read_shards(shards, sound_endings())
            elif self.path.is_dir():
                rows = read_folder(self.path, self.pattern, required=required)
            else:
                rows = read_manifest(self.path, required=required)
            column = path_column(rows, self.path_column, self.path.name)
            if "samples" in [unfold(row, column) for row in rows]:
                self.times = "samples"
            for row in rows:
                row["path"] = row.get(column)
            self._rows = rows
        return self._rows

    def hear(self, row: Row, *, sample_rate: int) -> Tensor:
        """The samples of a row's part of its file, (S,).

        Raises:
            ValueError: If the row or the file cannot be used.
        """
        file = self.files[row.number] = self._file(row)
        start, duration, unit = part_of(row, self.times)
        wave, rate = read_part(file, start=start, duration=duration, unit=unit, channel=self.channel)
        wave = convert(wave, rate, sample_rate)
        self.rates[file] = rate
        return wave

    def measure(self, row: Row) -> None:
        """Look at the header of a row's file.

        Raises:
            ValueError: If there is no such file, it is no sound, or it ends before the row's part.
        """
        start, duration, unit = part_of(row, self.times)
        file = self._file(row)
        self.rates[file] = measure_clip(file, start=start, duration=duration, unit=unit)

    def place(self, row: Row) -> tuple[str, Part]:
        """Where the table says that the row's sound is.

        Raises:
            ValueError: If that cannot be.
        """
        return str(row["path"]), part_of(row, self.times)

    def _file(self, row: Row) -> Path | Member:
        if not isinstance(row["path"], (str, int)):
            raise ValueError(f"path: expected a path, or an object with file, got {row['path']}; correct the row")
        return self._members.get(str(row["path"])) or locate(str(row["path"]), self.folder, self.strip)

    def lower(self, sample_rate: int) -> str:
        """A line for files whose own rate is lower than what they are converted to; nothing where there is none."""
        low = Counter(rate for rate in self.rates.values() if rate < sample_rate)
        if not low:
            return ""
        rates = ", ".join(f"{count} at {rate} Hz" for rate, count in sorted(low.items()))
        some = "; classes that have more of them can be told by that" if low.total() < len(self.rates) else ""
        return (
            f"{low.total()} of {len(self.rates)} files have a lower rate than {sample_rate} Hz ({rates}): above half "
            f"of their rate their spectrograms are empty{some}"
        )
