"""What the cells of an audio manifest mean: labels, numbers, folds, parts."""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor

from tasks.data.manifest import Row
from tasks.data.problems import Problems
from tasks.data.splits import PARTS

Target = Literal["class", "multilabel", "regression"]


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


def read_targets(
    rows: Sequence[Row],
    column: str,
    target: Target,
    order: Callable[[Iterable[str]], list[str]],
    known: Sequence[str] | None = None,
) -> tuple[dict[int, Tensor], list[str]]:
    """Read the labels.

    Args:
        rows: Rows whose label is not empty.
        column: The label's column.
        target: ``"class"``, ``"multilabel"`` (``drums|bass``) or ``"regression"``.
        order: Puts the labels of all rows into the order of their classes.
        known: The several labels that there are, in order; None = all that rows have.

    Returns:
        The target of each row, by the row's number, and the names of the classes (of the target, in regression).
    """
    if target == "regression":
        return {row.number: torch.tensor([float(row[column])]) for row in rows}, [column]
    if target == "class":
        classes = order(str(row[column]) for row in rows)
        return {row.number: torch.tensor(classes.index(str(row[column]))) for row in rows}, classes
    labels = {row.number: {name.strip() for name in str(row[column]).split("|")} for row in rows}
    classes = sorted(set().union(*labels.values())) if known is None else list(known)
    return {key: torch.tensor([float(name in names) for name in classes]) for key, names in labels.items()}, classes


def labels_of(row: Row, column: str, target: Target) -> list[str]:
    """The names of classes in a row."""
    if target == "regression":
        return []
    return [str(row[column])] if target == "class" else sorted({name.strip() for name in str(row[column]).split("|")})


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
