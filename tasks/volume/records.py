"""What a list says of one subject's image."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from tasks.data.splits import PARTS
from tasks.data.trained import Trained


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

    @property
    def path(self) -> Path:
        """The first file that is there: the one maps are put over."""
        return self.there[0]

    @property
    def there(self) -> list[Path]:
        """The files that are there."""
        return [file for file in self.files if file is not None]


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
        found: What is wrong with each file, if anything is.
    """
    for name, file in zip(channels, record.files, strict=False):  # one file may hold all
        if file is None and missing == "error":
            yield f"no {name}; add it, leave the image out, or take zeros in its place with --data.missing zero"
        elif file is not None and found[file]:
            yield f"{name}: {found[file]}" if len(record.files) > 1 else str(found[file])
    for kind, mask in (("mask", record.mask), ("pool mask", record.pool_mask)):
        if mask and found[mask]:
            yield f"{kind} {mask.name}: {found[mask]}"


def bad_targets(values: Mapping[str, Any], targets: Sequence[str], task: str, trained: Trained | None) -> Iterable[str]:
    """What is wrong with the targets of a row.

    Args:
        values: The row.
        targets: Their columns.
        task: ``"classification"`` or ``"regression"``.
        trained: A model that is tested on the data, if one is.
    """
    for column in targets:
        value = values.get(column)
        if value is None:
            yield f"column {column} is empty; fill it in or delete the row"
        elif task == "regression" and number_of(value) is None:
            yield f"expected a number in column {column}, got '{value}'; correct it or delete the row"
        elif len(targets) == 1 and task == "classification":
            if trained is not None and (wrong := trained.unknown(str(value))):
                yield wrong
        elif len(targets) > 1 and task == "classification" and number_of(value) not in (0, 1):
            yield f"expected 0 or 1 in column {column}, got '{value}'; several target columns are yes/no labels"
