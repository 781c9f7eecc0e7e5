"""``python -m tasks diagnose -c CONFIG --ckpt_path best``: what a task's pool and network do to changes."""

import argparse
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tasks.commands.checkpoints import checkpoint, load_task, read, run_of
from tasks.commands.cli import plan
from tasks.commands.seen import ALLOW, check, expect
from tasks.commands.tables import write_csv
from tasks.data.problems import BadInput
from tasks.maps.probes import Measured, Probe, at_pool, block, perturb, through_network
from tasks.maps.variance import variance_rows
from tasks.outputs.drawing import canvas, save
from tasks.task.base import PoolingTask

Row = dict[str, Any]


def diagnose(args: list[str]) -> Path:
    """Measure on test samples what is claimed of pooling: at the task's own pool, and through its network.

    Variances of the pooled feature against the number of elements N, for elements that do and do not correlate; what
    comes through of a checkerboard, of waves or of a graph's Laplacian eigenvectors; the gap to linearity under mixup
    and cutmix; and what a shift and an occlusion change. Beside each number stands what a mean has by its closed form
    (docs/diagnostics.md).

    Args:
        args: What `test` takes, and ``--samples 32``.

    Returns:
        The table, ``diagnostics.md`` in the folder of the run, beside ``diagnostics.csv`` and ``diagnostics.png``.

    Raises:
        BadInput: If there is no checkpoint, it was trained on test samples, there are too few samples, or the task
            does not pool.
    """
    own = argparse.ArgumentParser(prog="python -m tasks diagnose", description=__doc__, allow_abbrev=False,
                                  epilog="All flags of test, too.")  # fmt: skip
    own.add_argument("--ckpt_path", default="best", help="a .ckpt file, or best or last of the newest run")
    own.add_argument("--allow_trained", action="store_true", help=ALLOW)
    own.add_argument("--samples", type=int, default=32, help="how many test samples, evenly spread over all")
    chosen, rest = own.parse_known_args(args)

    planned = plan(rest)
    path = checkpoint(chosen.ckpt_path, planned.config["run"])
    folder = run_of(path)
    task, data = load_task(path, planned.config["model"]["class_path"]), planned.datamodule
    expect(data, read(path))
    check("diagnose", path, data, allow=chosen.allow_trained)
    data.setup()
    dataset = data.still("test")
    total = len(dataset)
    count = min(chosen.samples, total)
    if count < 2:
        raise BadInput(f"diagnose: expected at least 2 samples, got {count}; raise --samples")
    batches = [data.collate([dataset[number * total // count]]) for number in range(count)]
    batches = [task.transfer_batch_to_device(batch, task.device, 0) for batch in batches]
    with torch.no_grad():
        variances, correlation = variance_rows(task, batches)
        rows = response_rows(task, batches)

    write_csv(folder / "diagnostics.csv", [*_long(variances), *rows], ["measure", "mean", "pool", "network"])
    text = _markdown(task, variances, correlation, rows, count)
    (folder / "diagnostics.md").write_text(text, encoding="utf-8")
    _draw(folder / "diagnostics.png", variances, rows)
    print(text)
    print(f"look at: {folder / 'diagnostics.png'}")
    return folder / "diagnostics.md"


def response_rows(task: PoolingTask, batches: list[Any]) -> list[Row]:
    """What comes through of changes, averaged over samples: ``measure``, ``mean`` (closed form), ``pool``, ``network``.

    Waves are in units of what a constant of the same amplitude does; constants, shifts and occlusions in units of the
    spread between samples; gaps relative to the mixture (`tasks.maps.diagnostics`).
    """
    pool, means = _column(task, batches, at_pool)
    network, _ = _column(task, batches, through_network)
    return [
        {"measure": name, "mean": means.get(name), "pool": pool.get(name), "network": network.get(name)}
        for name in dict.fromkeys([*network, *pool])
    ]


def _column(
    task: PoolingTask, batches: list[Any], probe: Callable[[PoolingTask, Any], Probe | None]
) -> tuple[dict[str, float], dict[str, float]]:
    """What is measured behind one kind of probe, and what a mean in its place has."""
    generator = torch.Generator().manual_seed(0)
    found: dict[str, list[Measured]] = {}
    pooled, averaged = [], []
    for batch, following in zip(batches, [*batches[1:], batches[0]], strict=True):
        one, other = probe(task, batch), probe(task, following)
        if one is None or other is None:
            return {}, {}
        mask = block(one, generator)
        hidden = _hidden(task, batch, one, mask) if probe is through_network else None
        for measured in perturb(one, other, mask, hidden):
            found.setdefault(measured.name, []).append(measured)
        pooled.append(one.function(one.x))
        averaged.append(one.x.mean(one.pooled))
    spread, spread_of_means = _spread(pooled), _spread(averaged)
    values, means = {}, {}
    for name, of_samples in found.items():
        by = of_samples[0].by_spread
        known = [one.value for one in of_samples if not math.isnan(one.value)]
        values[name] = statistics.fmean(known) / (spread if by else 1) if known else math.nan
        means[name] = statistics.fmean(one.mean for one in of_samples) / (spread_of_means if by else 1)
    return values, means


def _hidden(task: PoolingTask, batch: Any, probe: Probe, mask: Tensor) -> Callable[[], Tensor] | None:
    """What is pooled of a batch whose masked elements say nothing; None if the task cannot hide."""
    axes = task.pool.layout.axes(probe.undo(probe.x).ndim)
    grid = probe.undo(mask.expand(*probe.x.shape[:-1], 1)).squeeze(axes.channel)
    changed = task.hide(batch, [grid if axes.ragged else grid.squeeze(0)])
    if changed is None:
        return None

    def function() -> Tensor:
        x, sets = task.encode(changed)
        pooled: Tensor = task.pool(x, **sets)
        return pooled

    return function


def _spread(pooled: list[Tensor]) -> float:
    """Root mean square distance of the samples' vectors from their mean, on the part that all of them have."""
    common = [slice(min(sizes)) for sizes in zip(*(one.shape for one in pooled), strict=True)]
    z = torch.cat([one[tuple(common)].flatten(1) for one in pooled]).double()
    return float((z - z.mean(0)).square().mean().sqrt()) or math.nan


def _long(variances: list[Row]) -> list[Row]:
    """The variances as rows of the CSV."""
    return [
        {"measure": f"variance, {what}, {where}, N = {row['N']}", "mean": row[where], "pool": row[f"{what} {where}"]}
        for where in ("apart", "together")
        for what in ("normal", "features")
        for row in variances
    ]


def _markdown(task: PoolingTask, variances: list[Row], correlation: float, rows: list[Row], count: int) -> str:
    lines = [
        f"Pool: {task.pool.reduction}. {count} test samples. Elements of one set correlate by ρ = {correlation:.3f}.",
        "",
        "| variance, N = | " + " | ".join(str(row["N"]) for row in variances) + " |",
        "|---|" + "---|" * len(variances),
    ]
    names = {
        "apart": "mean, 1 / N",
        "normal apart": "pool, normal, ρ = 0",
        "features apart": "pool, features of any sets",
        "together": "mean, ρ + (1 - ρ) / N",
        "normal together": f"pool, normal, ρ = {correlation:.2f}",
        "features together": "pool, features of one set",
    }
    lines += [
        f"| {text} | " + " | ".join(f"{row[name]:.4f}" for row in variances) + " |" for name, text in names.items()
    ]
    lines += ["", "| change | mean, closed form | at the pool | through the network |", "|---|---|---|---|"]
    units = {"mixup": "gap", "cutmix": "gap", "constant": "of the spread", "shift": "of the spread",
             "occlusion": "of the spread"}  # fmt: skip
    for row in rows:
        values = " | ".join("" if row[name] is None else f"{row[name]:.4f}" for name in ("mean", "pool", "network"))
        lines.append(f"| {row['measure']}, {units.get(row['measure'], 'of the constant')} | {values} |")
    return "\n".join(lines) + "\n"


def _draw(path: Path, variances: list[Row], rows: list[Row]) -> None:
    """Variances against N on the left; on the right what comes through of each change, and what would of a mean."""
    figure = canvas(10, 3.8)
    left, right = figure.subplots(1, 2)
    sizes = [row["N"] for row in variances]
    for where, colour, what in (("apart", "C0", "any sets"), ("together", "C1", "one set")):
        left.plot(sizes, [row[where] for row in variances], color=colour, label=f"mean, {what}: closed form")
        for name, marker in (("normal", "o"), ("features", "x")):
            values = [row[f"{name} {where}"] for row in variances]
            left.plot(sizes, values, marker, color=colour, mfc="none", label=f"pool, {what}: {name}")
    left.set(xscale="log", yscale="log", xlabel="elements N", ylabel="variance, of one element's")
    left.legend(fontsize=7)
    shown = [row for row in rows if row["pool"] is not None]
    for place, row in enumerate(shown):
        right.plot(row["mean"], place, "|", color="0.3", ms=14, label=None if place else "mean, closed form")
        right.plot(row["pool"], place, "o", color="C0", mfc="none", label=None if place else "at the pool")
        if row["network"] is not None:
            right.plot(row["network"], place, "x", color="C3", label=None if place else "through the network")
    right.set(yticks=range(len(shown)), yticklabels=[row["measure"] for row in shown], xlabel="what comes through")
    right.set_xscale("symlog", linthresh=0.01)
    right.set_xlim(left=-0.001)
    right.invert_yaxis()
    right.legend(fontsize=7, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    save(figure, path)
