"""Rows that commands leave behind as CSV."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def write_csv(path: Path, rows: Sequence[dict[str, Any]], columns: Iterable[str] | None = None) -> None:
    """Write rows under their names.

    Args:
        path: The file.
        rows: What is in each column.
        columns: The columns and their order; None = those of the first row.

    Raises:
        ValueError: If a row has a column that is not among them.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0] if columns is None else columns))
        writer.writeheader()
        writer.writerows(rows)
