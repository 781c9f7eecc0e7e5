"""Which columns of a table are the molecules and the targets, and what kind of targets they are."""

from collections.abc import Sequence
from math import isfinite
from typing import Any, Literal, NamedTuple

from tasks.data.manifest import Row
from tasks.data.problems import BadInput
from tasks.graph.targets import Task

SMILES = ("smiles", "canonical_smiles", "isosmiles", "structure", "mol", "molecule")
IDS = ("id", "name", "mol_id", "molecule_id", "compound_id", "compound id", "cid", "index", "num", "no")
SPLITS = ("split", "part", "fold", "set", "subset")
PART_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
              "test": "test", "predict": "predict"}  # fmt: skip
FEW = 10  # different whole numbers that are classes and not a quantity


class Understood(NamedTuple):
    """What a table holds."""

    smiles: str
    targets: list[str]
    kind: Literal["class", "labels", "values"]
    id: str | None
    split: str | None

    @property
    def said(self) -> str:
        """In one line."""
        what = {"class": "one class", "labels": f"{len(self.targets)} labels of 0 and 1", "values": "numbers"}
        named = ", ".join(self.targets[:12]) + (", …" if len(self.targets) > 12 else "")
        target = f"target {named} ({what[self.kind]})" if self.targets else "no target, to be predicted"
        more = "".join(
            f", {name} from column {column}" for name, column in (("names", self.id), ("split", self.split)) if column
        )
        return f"understood: SMILES in column {self.smiles}; {target}{more}"


def understand(
    rows: Sequence[Row],
    source: str,
    *,
    smiles: str | None = None,
    target: str | Sequence[str] | None = None,
    task: Task | None = None,
    split: str | None = None,
) -> Understood:
    """Find out what the columns of a table of molecules are, or take what is said of them.

    Args:
        rows: The table.
        source: Stands before an error's message.
        smiles: The column of the SMILES; else the one that is called so (`SMILES`).
        target: The column, or columns, to predict, an empty list for none; else all columns of numbers, if they are of
            one kind.
        task: Whether a target is a class or a number; else columns of 0 and 1, words, and up to `FEW` different whole
            numbers are classes.
        split: A column that says train, val or test; else one that does and is called so (`SPLITS`).

    Raises:
        BadInput: If a column does not exist, or the table leaves it open.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lower = {name.strip().lower(): name for name in reversed(columns)}
    smiles = smiles or next((lower[name] for name in SMILES if name in lower), None)
    named = [target] if isinstance(target, str) else list(target or ())
    missing = [
        name for name in (*([smiles] if smiles else ()), *named, *([split] if split else ())) if name not in columns
    ]
    if smiles is None or missing:
        wanted = f"the columns {', '.join(missing)}" if missing else "a column called smiles"
        raise BadInput(
            f"{source}: expected {wanted}, got {', '.join(columns)}; "
            "name them, --data.smiles COLUMN --data.target COLUMN"
        )
    split = split or next((lower[name] for name in SPLITS if name in lower and _all_parts(rows, lower[name])), None)
    ids = [lower[name] for name in IDS if name in lower and lower[name] not in (smiles, *named)]
    name = next((one for one in ids if len({str(row.get(one)) for row in rows}) == len(rows)), None)
    others = [one for one in columns if one not in (smiles, split, *ids)]
    targets = _guess(rows, others, source) if target is None else named
    if not targets:
        return Understood(smiles, [], "class", name, split)
    kinds = {one: _kind(rows, one, task) for one in targets}
    found = set(kinds.values())
    if len(targets) == 1:
        return Understood(smiles, targets, "values" if found == {"values"} else "class", name, split)
    if task == "regression" or found == {"values"}:
        return Understood(smiles, targets, "values", name, split)
    if found == {"labels"}:
        return Understood(smiles, targets, "labels", name, split)
    said = ", ".join(f"{one} ({_words(kind)})" for one, kind in kinds.items())
    raise BadInput(
        f"{source}: expected targets of one kind, labels of 0 and 1 or numbers, got {said}; "
        "name the one or the ones to predict, --data.target COLUMN, or add --data.task regression"
    )


def number(value: Any) -> float | None:
    """A finite number, or None."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if isfinite(found) else None


def _guess(rows: Sequence[Row], columns: Sequence[str], source: str) -> list[str]:
    """All columns of numbers; without any, the one column of words that repeat."""
    numeric = [one for one in columns if _kind(rows, one, None) in ("labels", "values", "whole")]
    if numeric:
        return numeric
    words = [one for one in columns if 1 < len(set(_cells(rows, one))) <= max(2, len(rows) // 5)]
    if len(words) > 1:
        raise BadInput(
            f"{source}: expected one column of classes, got {', '.join(words)}; name it, --data.target COLUMN"
        )
    return words


def _kind(rows: Sequence[Row], column: str, task: Task | None) -> str:
    """Labels (0 and 1), whole (a few whole numbers), values (other numbers) or words."""
    cells = _cells(rows, column)
    numbers = [number(cell) for cell in cells]
    if not cells or sum(one is None for one in numbers) > len(cells) / 2:
        return "words" if task != "regression" else "values"
    known = {one for one in numbers if one is not None}
    if task == "regression":
        return "values"
    if known <= {0.0, 1.0}:
        return "labels"
    few = all(one.is_integer() for one in known) and len(known) <= min(FEW, len(rows) // 2)
    return "whole" if few or task == "classification" else "values"


def _cells(rows: Sequence[Row], column: str) -> list[Any]:
    return [row[column] for row in rows if row.get(column) is not None]


def _words(kind: str) -> str:
    return {"labels": "0 and 1", "whole": "whole numbers", "values": "numbers", "words": "words"}[kind]


def _all_parts(rows: Sequence[Row], column: str) -> bool:
    cells = {str(cell).lower() for cell in _cells(rows, column)}
    return bool(cells) and cells <= set(PART_NAMES)
