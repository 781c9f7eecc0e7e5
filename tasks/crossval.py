"""``python -m tasks crossval -c CONFIG``: fit and test every fold (and seed), and say how much they differ."""

import argparse
import csv
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from tasks.cli import plan, run_cli


def crossval(args: list[str]) -> Path:
    """Fit every fold with every seed, then write and print one row each, the mean and the standard deviation.

    A fold's run is in ``runs/NAME/crossval_N/fold_K_seed_S``; a fold that is finished there is not run again, so
    ``--resume`` goes on after an interruption.

    Args:
        args: What `fit` takes, and ``--folds 0,1``, ``--seeds 0,1,2``, ``--resume``.

    Returns:
        The folder, with ``crossval.csv`` (a row a fold) and ``summary.json`` (mean and sd over rows).
    """
    own = argparse.ArgumentParser(prog="python -m tasks crossval", description=__doc__, epilog="All flags of fit, too.")
    own.add_argument("--folds", help="the folds to run, 0,1,2; all of the data's unless given", type=_numbers)
    own.add_argument("--seeds", help="seeds of training; every fold is run with each", type=_numbers, default=[0])
    own.add_argument("--resume", help="go on with the newest cross-validation of this name", action="store_true")
    chosen, rest = own.parse_known_args(args)
    sys.argv = sys.argv[:1]  # Lightning warns of arguments it finds there beside those it is given

    run, data = plan(rest)
    folds = data.folds if chosen.folds is None else chosen.folds
    folder = _folder(Path(run["root"], run["name"]), chosen.resume)
    rows = []
    for seed in chosen.seeds:
        for fold in folds:
            version = f"fold_{fold}_seed_{seed}"
            summary = folder / version / "summary.json"
            if not summary.is_file():
                print(
                    f"crossval: fold {fold}, seed {seed} ({len(rows) + 1} of {len(folds) * len(chosen.seeds)})",
                    flush=True,
                )
                place = [f"--run.root={folder.parent}", f"--run.name={folder.name}", f"--run.version={version}"]
                run_cli(["fit", *rest, f"--data.init_args.fold={fold}", f"--seed_everything={seed}", *place])
            rows.append({"fold": fold, "seed": seed, **_values(summary)})
            _write(folder, rows)
    _print(folder, rows)
    return folder


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _folder(root: Path, resume: bool) -> Path:
    earlier = sorted((int(path.name.split("_")[1]), path) for path in root.glob("crossval_*") if path.is_dir())
    if resume and earlier:
        return earlier[-1][1]
    return root / f"crossval_{earlier[-1][0] + 1 if earlier else 0}"


def _values(summary: Path) -> dict[str, float]:
    return {name: result["value"] for name, result in json.loads(summary.read_text())["test"].items()}


def spread(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation (n - 1) of each metric over the rows.

    Example:
        >>> spread([{"fold": 0, "seed": 0, "acc": 0.5}, {"fold": 1, "seed": 0, "acc": 0.7}])["acc"]["mean"]
        0.6
    """
    names = [name for name in rows[0] if name not in ("fold", "seed")]
    columns = {name: [row[name] for row in rows] for name in names}
    return {
        name: {"mean": statistics.fmean(column), "sd": statistics.stdev(column) if len(column) > 1 else 0.0}
        for name, column in columns.items()
    }


def _write(folder: Path, rows: list[dict[str, Any]]) -> None:
    with (folder / "crossval.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (folder / "summary.json").write_text(json.dumps({"runs": len(rows), "test": spread(rows)}, indent=2) + "\n")


def _print(folder: Path, rows: list[dict[str, Any]]) -> None:
    names = list(spread(rows))
    print("  fold  seed  " + "".join(f"{name:>10}" for name in names))
    for row in rows:
        print(f"{row['fold']:>6}{row['seed']:>6}  " + "".join(f"{row[name]:>10.4g}" for name in names))
    for statistic in ("mean", "sd"):
        print(f"{statistic:>12}  " + "".join(f"{result[statistic]:>10.4g}" for result in spread(rows).values()))
    print(f"look at: {folder / 'crossval.csv'}")
