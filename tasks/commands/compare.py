"""``python -m tasks compare -c CONFIG --reductions mean,max,attention:heads=4``: pools on the same folds and seeds."""

import json
import math
import re
from pathlib import Path
from typing import Any

import torch

from tasks.commands.cli import plan
from tasks.commands.costs import Cost, measure_costs
from tasks.commands.floor_tables import by_floor, floors_of_runs, write_floors
from tasks.commands.paired import difference
from tasks.commands.runs import fit_all, mean_and_sd, numbered, options, start
from tasks.commands.settings import same_settings
from tasks.commands.tables import write_csv
from tasks.data.problems import BadInput
from tasks.outputs.drawing import canvas, save
from tasks.task.floors import JUDGED

Row = dict[str, Any]


def compare(args: list[str]) -> Path:
    """Train every pool on the same folds and seeds, and write and print which differ from the mean, and what they cost.

    Nothing is trained before every pool has been built. All pools run a fold before the next fold begins, and the
    tables are written after each run, so that an interrupted comparison is a smaller comparison; ``--resume`` goes on
    with it. A pool is written ``NAME:OPTION=VALUE:...``, as in ``attention:heads=4:gated=true``; several concatenated
    are ``mean+max``. Any option of the task will do: ``sum:head_norm=true``.

    Args:
        args: What `fit` takes, and ``--reductions`` (to resume: none, or further ones), ``--folds 0,1``,
            ``--seeds 0,1,2``, ``--resume``.

    Returns:
        The folder, ``runs/NAME/comparison_N``: ``comparison.csv`` (a row for each pool and metric),
        ``comparison.md`` and ``comparison.png`` (the first metric), ``floors.csv``, and for each pool a folder like
        that of a cross-validation.

    Raises:
        BadInput: If a pool cannot be built, or a comparison is to go on with other settings.
    """
    own = options("compare", __doc__)
    own.add_argument("--reductions", help="mean,max,attention:heads=4,mean+max,...", default="")
    chosen, rest = own.parse_known_args(args)
    rest = ["--outputs.maps=0", "--outputs.every=0", *rest]  # pictures take longer than small runs; flags go over it

    planned = plan(rest)
    folder = numbered(planned.config["run"], "comparison", chosen.resume)
    known = planned.datamodule.folds
    before = folder / "comparison.json"
    asked = labels(chosen.reductions) if chosen.reductions or not before.is_file() else []
    started = start("compare", chosen, planned.datamodule, before, reductions=asked)
    pools = {label: flags(label) for label in started["reductions"]}

    data = plan([*rest, f"--data.init_args.fold={started['folds'][0]}"]).datamodule
    tasks = {}
    for label, own_flags in pools.items():
        try:
            tasks[label] = plan([*rest, *own_flags]).build_task(data.spec)
        except BadInput as error:
            raise BadInput(f"compare: {label}: {error}") from None
    same_settings("compare", folder, planned.config)
    device = "cuda" if planned.config["trainer"]["accelerator"] != "cpu" and torch.cuda.is_available() else "cpu"
    costs = measure_costs(tasks, next(iter(data.train_dataloader())), device=device)
    del tasks

    before.write_text(json.dumps(started, indent=2) + "\n")
    variants = {folder / re.sub(r"[^\w=+.-]", "_", label): [*rest, *own_flags] for label, own_flags in pools.items()}
    for done in fit_all(variants, started["folds"], started["seeds"], "compare", planned.datamodule.fold_names):
        runs = {label: rows for label, rows in zip(pools, done.values(), strict=True) if rows}
        floors = floors_of_runs(next(iter(variants)), started["folds"], started["seeds"][0])
        if floors:
            write_floors(folder, floors)
        _write(folder, runs, by_floor(floors), costs, known, f"batches of {data.batch_size}, {device}")
    print((folder / "comparison.md").read_text())
    print(f"look at: {folder / 'comparison.png'}")
    return folder


def labels(text: str) -> list[str]:
    """The pools of ``--reductions``.

    Raises:
        BadInput: If there is none, or one stands twice.

    Example:
        >>> labels("mean, attention:heads=4")
        ['mean', 'attention:heads=4']
    """
    found = [label.strip() for label in text.split(",") if label.strip()]
    twice = sorted({label for label in found if found.count(label) > 1})
    if not found or twice:
        got = f"{', '.join(twice)} twice" if twice else "none"
        raise BadInput(f"compare: expected --reductions like mean,max,attention:heads=4, got {got}; name each once")
    return found


def flags(label: str) -> list[str]:
    """The flags of `fit` that a pool's label stands for.

    Raises:
        BadInput: If it is not ``NAME:OPTION=VALUE:...``.

    Example:
        >>> flags("attention:heads=4")
        ['--model.init_args.reduction=attention', '--model.init_args.heads=4']
        >>> flags("mean+max")
        ['--model.init_args.reduction=[mean,max]']
    """
    name, *given = label.split(":")
    wrong = [option for option in given if not re.fullmatch(r"\w+=.+", option)]
    if not name or wrong:
        what = f"'{wrong[0]}'" if wrong else "no name"
        raise BadInput(f"compare: {label}: expected NAME:OPTION=VALUE:..., like attention:heads=4, got {what}")
    reduction = f"[{name.replace('+', ',')}]" if "+" in name else name
    return [f"--model.init_args.reduction={reduction}", *(f"--model.init_args.{option}" for option in given)]


def _write(
    folder: Path,
    runs: dict[str, list[Row]],
    floors: dict[str, list[Row]],
    costs: dict[str, Cost],
    known: list[int],
    where: str,
) -> None:
    """Write the three summaries of all runs so far, and the floors once all folds have theirs."""
    base = "mean" if "mean" in runs else next(iter(runs))
    table = []
    for label, rows in runs.items():
        for metric, both in mean_and_sd(rows).items():
            against = difference(rows, runs[base], metric, folds=len(known))
            row = {"reduction": label, "metric": metric, "runs": len(rows), **both}
            row |= {"difference": against.mean, "low": against.low, "high": against.high}
            table.append({**row, **costs[label]._asdict()})
    metric = table[0]["metric"]
    shown = [row for row in table if row["metric"] == metric]
    write_csv(folder / "comparison.csv", table)
    floor = _floor(floors, runs[base], metric, len(known))
    (folder / "comparison.md").write_text(_markdown(shown, floor, base, len(known), where), encoding="utf-8")
    _draw(folder / "comparison.png", shown, runs, base)


def _floor(floors: dict[str, list[Row]], base: list[Row], metric: str, folds: int) -> Row | None:
    """The row of the best floor, which is the same for all seeds; None where there is none."""
    if not floors or metric not in JUDGED:
        return None
    spreads = {name: mean_and_sd([{metric: row[metric]} for row in rows])[metric] for name, rows in floors.items()}
    best = max(floors, key=lambda name: JUDGED[metric] * spreads[name]["mean"])
    paired = [row | {"seed": seed} for row in floors[best] for seed in {run["seed"] for run in base}]
    against = difference(paired, base, metric, folds=folds)
    row = {"reduction": f"floor: {best}", "runs": len(floors[best]), **spreads[best]}
    return row | {"difference": against.mean, "low": against.low, "high": against.high}


def _markdown(table: list[Row], floor: Row | None, base: str, folds: int, where: str) -> str:
    """The table of one metric with the best floor, and how to read it."""
    metric = table[0]["metric"]
    lines = [
        f"| pool | {metric}, mean ± sd | runs | to {base}, 95 % interval | parameters | pool, ms | batch, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in [*table, *([floor] if floor else [])]:
        interval = f"{row['difference']:+.3g} [{row['low']:+.3g}, {row['high']:+.3g}]"
        if math.isnan(row["low"]):
            interval = f"{row['difference']:+.3g}"
        costs = f"{row['parameters']} | {row['pool_ms']:.3g} | {row['batch_ms']:.3g}" if row is not floor else " | | "
        lines.append(
            f"| {row['reduction']} | {row['mean']:.4g} ± {row['sd']:.2g} | {row['runs']} | "
            f"{'' if row['reduction'] == base else interval} | {costs} |"
        )
    pairs = "folds, corrected for their common training samples (Nadeau and Bengio 2003)" if folds > 1 else "seeds"
    lines += [
        "",
        f"Differences are paired by {pairs}. Each interval stands for itself: of twenty pools that are all the same, "
        "one is expected to look different.",
        f"Times are forward and backward, medians ({where}).",
    ]
    if floor:
        worse = [row["reduction"] for row in table if JUDGED[metric] * (row["mean"] - floor["mean"]) < 0]
        lines += [f"Below the {floor['reduction']}: {', '.join(worse)}."] if worse else []
    return "\n".join(lines) + "\n"


def _draw(path: Path, table: list[Row], runs: dict[str, list[Row]], base: str) -> None:
    """Every run and the means on the left, the differences and their intervals on the right."""
    metric, names = table[0]["metric"], [row["reduction"] for row in table]
    figure = canvas(9, 1.2 + 0.35 * len(table))
    left, right = figure.subplots(1, 2, sharey=True)
    for place, row in enumerate(table):
        values = [run[metric] for run in runs[row["reduction"]]]
        left.plot(values, [place] * len(values), "o", color="0.7", ms=4)
        left.plot(row["mean"], place, "|", color="C0", ms=14, mew=2)
        if row["reduction"] != base:
            right.plot(row["difference"], place, "o", color="C0")
            right.plot([row["low"], row["high"]], [place, place], color="C0")
    left.set(yticks=range(len(names)), yticklabels=names, xlabel=f"test {metric}: every run, and the mean")
    left.invert_yaxis()
    right.axvline(0, color="0.3", lw=0.8)
    right.set(xlabel=f"difference to {base}, 95 % interval")
    save(figure, path)
