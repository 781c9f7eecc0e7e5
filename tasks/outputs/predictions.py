"""What a test or a prediction says: a row a sample in predictions.csv, and the metrics with their intervals."""

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from tasks.data.base import Sample
from tasks.task.base import PoolingTask
from tasks.task.certainty import bootstrap, measure, permutation_test, report_metrics


class Row(NamedTuple):
    """What a task says of one sample, and what the data know of it."""

    id: str
    predictions: Tensor
    target: Tensor | None = None
    part: str = ""
    fold: int | None = None
    sample: Sample = Sample("")
    leaked: bool | None = None
    """Whether it is known to be not independent of the training; None = nobody has looked."""

    def column(self, name: str) -> str:
        """A cell of the table that lists the sample; empty where there is none."""
        value = self.sample.columns.get(name)
        return "" if value is None else str(value)


def write_predictions(path: Path, rows: Sequence[Row], task: PoolingTask, *, by: Sequence[str] = ()) -> None:
    """Write a row a sample: what the metrics are computed from, whose it is, and in which part of which fold.

    Columns are id, target, prediction and one probability per class (of several labels, one target each, 0 or 1; in
    regression, one target and one prediction per value; empty where not known), then part, fold, group and those named
    in ``by``.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*_header(task), "part", "fold", "group", *by])
        for row in rows:
            known = [row.part, "" if row.fold is None else row.fold, row.sample.group or "", *map(row.column, by)]
            writer.writerow([safe(cell) for cell in (row.id, *_cells(row, task), *known)])


def safe(cell: Any) -> Any:
    """A cell that no spreadsheet runs as a formula: an apostrophe goes before what would be one.

    Example:
        >>> safe("=1+1"), safe("-0.5"), safe("a=b")
        ("'=1+1", '-0.5', 'a=b')
    """
    if not isinstance(cell, str) or cell[:1] not in ("=", "+", "-", "@", "\t", "\r"):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def _header(task: PoolingTask) -> list[str]:
    if task.kind == "regression":
        return ["id", *(f"target {name}" for name in task.classes), *(f"prediction {name}" for name in task.classes)]
    targets = [f"target {name}" for name in task.classes] if task.kind == "multilabel" else ["target"]
    return ["id", *targets, "prediction", *(f"p({name})" for name in task.classes)]


def _cells(row: Row, task: PoolingTask) -> list[str]:
    target, predictions = row.target, row.predictions
    numbers = [f"{value:.6g}" for value in predictions.tolist()]
    if task.kind == "regression":
        known = [math.nan] * len(numbers) if target is None else target.tolist()
        return [*("" if math.isnan(value) else f"{value:.6g}" for value in known), *numbers]
    if task.kind == "multilabel":
        known = [math.nan] * len(numbers) if target is None else target.tolist()
        truth = ["" if math.isnan(value) else str(int(value)) for value in known]
        said = [name for name, hit in zip(task.classes, (predictions > 0.5).tolist(), strict=True) if hit]
        return [*truth, "|".join(said), *numbers]
    return ["" if target is None else task.classes[int(target)], task.classes[int(predictions.argmax())], *numbers]


def summarise(
    rows: Sequence[Row], task: PoolingTask, *, resamples: int = 500, permutations: int = 0, by: Sequence[str] = ()
) -> dict[str, Any]:
    """The test metrics with their intervals, and what they were measured on, in plain values.

    Args:
        rows: Samples with targets.
        task: Whose predictions they are.
        resamples: Resamples behind the intervals.
        permutations: How often labels are shuffled for p values.
        by: Columns by whose values the metrics are given, too.
    """
    kind, classes = task.kind, len(task.classes)
    predictions = torch.stack([row.predictions for row in rows])
    target = torch.stack([row.target for row in rows if row.target is not None])
    groups = groups_of(rows)
    summary: dict[str, Any] = {
        "kind": kind,
        "classes": task.classes,
        "samples": len(rows),
        "groups": None if groups is None else len(set(groups)),
        "parameters": sum(parameter.numel() for parameter in task.parameters()),
        "pool": " ".join(str(task.pool).split()),
        "test": bootstrap(kind, classes, predictions, target, groups=groups, samples=resamples),
    }
    if rows[0].leaked is not None:
        clean = torch.tensor([not row.leaked for row in rows])
        rest = [row for row in rows if not row.leaked]
        summary["without_leaks"] = {"samples": len(rest), "test": summary["test"]}
        if 0 < len(rest) < len(rows):
            summary["without_leaks"]["test"] = bootstrap(
                kind, classes, predictions[clean], target[clean], groups=groups_of(rest), samples=resamples
            )
    if task.operating_point is not None:
        summary["positive"] = task.classes[1]
        threshold = task.operating_point.threshold
        if not math.isnan(threshold):
            at = bootstrap(kind, classes, predictions, target, groups=groups, threshold=threshold, samples=resamples)
            summary["at_threshold"] = {"threshold": threshold, "chosen_on": "validation", **at}
    if kind in ("binary", "multiclass"):
        summary["confusion"] = multiclass_confusion_matrix(predictions.argmax(1), target, classes).tolist()
        summary["per_class"] = dict(zip(task.classes, _per_class(summary["confusion"]), strict=True))
    elif classes > 1:
        summary["per_class"] = dict(zip(task.classes, _per_target(kind, predictions, target), strict=True))
    if permutations:
        summary["permutation_test"] = permutation_test(
            kind, classes, predictions, target, groups=groups, permutations=permutations
        )
    if by:
        metrics = report_metrics(kind, classes)
        for column in by:
            cells = [row.column(column) for row in rows]
            chosen = {value: torch.tensor([cell == value for cell in cells]) for value in sorted(set(cells))}
            summary.setdefault("by", {})[column] = {
                value: {"samples": int(hits.sum()), **measure(metrics, kind, predictions[hits], target[hits])}
                for value, hits in chosen.items()
            }
    plain: dict[str, Any] = without_nan(summary)
    return plain


def groups_of(rows: Sequence[Row]) -> list[str] | None:
    """Whose each sample is; None where all are their own."""
    owners = [row.sample.group or row.id for row in rows]
    return owners if len(set(owners)) < len(owners) else None


def worst_mistakes(rows: Sequence[Row], task: PoolingTask) -> list[Row]:
    """Samples that are predicted wrongly, the surest or farthest first; in regression all."""

    def wrong(row: Row) -> float:
        p, target = row.predictions, row.target
        if target is None:
            return 0.0
        if task.kind == "regression":
            return float(((p - target.to(p)) / task.target_std.to(p)).abs().nan_to_num().max())
        if task.kind == "multilabel":
            missed = (p - target.to(p)).abs().nan_to_num()
            return float(torch.where(missed > 0.5, missed, 0.0).max())
        return 0.0 if int(p.argmax()) == int(target) else 1 - float(p[int(target)])

    return [row for row in sorted(rows, key=wrong, reverse=True) if wrong(row) > 0]


def _per_class(confusion: list[list[int]]) -> Iterator[dict[str, float]]:
    """Of each class its samples, recall, precision and f1; NaN where they are undefined."""

    def share(part: int, whole: int) -> float:
        return part / whole if whole else math.nan

    for number, row in enumerate(confusion):
        hits, predicted = row[number], sum(other[number] for other in confusion)
        yield {
            "samples": sum(row),
            "recall": share(hits, sum(row)),
            "precision": share(hits, predicted),
            "f1": share(2 * hits, sum(row) + predicted),
        }


def _per_target(kind: str, predictions: Tensor, target: Tensor) -> Iterator[dict[str, float]]:
    """Of each label or value how many samples it is known of (and how many have it), and the metrics of it alone."""
    metrics = report_metrics(kind, 1)
    for p, t in zip(torch.split(predictions, 1, 1), torch.split(target, 1, 1), strict=True):
        counts = {"samples": int(t.isfinite().sum())}
        counts |= {"positive": int((t == 1).sum())} if kind == "multilabel" else {}
        yield {**counts, **measure(metrics, kind, p, t)}


def without_nan(value: Any) -> Any:
    """The same with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {name: without_nan(part) for name, part in value.items()}
    if isinstance(value, list):
        return [without_nan(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def report(summary: dict[str, Any]) -> Iterator[str]:
    """The summary in the lines that end a test."""
    groups = f", in {summary['groups']} groups, which intervals resample" if summary["groups"] else ""
    positive = f"; positive: {summary['positive']}" if "positive" in summary else ""
    yield f"test: {summary['samples']} samples{groups}{positive}"
    clean = summary.get("without_leaks", {"samples": summary["samples"]})
    if clean["samples"] < summary["samples"]:
        what = f"without the {summary['samples'] - clean['samples']} samples that are not independent of the training"
        name, result = next((name, clean["test"][name]) for name in ("acc", "mae") if name in clean["test"])
        yield f"test {_with_interval(name, result)}, {what}"
    p = summary.get("permutation_test", {}).get("p", {})
    for name, result in summary["test"].items():
        yield f"test {_with_interval(name, result)}" + (f", p = {p[name]:.3g}" if name in p else "")
    if summary["kind"] == "multilabel":
        without = [name for name, one in summary.get("per_class", {}).items() if one["auroc"] is None]
        if without:
            few = ", ".join(without[:12]) + (", ..." if len(without) > 12 else "")
            share = f"{len(without)} of {len(summary['classes'])} labels"
            yield f"test ap and auroc leave out {share}, which all or none of the samples have: {few}"
    if p:
        test = summary["permutation_test"]
        yield f"p: {test['permutations']} permutations of the labels of {test['shuffled']}"
    if "at_threshold" in summary:
        at = summary["at_threshold"]
        yield f"at p > {at['threshold']:.3g}, chosen on validation:"
        yield from (f"  {_with_interval(name, one)}" for name, one in at.items() if isinstance(one, dict))
    if 2 <= len(summary.get("confusion", ())) <= 12:
        yield "confusion (rows are the truth):"
        yield from _confusion(summary["classes"], summary["confusion"])
    for column, values in summary.get("by", {}).items():
        for value, metrics in values.items():
            numbers = ", ".join(f"{name} {_number(one)}" for name, one in metrics.items() if name != "samples")
            yield f"{column} {value or '(empty)'}: {metrics['samples']} samples, {numbers}"


def _with_interval(name: str, result: dict[str, float | None]) -> str:
    if result["value"] is None:
        return f"{name}: undefined, a class is absent"
    interval = f"95 % interval {_number(result['low'])} to {_number(result['high'])}"
    return f"{name}: {_number(result['value'])}  ({interval})"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"


def _confusion(classes: Sequence[str], counts: list[list[int]]) -> Iterator[str]:
    names = [name if len(name) <= 14 else name[:13] + "…" for name in classes]
    width = max(5, *map(len, names))
    yield " " * (width + 2) + " ".join(f"{name:>{width}}" for name in names)
    for name, row in zip(names, counts, strict=True):
        yield f"  {name:>{width}}" + "".join(f" {count:>{width}}" for count in row)


def values(summary: dict[str, Any]) -> dict[str, float]:
    """Each test metric's value in a summary that was read, NaN where it is undefined; then accuracy without leaks."""

    def value(one: dict[str, Any]) -> float:
        return math.nan if one["value"] is None else float(one["value"])

    found = {name: value(one) for name, one in summary["test"].items()}
    clean = summary.get("without_leaks", {"test": {}})["test"]
    return found | {f"{name}_without_leaks": value(clean[name]) for name in ("acc", "mae") if name in clean}
