"""What commands leave behind to be read again: rows as CSV, values as JSON."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tasks.data.problems import BadInput


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


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file.

    Raises:
        BadInput: If there is none in it: an interrupted or full disk's leftover.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is damaged ({error}); delete it") from error
    if not isinstance(found, dict):
        raise BadInput(f"{path} is damaged (expected an object, got {type(found).__name__}); delete it")
    return found
