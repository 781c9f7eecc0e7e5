"""What a list says of one subject's image."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from tasks.data.digests import digest, digest_file
from tasks.data.splits import PARTS
from tasks.data.trained import ToldBy

EMPTY = "column {} is empty; fill it in or delete the row"


@dataclass
class Record:
    """One image of a list: its files, where its row stands, whose it is, and what is known of it."""

    files: tuple[Path | None, ...]
    """A file for each sequence, None where it is missing; or one that holds them all."""
    where: str
    id: str
    subject: str
    values: dict[str, Any]
    part: str | None = None
    mask: Path | None = None
    pool_mask: Path | None = None
    target: Any = field(default=None)
    _digest: int | None = None

    @property
    def path(self) -> Path:
        """The first file that is there: the one maps are put over."""
        return self.there[0]

    @property
    def there(self) -> list[Path]:
        """The files that are there."""
        return [file for file in self.files if file is not None]

    def digest(self, told_by: ToldBy, place: str = "") -> int:
        """What tells it from others: what its files hold (read once), or what they are called; and a place in them."""
        if self._digest is None:
            first, *others = self.there
            more = [place] if place else []
            if told_by == "content":
                self._digest = digest_file(first, *more, *(str(digest_file(file)) for file in others))
            else:
                self._digest = digest(*more, *map(str, self.there))
        return self._digest


def names_of(images: str | Sequence[str]) -> list[str]:
    """Names in a list, or in one text with commas between.

    Example:
        >>> names_of("T1, FLAIR")
        ['T1', 'FLAIR']
    """
    return [name.strip() for name in images.split(",")] if isinstance(images, str) else list(images)


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


def bad_files(record: Record, channels: Sequence[str], missing: str, found: Mapping[Path, str | None]) -> Iterable[str]:
    """What is wrong with the files of a record.

    Args:
        record: The record.
        channels: Names of the sequences.
        missing: ``"zero"`` where some may be missing.
        found: What is wrong with each file, if anything is; of a file that nobody looked at it says nothing.
    """
    for name, file in zip(channels, record.files, strict=False):  # one file may hold all
        if file is None and missing == "error":
            yield f"no {name}; add it, leave the image out, or take zeros in its place with --data.missing zero"
        elif file is not None and found.get(file):
            yield f"{name}: {found[file]}" if len(record.files) > 1 else str(found[file])
    for kind, mask in (("mask", record.mask), ("pool mask", record.pool_mask)):
        if mask and found.get(mask):
            yield f"{kind} {mask.name}: {found[mask]}"
