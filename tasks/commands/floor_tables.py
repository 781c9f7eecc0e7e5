"""Floors beside results: of a run, and of the runs of many folds."""

import csv
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.commands.tables import write_csv
from tasks.data.base import PoolingData
from tasks.outputs.files import whole
from tasks.outputs.predictions import values
from tasks.task.base import PoolingTask
from tasks.task.floors import JUDGED, below, measure_floors

Row = dict[str, Any]
LARGEST = 20_000
"""Samples to learn from and to test on, times their targets; of more, floors take longer than they are meant to."""
FOREST = 5_000
"""The same for forests."""


def floors_of_run(task: PoolingTask, data: PoolingData, folder: Path) -> list[str]:
    """Measure the floors of a run that was tested: ``floors.csv`` in its folder, and what is below in its summary.

    Args:
        task: The task.
        data: Its data.
        folder: The run's folder, with its ``summary.json``.

    Returns:
        What to print: a table with the run's own result as its last line, and in what the run is below its floor; or,
        in one line, why there are no floors.
    """
    sizes: list[int] = [len(data.datasets[part]) for part in ("train", "test")]  # type: ignore[arg-type]
    targets = len(task.classes) if task.kind in ("multilabel", "regression") else 1  # each is learned alone
    samples = sum(sizes) * targets
    if samples > LARGEST:
        times = " times targets" if targets > 1 else ""
        what = f"not measured with more than {LARGEST} samples{times}, here are {samples}"
        return [f"floors: {what}; python -m tasks floors takes the time"]
    forests = samples <= FOREST
    try:
        rows = measure_floors(task, data, forests=forests)
    except Exception as error:  # whatever a user's own floors do, the result stays
        reason = " ".join(str(error).split())
        return [f"floors: not measured ({type(error).__name__}: {reason}); --floors false leaves them out"]
    write_csv(folder / "floors.csv", rows)
    path = folder / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8"))
    summary.setdefault("run", {})["below"] = below(values(summary), rows)
    with whole(path) as place:
        place.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return ["Floors, baselines without a network on the same samples:", *floor_table({"": rows}, [values(summary)])]


def floors_of_runs(folder: Path, folds: Sequence[int], seed: int) -> dict[int, list[Row]]:
    """What the runs of one seed left in their ``floors.csv``, by fold; nothing unless every fold has one."""
    tables = {fold: folder / f"fold_{fold}_seed_{seed}" / "floors.csv" for fold in folds}
    if not all(path.is_file() for path in tables.values()):
        return {}
    return {fold: _read(path) for fold, path in tables.items()}


def write_floors(folder: Path, folds: Mapping[int, Sequence[Row]]) -> None:
    """Write the floors of many folds as one ``floors.csv``: a row for each fold and floor."""
    write_csv(folder / "floors.csv", [{"fold": fold, **row} for fold, rows in folds.items() for row in rows])


def by_floor(folds: Mapping[Any, Sequence[Row]]) -> dict[str, list[Row]]:
    """The rows of each floor, one a fold with the fold's name in it; a floor that a fold does without is left out."""
    found: dict[str, list[Row]] = {}
    for fold, rows in folds.items():
        for row in rows:
            found.setdefault(row["floor"], []).append({"fold": fold, **row})
    return {name: rows for name, rows in found.items() if len(rows) == len(folds)}


def floor_table(folds: Mapping[Any, Sequence[Row]], results: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """Lines of a table, a floor a line, with mean and standard deviation where there are several folds.

    Args:
        folds: The floors of each fold.
        results: Metrics of the network's runs, for a last line, and another if they are below a floor.
    """
    floors = by_floor(folds)
    metrics = [name for name in JUDGED if name in next(iter(floors.values()))[0]]
    width = max(map(len, [*floors, "this network"]))
    lines = [" " * (width + 2) + "".join(f"{name:>18}" for name in metrics)]
    shown: dict[str, Sequence[Mapping[str, Any]]] = {**floors, **({"this network": list(results)} if results else {})}
    for name, rows in shown.items():
        lines.append(f"  {name:<{width}}" + "".join(f"{_spread([row[one] for row in rows]):>18}" for one in metrics))
    if results:
        means = [{"floor": name, **_means(rows, metrics)} for name, rows in floors.items()]
        lines += [f"below its floor: {what}" for what in below(_means(results, metrics), means)]
    return lines


def _means(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> dict[str, float]:
    return {name: statistics.fmean(_defined([row[name] for row in rows]) or [math.nan]) for name in metrics}


def _spread(numbers: Sequence[float]) -> str:
    known = _defined(numbers)
    more = f" ± {statistics.stdev(known):.2g}" if len(known) > 1 else ""
    return f"{statistics.fmean(known or [math.nan]):.4g}{more}"


def _defined(numbers: Sequence[float]) -> list[float]:
    return [number for number in numbers if not math.isnan(number)]


def _read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {name: cell if name == "floor" else float(cell) for name, cell in row.items()}
            for row in csv.DictReader(file)
        ]
