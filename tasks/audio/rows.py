"""What the cells of an audio manifest mean: numbers, folds, parts."""

from collections.abc import Sequence

from tasks.data.manifest import Row
from tasks.data.problems import Problems
from tasks.data.splits import PARTS


def number(row: Row, column: str) -> float | None:
    """The finite number in a cell; None for an empty one.

    Raises:
        ValueError: If the cell holds something else.
    """
    if row.get(column) is None:
        return None
    try:
        value = float(row[column])
    except (TypeError, ValueError):
        raise ValueError(f"{column}: expected a number, got '{row[column]}'; correct the row") from None
    if value != value or abs(value) == float("inf"):
        raise ValueError(f"{column}: expected a finite number, got {row[column]}; correct the row")
    return value


def fold_numbers(rows: Sequence[Row], column: str) -> dict[int, int]:
    """The fold of every row that has one, by the row's number.

    Whole numbers are taken as they are. Other names (players, venues) are numbered from 0 in sorted order. Where most
    cells are whole numbers, the others count as mistakes and are left out.
    """
    values = {row.number: str(row[column]) for row in rows if row.get(column) is not None}
    whole = {key: int(value) for key, value in values.items() if value.isdigit()}
    if len(whole) > len(values) / 2:
        return whole
    names = sorted(set(values.values()))
    return {key: names.index(value) for key, value in values.items()}


def given_parts(
    rows: Sequence[Row], problems: Problems, needed: Sequence[str] = ("train", "test")
) -> dict[str, list[Row]]:
    """Sort rows by their column ``split``; report other words than train, val and test, and parts without a row."""
    parts: dict[str, list[Row]] = {name: [] for name in PARTS}
    for row in rows:
        name = str(row.get("split") or "").lower()
        if name in parts:
            parts[name].append(row)
        else:
            problems.add(
                row.where, f"split: expected train, val or test, got '{row.get('split') or ''}'; correct the row"
            )
    for name in needed:
        if not parts[name]:
            problems.stop("column split", f"expected a usable row with '{name}', got none; mark some")
    return parts
