"""``python -m tasks results``: make the numbers of README.md and docs/results.md again, each by its command."""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from tasks.commands.runs import numbered
from tasks.commands.tables import read_json, write_csv
from tasks.data.problems import BadInput
from tasks.task.certainty import LOWER_IS_BETTER

Row = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
LIST, RECORD = ROOT / "configs" / "results.yaml", ROOT / "docs" / "results.csv"
COLUMNS = ["name", "mean", "sd_folds", "folds", "sd_seeds", "seeds", "floor", "floor_mean", "floor_sd",
           "minutes", "commit", "versions"]  # fmt: skip
PERCENT = ("acc", "auroc")


def results(args: list[str]) -> Path:
    """Run what `configs/results.yaml` lists, note each number in ``docs/results.csv``, and write the tables from it.

    Each row runs in a process of its own with one thread, in ``runs/results/NAME``; a run that is finished there is not
    run again, so that the same command goes on after an interruption. Rows whose data are not there are named and keep
    the number they have.

    Args:
        args: ``--data DIR ...`` (folders that hold MUTAG, TIMBRE12, HIPPO, ...), ``--only NAME,...``, ``--again`` to
            run also what is finished, ``--tables`` to run nothing and write the tables.

    Returns:
        ``docs/results.csv``.

    Raises:
        BadInput: If a name is not in the list, or a command failed.
    """
    chosen = options().parse_args(args)
    rows: dict[str, Row] = yaml.safe_load(LIST.read_text(encoding="utf-8"))["rows"]
    wanted = chosen.only.split(",") if chosen.only else list(rows)
    if unknown := [name for name in wanted if name not in rows]:
        raise BadInput(f"results: expected rows of {', '.join(rows)}, got {', '.join(unknown)}; correct --only")
    failed = [] if chosen.tables else [name for name in wanted if not _make(name, rows[name], chosen)]
    write_tables(rows)
    if failed:
        raise BadInput(f"results: {', '.join(failed)} did not finish; what went wrong stands above")
    print(f"look at: {RECORD}")
    return RECORD


def options() -> argparse.ArgumentParser:
    """What it takes."""
    parser = argparse.ArgumentParser(prog="python -m tasks results", description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", nargs="+", type=Path, default=[Path("data")], help="folders that hold the data sets")
    parser.add_argument("--only", help="the rows to make, by name")
    parser.add_argument("--again", action="store_true", help="also what is finished")
    parser.add_argument("--tables", action="store_true", help="only write the tables from docs/results.csv")
    return parser


def _make(name: str, row: Row, chosen: argparse.Namespace) -> bool:
    """Make one row; False if its command failed."""
    places = chosen.data if "needs" in row else [ROOT]  # generated data are everywhere
    home = next((folder for folder in places if (folder / row.get("needs", "")).exists()), None)
    if home is None:
        print(f"{name}: skipped, no {row['needs']} in {', '.join(map(str, chosen.data))}")
        return True
    folder = ROOT / "runs" / "results" / name
    clock = folder / "state.json"  # of the code at the start, and the minutes of all attempts
    fresh = {"command": row["command"], "commit": commit(), "minutes": 0.0, "done": False}
    started = fresh if chosen.again or not clock.is_file() else json.loads(clock.read_text())
    if started["command"] != row["command"] or (not started["done"] and started["commit"] != commit()):
        started = fresh  # halves of two states of the code are not one result
    if started["done"]:
        print(f"{name}: finished before, at {started['commit']}; --again makes it again")
        return True
    folder.mkdir(parents=True, exist_ok=True)
    command = [*row["command"].replace("DATA", str(home.resolve())).split(), f"--run.root={folder.parent}"]
    command += [f"--run.name={name}", *(["--resume"] if started["minutes"] else [])]
    print(f"{name}: python -m tasks {' '.join(command)}", flush=True)
    begin = time.monotonic()
    try:
        code = subprocess.run(
            [sys.executable, "-m", "tasks", *command], cwd=ROOT, env={"OMP_NUM_THREADS": "1", **os.environ}, check=False
        ).returncode
    finally:
        started["minutes"] += (time.monotonic() - begin) / 60
        clock.write_text(json.dumps(started) + "\n")
    done = numbered({"root": folder.parent, "name": name}, "crossval", True)
    if code or not complete(done):
        return False
    found = measured(done, row["metric"])
    state = {"minutes": round(started["minutes"], 1), "commit": started["commit"], "versions": versions()}
    note(name, {**found, **state})
    clock.write_text(json.dumps({**started, "done": True}) + "\n")
    return True


def complete(folder: Path) -> bool:
    """Whether each fold has run with each seed; one that was told to end (SIGTERM) ends without an error."""
    asked = read_json(folder / "crossval.json")
    return len(_read(folder / "crossval.csv")) == len(asked["folds"]) * len(asked["seeds"])


def measured(folder: Path, metric: str) -> Row:
    """What a cross-validation in ``folder`` found, over folds and over seeds, and the best of its floors.

    The spread over folds is that of the folds' means over seeds, the spread over seeds that of the seeds' means over
    folds: the first says how far data differ, the second how far two runs of one command on other seeds do.
    """
    rows = _read(folder / "crossval.csv")
    found: Row = {"mean": statistics.fmean(float(row[metric]) for row in rows)}
    for column in ("fold", "seed"):
        groups = _groups(rows, column, metric)
        found |= {f"{column}s": len(groups), f"sd_{column}s": _sd([statistics.fmean(one) for one in groups.values()])}
    if (folder / "floors.csv").is_file():
        floors = _groups(_read(folder / "floors.csv"), "floor", metric)
        best = (min if metric in LOWER_IS_BETTER else max)(floors, key=lambda name: statistics.fmean(floors[name]))
        found |= {"floor": best, "floor_mean": statistics.fmean(floors[best]), "floor_sd": _sd(floors[best])}
    return found


def _groups(rows: list[Row], column: str, metric: str) -> dict[str, list[float]]:
    """The metric's values by what stands in a column."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        groups.setdefault(row[column], []).append(float(row[metric]))
    return groups


def _sd(values: list[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def note(name: str, found: Row) -> None:
    """Put a row into ``docs/results.csv`` in place of the one of that name."""
    rows = {row["name"]: row for row in _read(RECORD)} if RECORD.is_file() else {}
    rows[name] = {"name": name, **{key: "" if value is None else value for key, value in found.items()}}
    write_csv(RECORD, [{column: row.get(column, "") for column in COLUMNS} for row in rows.values()], COLUMNS)


def write_tables(rows: dict[str, Row]) -> None:
    """Write the tables of README.md and docs/results.md, between their marks."""
    records = {row["name"]: row for row in _read(RECORD)}
    first, last = "<!-- results -->\n", "<!-- end of results -->"
    for path, brief in ((ROOT / "README.md", True), (ROOT / "docs" / "results.md", False)):
        before, _, rest = path.read_text(encoding="utf-8").partition(first)
        after = rest.partition(last)[2]
        path.write_text(before + first + table(rows, records, brief=brief) + last + after, encoding="utf-8")


def table(rows: dict[str, Row], records: dict[str, Row], *, brief: bool) -> str:
    """The rows that have a number, as Markdown; in brief with what a reader wants first.

    Example:
        >>> row = {"title": "MUTAG", "pool": "mean", "metric": "acc", "readme": True, "command": "crossval"}
        >>> found = {"mean": "0.873", "sd_folds": "0.05", "folds": "10", "sd_seeds": "0.01", "seeds": "3"}
        >>> print(table({"a": row}, {"a": found}, brief=True).splitlines()[-1])
        | MUTAG | mean | **87.3 ± 5.0 %**, seeds ± 1.0 | | `python -m tasks crossval` |
    """
    heads = ["data, protocol", "pool", "result", "floor", "command"]
    if not brief:
        heads[4:] = ["published", "folds × seeds", "minutes", "state", "command"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, row in rows.items():
        if name not in records or (brief and not row.get("readme")):
            continue
        found = records[name]
        floor = _number(row["metric"], found, "floor_mean", "floor_sd")
        floor += f" ({found['floor']})" if floor and found.get("floor") else ""
        seeds = _number(row["metric"], {"sd": found["sd_seeds"]}, "sd").removesuffix(" %")
        result = f"**{_number(row['metric'], found, 'mean', 'sd_folds')}**" + (f", seeds ± {seeds}" if seeds else "")
        cells = [row["title"], row["pool"], result]
        if brief:
            both = ", ".join(filter(None, [floor, row.get("published", "")]))
            cells.append(both)
        else:
            runs = f"{found['folds']} × {found['seeds']}"
            cells += [floor, row.get("published", ""), runs, found["minutes"], found["commit"]]
        cells.append(f"`python -m tasks {row['command'].replace('DATA', 'DIR')}`")
        lines.append("|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|")
    return "\n".join(lines) + "\n"


def _number(metric: str, found: Row, mean: str, sd: str = "") -> str:
    """``87.3 ± 5.0 %`` of a metric, or nothing."""
    if found.get(mean) in (None, ""):
        return ""
    percent = metric in PERCENT
    digits, factor = {"mae": 1, "rmse": 3}.get(metric, 1 if percent else 2), 100 if percent else 1
    text = f"{float(found[mean]) * factor:.{digits}f}"
    if sd and found.get(sd) not in (None, ""):
        text += f" ± {float(found[sd]) * factor:.{digits}f}"
    return f"{text} %" if percent else text


def commit() -> str:
    """The state of the code: its commit, with a + where a file that may change a result is not in it."""

    def git(*args: str) -> str:
        command = ["git", "-C", str(ROOT), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "modalpool", "tasks", "configs")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def versions() -> str:
    """Of what computes."""
    names = ("torch", "lightning", "torch_geometric", "torchaudio", "monai")
    return f"python {sys.version.split()[0]}, " + ", ".join(f"{name} {version(name)}" for name in names)


def _read(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
