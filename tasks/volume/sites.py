"""Leave one site out: train at all others, and see whether what was learned travels."""

from collections.abc import Sequence
from typing import Any

from tasks.data.labels import natural
from tasks.data.problems import Problems
from tasks.data.splits import PARTS, hold_out
from tasks.volume.records import Record


def site_names(records: Sequence[Record], column: str) -> list[str]:
    """The values of a column, in order; each is a fold."""
    return sorted(
        {str(record.values[column]) for record in records if record.values.get(column) is not None}, key=natural
    )


def leave_site_out(
    records: Sequence[Record], column: str, fold: int, problems: Problems, **share: Any
) -> dict[str, list[Record]]:
    """Test one site; hold some subjects of the others out to validate (`tasks.data.splits.hold_out`).

    Subjects that were at several sites, who would be on both sides, are named.
    """
    names = site_names(records, column)
    seen: dict[str, str] = {}
    for record in records:
        site = str(record.values[column])
        if seen.setdefault(record.subject, site) != site:
            what = (
                f"subject {record.subject} is of {column} {seen[record.subject]}, too; delete one, or correct the row"
            )
            problems.stop(record.where, what)
    if any(record.part in PARTS for record in records):
        problems.stop("split", f"expected none beside --data.leave_out {column}; leave one of them out")
    if len(names) < 2:
        problems.stop(f"column {column}", f"expected two or more values to leave one out, got {names}; choose another")
        return {"train": list(records), "val": [], "test": []}
    if not 0 <= fold < len(names):
        raise ValueError(f"expected a fold between 0 and {len(names) - 1}, got {fold}; choose another fold")
    rest = [record for record in records if str(record.values[column]) != names[fold]]
    targets = [record.target if isinstance(record.target, int) else 0 for record in rest]
    kept, held = hold_out(targets, groups=[record.subject for record in rest], **share)
    test = [record for record in records if str(record.values[column]) == names[fold]]
    return {"train": [rest[i] for i in kept], "val": [rest[i] for i in held], "test": test}
