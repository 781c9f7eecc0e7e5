"""Splits that a JSON file gives: which samples train, validate and test, by their numbers or their names."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.data.problems import BadInput, Problems
from tasks.data.splits import PARTS

Split = dict[str, list[Any]]


def read_splits(path: str | Path) -> list[Split]:
    """Read ``{"train": [...], "val": [...], "test": [...]}``, or a list of these, which are folds.

    Args:
        path: A JSON file. Samples are told by their numbers, from 0, or by their names; ``val`` (or ``valid``) may be
            left out.

    Raises:
        BadInput: If there is no such file or it is something else.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"splits {path} does not exist; give a JSON file with train, val and test")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"splits {path.name}: not valid JSON: {error}") from error
    folds = content if isinstance(content, list) else [content]
    found = []
    for number, fold in enumerate(folds):
        named = {_part(name): value for name, value in fold.items()} if isinstance(fold, dict) else {}
        if not {"train", "test"} <= set(named) <= set(PARTS) or not all(
            isinstance(one, list) for one in named.values()
        ):
            where = f"fold {number} of {path.name}" if isinstance(content, list) else path.name
            got = ", ".join(map(str, fold)) if isinstance(fold, dict) else type(fold).__name__
            raise BadInput(f"splits {where}: expected lists train, val and test, got {got}; correct the file")
        found.append({part: named.get(part, []) for part in PARTS})
    if not found:
        raise BadInput(f"splits {path.name}: expected at least one split, got an empty list")
    return found


def _part(name: str) -> str:
    return "val" if name in ("valid", "validation") else name


def pick(
    split: Split, rows: Mapping[int, int], names: Mapping[str, int], problems: Problems, *, skip: bool = False
) -> dict[str, list[int]]:
    """The samples of each part of a split.

    Args:
        split: Of `read_splits`.
        rows: Samples by their number in the source.
        names: Samples by their name.
        problems: Takes what is not there, and what stands in two parts.
        skip: Pass over numbers and names that no sample has: bad samples were left out.
    """
    parts: dict[str, list[int]] = {}
    seen: dict[int, str] = {}
    for part in PARTS:
        parts[part] = []
        for given in split[part]:
            sample = rows.get(given) if isinstance(given, int) else names.get(str(given))
            if sample is None:
                if not skip:
                    problems.stop(
                        f"splits {part}", f"no sample {given!r}; numbers count from 0, names are the samples' ids"
                    )
            elif sample in seen:
                problems.stop(f"splits {part}", f"{given!r} is in {seen[sample]}, too; leave it in one of them")
            else:
                seen[sample] = part
                parts[part].append(sample)
    return parts
