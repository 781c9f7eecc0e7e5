"""What probes come to: means over folds, networks and draws, beside the random network and the floors."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from tasks.commands.paired import difference
from tasks.commands.runs import mean_and_sd
from tasks.task.floors import JUDGED

Row = dict[str, Any]
KEYS = ("fold", "features", "network", "heard", "probe", "budget", "labels", "seed")
RAW, RANDOM = "raw features, pooled", "random network"
LEARNED = ("pretrained", "trained", "fine-tuned", "from scratch")
"""How features begin that somebody trained; all others are floors."""


def summary(rows: Sequence[Row], *, folds: int) -> dict[str, Any]:
    """The fits of each kind of features, probe and budget, as means and standard deviations.

    Args:
        rows: A row for each fit: `KEYS` and metrics.
        folds: Folds of the data.

    Returns:
        Under ``rows`` for each kind ``features``, ``probe``, ``budget``, ``labels`` (mean), ``fits``, ``test`` (mean
        and sd of each metric over folds, networks and draws) and ``to_random`` (how much more than the random network,
        with a 95 % interval over folds, `tasks.commands.paired.difference`; of the metrics that floors are judged by).
    """
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["features"], row["probe"], row["budget"]), []).append(row)
    found = []
    for (features, probe, budget), own in groups.items():
        metrics = [{name: value for name, value in row.items() if name not in KEYS} for row in own]
        entry = {"features": features, "probe": probe, "budget": budget, "fits": len(own)}
        entry |= {"labels": statistics.fmean(row["labels"] for row in own), "test": mean_and_sd(metrics)}
        random = groups.get((RANDOM, probe, budget))
        if random and features != RANDOM:
            entry["to_random"] = {
                metric: difference(_by_fold(own, metric), _by_fold(random, metric), metric, folds=folds)._asdict()
                for metric in JUDGED
                if metric in metrics[0]
            }
        found.append(entry)
    return {"rows": found}


def _by_fold(rows: Sequence[Row], metric: str) -> list[Row]:
    """The means over networks and draws: these are no samples of their own."""
    folds: dict[Any, list[float]] = {}
    for row in rows:
        folds.setdefault(row["fold"], []).append(row[metric])
    return [{"fold": fold, "seed": 0, metric: statistics.fmean(values)} for fold, values in folds.items()]


def tables(found: dict[str, Any]) -> str:
    """A table for each probe and the first metrics, rows of features and columns of budgets, and what it says."""
    rows = found["rows"]
    shown = [name for name in ("acc", "auroc", "r2", "mae", "ap") if name in rows[0]["test"]][:2]
    lines = []
    for probe in dict.fromkeys(row["probe"] for row in rows):
        own = [row for row in rows if row["probe"] == probe]
        for metric in shown:
            lines += [*_table(own, probe, metric), ""]
        lines += [*_against_random(own, shown[0]), *_below(own, shown[0]), ""]
    lines.append("± is the standard deviation over folds, networks and draws of labels.")
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Row], probe: str, metric: str) -> Iterable[str]:
    budgets = list(dict.fromkeys(row["budget"] for row in rows))
    cells = {(row["features"], row["budget"]): row for row in rows}
    yield f"| {probe}: {metric} | {' | '.join(budgets)} |"
    yield "|---" * (1 + len(budgets)) + "|"
    for features in dict.fromkeys(row["features"] for row in rows):
        texts = []
        for budget in budgets:
            row = cells.get((features, budget))
            texts.append(_cell(row, metric) if row else "")
        yield f"| {features} | {' | '.join(texts)} |"


def _cell(row: Row, metric: str) -> str:
    both = row["test"][metric]
    return f"{both['mean']:.3g}" + (f" ± {both['sd']:.2g}" if row["fits"] > 1 else "")


def _against_random(rows: Sequence[Row], metric: str) -> Iterable[str]:
    """How much what was trained is more than the random network."""
    for row in rows:
        if row["features"].startswith(LEARNED) and "to_random" in row:
            against = row["to_random"][metric]
            interval = "" if math.isnan(against["low"]) else f" [{against['low']:+.3g}, {against['high']:+.3g}]"
            yield f"{row['features']}, {row['budget']}: {against['mean']:+.3g}{interval} to the random network."


def _below(rows: Sequence[Row], metric: str) -> Iterable[str]:
    """Where what was trained is worse than the best that was not."""
    sign = JUDGED[metric]
    for row in rows:
        if not row["features"].startswith(LEARNED):
            continue
        rivals = [one for one in rows if one["budget"] == row["budget"] and not one["features"].startswith(LEARNED)]
        own = row["test"][metric]["mean"]
        best = max(rivals, key=lambda one: sign * one["test"][metric]["mean"], default=None)
        if best and sign * own < sign * best["test"][metric]["mean"]:
            yield (
                f"Below a floor: {row['features']}, {row['budget']}: {metric} {own:.3g} "
                f"({best['features']}: {best['test'][metric]['mean']:.3g})."
            )
