"""What a test or a prediction says: a row a sample in predictions.csv, and the metrics with their intervals."""

import csv
from pathlib import Path
from typing import Any

import torch

from tasks.task.base import PoolingTask
from tasks.task.certainty import bootstrap


def write_predictions(path: Path, rows: list[dict[str, Any]], task: PoolingTask) -> None:
    """Write id, target, prediction and one probability per class (or, in regression, one value per target)."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_header(task))
        for row in rows:
            writer.writerow([row["id"], *_cells(row, task)])


def _header(task: PoolingTask) -> list[str]:
    if task.kind == "regression":
        return ["id", *(f"target {name}" for name in task.classes), *(f"prediction {name}" for name in task.classes)]
    return ["id", "target", "prediction", *(f"p({name})" for name in task.classes)]


def _cells(row: dict[str, Any], task: PoolingTask) -> list[str]:
    target, predictions = row["target"], row["predictions"]
    numbers = [f"{value:.6g}" for value in predictions.tolist()]
    if task.kind == "regression":
        return [*([""] * len(numbers) if target is None else [f"{value:.6g}" for value in target.tolist()]), *numbers]
    if task.kind == "multilabel":
        names = lambda hits: "|".join(name for name, hit in zip(task.classes, hits, strict=True) if hit)  # noqa: E731
        return ["" if target is None else names(target.tolist()), names((predictions > 0.5).tolist()), *numbers]
    return ["" if target is None else task.classes[int(target)], task.classes[int(predictions.argmax())], *numbers]


def summarise(rows: list[dict[str, Any]], task: PoolingTask, samples: int) -> dict[str, Any]:
    """The test metrics with their bootstrap intervals, and what they were measured on."""
    predictions = torch.stack([row["predictions"] for row in rows])
    target = torch.stack([row["target"] for row in rows])
    target = target.long() if task.kind == "multilabel" else target
    return {
        "kind": task.kind,
        "classes": task.classes,
        "samples": len(rows),
        "parameters": sum(parameter.numel() for parameter in task.parameters()),
        "pool": " ".join(str(task.pool).split()),
        "test": bootstrap(task.kind, len(task.classes), predictions, target, samples=samples),
    }
