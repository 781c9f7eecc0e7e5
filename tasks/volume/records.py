"""What a list says of one image."""

from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from tasks.data.splits import PARTS


@dataclass
class Record:
    """One image of a list: the file, where its row stands, whose it is, and what is known of it."""

    path: Path
    where: str
    id: str
    subject: str
    values: dict[str, Any]
    part: str | None = None
    mask: Path | None = None
    target: Any = field(default=None)


def is_split(records: list[Record]) -> bool:
    """Whether the data bring their own split."""
    return any(record.part in PARTS for record in records)


def number_of(value: Any) -> float | None:
    """A finite number, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if isfinite(number) else None
