"""``python -m tasks crossval -c CONFIG``: fit and test every fold (and seed), and say how much they differ."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.commands.cli import plan
from tasks.commands.floor_tables import floor_table, floors_of_runs, write_floors
from tasks.commands.runs import fit_all, mean_and_sd, numbered, options, start
from tasks.commands.settings import same_settings


def crossval(args: list[str]) -> Path:
    """Fit every fold with every seed, then write and print one row each, the mean and the standard deviation.

    A fold's run is in ``runs/NAME/crossval_N/fold_K_seed_S``; a fold that is finished there is not run again, so
    ``--resume`` goes on after an interruption.

    Args:
        args: What `fit` takes, and ``--folds 0,1``, ``--seeds 0,1,2``, ``--resume``.

    Returns:
        The folder, with ``crossval.csv`` (a row a fold), ``summary.json`` (mean and sd over rows) and ``floors.csv``.

    Raises:
        BadInput: If the data have no such fold, or a cross-validation is to go on with other settings.
    """
    chosen, rest = options("crossval", __doc__).parse_known_args(args)

    planned = plan(rest)
    folder = numbered(planned.config["run"], "crossval", chosen.resume)
    started = start("crossval", chosen, planned.datamodule, folder / "crossval.json")
    same_settings("crossval", folder, planned.config)
    (folder / "crossval.json").write_text(json.dumps(started, indent=2) + "\n")
    rows: list[dict[str, Any]] = []
    for done in fit_all({folder: rest}, started["folds"], started["seeds"], "crossval", planned.datamodule.fold_names):
        rows = done[folder]
    _print(rows, planned.datamodule.fold_names)
    if floors := floors_of_runs(folder, started["folds"], started["seeds"][0]):
        write_floors(folder, floors)
        print("\n".join(["floors, baselines without a network on the same folds:", *floor_table(floors, rows)]))
    elif planned.config["floors"]:
        print("floors: not measured in every fold; python -m tasks floors measures them, or says why not")
    print(f"look at: {folder / 'crossval.csv'}")
    return folder


def _print(rows: list[dict[str, Any]], names: Mapping[int, str]) -> None:
    metrics = {name: max(10, len(name) + 2) for name in mean_and_sd(rows)}
    folds = [str(names.get(row["fold"], row["fold"])) for row in rows]
    first = max(6, *map(len, folds))
    print(f"{'fold':>{first}}{'seed':>6}" + "".join(f"{name:>{width}}" for name, width in metrics.items()))
    for fold, row in zip(folds, rows, strict=True):
        numbers = "".join(f"{row[name]:>{width}.4g}" for name, width in metrics.items())
        print(f"{fold:>{first}}{row['seed']:>6}{numbers}")
    for statistic in ("mean", "sd"):
        spread = mean_and_sd(rows)
        numbers = "".join(f"{spread[name][statistic]:>{width}.4g}" for name, width in metrics.items())
        print(f"{statistic:>{first + 6}}{numbers}")
