"""The curves of a training: metrics.csv as a picture."""

import csv
from pathlib import Path

from tasks.outputs.drawing import canvas, save

PARTS = ("train", "val", "random")
"""What a curve may be of; "random" is a network that is not trained, the line that a pretraining has to leave."""


def draw_curves(folder: Path, best: int | None = None) -> list[Path]:
    """Draw metrics.csv, if training wrote one, as ``curves.png``: one panel a metric, training beside validation.

    Args:
        folder: The run's.
        best: The epoch whose weights were kept, counted from 1 as all of them are here; it is marked.
    """
    table = folder / "metrics.csv"
    if not table.is_file():
        return []
    with table.open(encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    curves: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for record in records:
        for column, value in record.items():
            part, _, name = column.partition("/")
            if part in PARTS and value:
                curves.setdefault(name, {}).setdefault(part, []).append((float(record["epoch"]) + 1, float(value)))
    if not curves:
        return []
    figure = canvas(4 * len(curves), 3.2)
    for axes, (name, parts) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        for part, points in parts.items():
            axes.plot(*zip(*points, strict=True), label=part)
        if best is not None:
            axes.axvline(best, color="0.5", ls="--", lw=1, label=f"kept: epoch {best}")
        axes.set(xlabel="epoch", title=name)
        axes.grid(alpha=0.3)
        axes.legend()
    return [save(figure, folder / "curves.png")]
