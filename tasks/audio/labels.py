"""What a clip is labelled with: a class, several tags in a cell or in columns of zeros and ones, or a number."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal

import torch
from torch import Tensor

from tasks.audio.rows import number
from tasks.data.labels import natural
from tasks.data.manifest import Row
from tasks.data.problems import BadInput, Problems
from tasks.data.splits import check_classes

Target = Literal["class", "multilabel", "regression"]

_YES_NO = {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0, "false": 0.0, "true": 1.0}


class Labels:
    """The labels of a table's rows.

    Args:
        rows: The rows.
        label: Their column; or several, or a pattern such as ``tag_*``: one a tag, of zeros and ones, empty where it is
            not known whether the tag holds.
        target: What a label is; None = what the cells look like.
        separator: Stands between the tags of a cell.
        tags: The tags to learn, where not all are.
        known: The tags of a model, for a table without any.

    Raises:
        BadInput: If no column fits the pattern, or several columns are to be one class or number.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        label: str | Sequence[str],
        *,
        target: Target | None = None,
        separator: str = "|",
        tags: Sequence[str] | None = None,
        known: Sequence[str] | None = None,
    ):
        self.separator, self.tags = separator, tags
        self.columns, self.said = [label] if isinstance(label, str) else list(label), ""
        self.spread = not isinstance(label, str) or "*" in label  # over columns
        if isinstance(label, str) and self.spread:
            there = dict.fromkeys(key for row in rows for key in row)
            self.columns = [column for column in there if fnmatchcase(column, label)] or list(known or [])
            if not self.columns:
                raise BadInput(f"label: expected columns named {label}, got {', '.join(there)}; name them")
        if self.spread and target in ("class", "regression"):
            raise BadInput(f"label: expected one column for target {target}, got {', '.join(self.columns)}; name one")
        self.target: Target = target or self._guess(rows)

    @property
    def column(self) -> str:
        """The column, or all."""
        return ", ".join(self.columns)

    def _guess(self, rows: Sequence[Row]) -> Target:
        if self.spread:
            self.said = f"target: multilabel, a column each for {self._few(self.columns)}"
            return "multilabel"
        for row in rows:
            cell = row.get(self.columns[0])
            if isinstance(cell, list) or (isinstance(cell, str) and self.separator in cell):
                self.said = (
                    f"target: multilabel, as {row.where} has {cell}; --data.target class takes that for one class"
                )
                return "multilabel"
        return "class"

    @staticmethod
    def _few(names: Sequence[str]) -> str:
        return f"{len(names)} tags ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"

    def lacking(self, row: Row) -> bool:
        """Whether a row has no label: tags that are none are a label, an empty cell or list, not a cell ``n/a``."""
        blank = self.target == "multilabel" and not self.spread and self.columns[0] in row.blank
        return not blank and all(row.get(column) is None for column in self.columns)

    def names(self, row: Row) -> list[str]:
        """The names of classes or tags in a row.

        Raises:
            ValueError: If a cell cannot be read.
        """
        if self.target == "regression":
            number(row, self.columns[0])
            return []
        if self.spread:
            return [column for column in self.columns if self._holds(row, column) == 1]
        cell = row.get(self.columns[0])
        if self.target == "class":
            if isinstance(cell, (list, dict)):
                raise ValueError(f"{self.columns[0]}: expected one class, got {cell}; correct the row")
            return [str(cell)]
        found = cell if isinstance(cell, list) else str("" if cell is None else cell).split(self.separator)
        names = dict.fromkeys(str(name).strip() for name in found)
        return [name for name in names if name and (self.tags is None or name in self.tags)]

    def read(
        self,
        rows: Sequence[Row],
        order: Callable[[Iterable[str]], list[str]],
        known: Sequence[str] | None = None,
    ) -> tuple[dict[int, Tensor], list[str]]:
        """Read the labels.

        Args:
            rows: Rows that have one.
            order: Puts the names of all rows into the order of their classes.
            known: The tags that a model knows, in order; None = all that rows have.

        Returns:
            The target of each row, by the row's number, and the names of the classes (of the target, in regression). A
            tag of which a row says nothing is NaN.
        """
        if self.target == "regression":
            return {row.number: torch.tensor([float(row[self.columns[0]])]) for row in rows}, list(self.columns)
        if self.target == "class":
            classes = order(str(row[self.columns[0]]) for row in rows)
            targets = {name: torch.tensor(place) for place, name in enumerate(classes)}  # shared by their rows
            return {row.number: targets[str(row[self.columns[0]])] for row in rows}, classes
        if self.spread:
            tags = list(known or [one for one in self.columns if self.tags is None or one in self.tags])
            return {row.number: torch.tensor([self._holds(row, tag) for tag in tags]) for row in rows}, tags
        names = {row.number: self.names(row) for row in rows}
        tags = list(known or sorted(order(name for each in names.values() for name in each), key=natural))
        return {key: torch.tensor([float(tag in each) for tag in tags]) for key, each in names.items()}, tags

    def _holds(self, row: Row, column: str) -> float:
        """Whether a tag holds, as its column says: 0, 1, or NaN."""
        cell = row.get(column)
        if cell is None:
            return float("nan")
        if str(cell).lower() not in _YES_NO:
            raise ValueError(
                f"{column}: expected 0 or 1, got '{cell}'; correct the row, or leave the column out of label"
            )
        return _YES_NO[str(cell).lower()]

    def count(
        self,
        parts: Mapping[str, Sequence[Row]],
        targets: Mapping[int, Tensor],
        classes: Sequence[str],
        problems: Problems,
    ) -> list[int]:
        """Count the training clips of each class or tag, and report those that have none."""
        if self.target == "regression":
            return []
        labels = {name: [targets[row.number] for row in rows] for name, rows in parts.items()}
        if self.target == "class":
            if len(classes) < 2:
                what = f"expected at least two classes, got {', '.join(classes)}; add the others"
                problems.stop(f"column {self.column}", what)
            return check_classes(
                {name: [int(label) for label in rows] for name, rows in labels.items()}, classes, problems
            )
        hits = Counter(tag for each in labels["train"] for tag in (each == 1).nonzero().flatten().tolist())
        if absent := [name for tag, name in enumerate(classes) if not hits[tag]]:
            what = "have no training clip and cannot be learned; add some, or name the tags to learn with --data.tags"
            problems.stop(self._few(absent), what)
        return [hits[tag] for tag in range(len(classes))]
