"""Which part of a file a row means, whatever its columns are called."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from tasks.audio.rows import number
from tasks.data.manifest import Row

Unit = Literal["seconds", "samples"]

STARTS = ("start", "onset", "start_time")
ENDS = ("end", "stop", "offset", "end_time")
_ROUNDED = 0.01  # s that what three cells say of one part may differ


class Part(NamedTuple):
    """A part of a file, in seconds or in the file's own samples: where it starts, and how long it lasts.

    A duration of None is up to the file's end.
    """

    start: float = 0.0
    duration: float | None = None
    unit: Unit = "seconds"


def unfold(row: Row, column: str) -> Unit | None:
    """Write a cell that holds an object, SpeechBrain's ``{"file": ..., "start": ..., "stop": ...}``, as plain cells.

    Returns:
        samples, in which these count, where the object has any; else None. An object without a file stays as it is.
    """
    cell = row.get(column)
    if not isinstance(cell, Mapping) or not {"file", "path"} & set(cell):
        return None
    times: dict[str, Any] = {key: cell[key] for key in ("start", "stop") if cell.get(key) is not None}
    row.update({**times, column: cell.get("file") or cell.get("path")})
    return "samples" if times else None


def part_of(row: Row, unit: Unit = "seconds") -> Part:
    """The part that a row means: by ``start`` or ``onset``, and ``duration``, or ``end``, ``stop`` or ``offset``.

    Args:
        row: The row.
        unit: Of starts and ends, and of durations without an end.

    Raises:
        ValueError: If a cell is no number, two contradict each other, or it is not clear what one means.

    Example:
        >>> from pathlib import Path
        >>> part_of(Row({"onset": "1.5", "offset": "4"}, manifest=Path("a.csv"), number=1))
        Part(start=1.5, duration=2.5, unit='seconds')
    """
    start, end = _one(row, STARTS), _one(row, ENDS)
    length = number(row, "duration")
    if start is None and end is not None and row.get("offset") is not None:
        raise ValueError("offset: some tables call a clip's start so, others its end; rename the column start or end")
    start = start or 0.0
    if end is None:
        return Part(start, length, unit)
    if end <= start:
        raise ValueError(f"end: expected more than the start, {start:g}, got {end:g}; correct the row")
    if length is not None and unit == "seconds" and abs(end - start - length) > _ROUNDED:
        raise ValueError(
            f"start {start:g}, end {end:g} and duration {length:g} contradict each other; correct the row, or, where "
            "starts and ends count samples, say so with --data.times samples"
        )
    return Part(start, end - start, unit)


def clip_name(row: Row) -> str:
    """The clip's name in predictions.csv: its path, and its start where it is a part of a file."""
    start = next((row[column] for column in STARTS if row.get(column) is not None), None)
    return str(row["path"]) + ("" if start is None else f"@{start}")


def _one(row: Row, columns: Sequence[str]) -> float | None:
    """The number in whichever of several columns has one.

    Raises:
        ValueError: If two have and differ.
    """
    found = {column: value for column in columns if (value := number(row, column)) is not None}
    if len(set(found.values())) > 1:
        said = " and ".join(f"{column} {value:g}" for column, value in found.items())
        raise ValueError(f"{said} are two words for one thing; leave one of the columns out")
    return next(iter(found.values()), None)
