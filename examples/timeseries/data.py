"""Series of numbers, one time step a row of a CSV: read, checked and split before training."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tasks.data.base import PoolingData, Sample
from tasks.data.manifest import Row, read_manifest
from tasks.data.problems import Problems
from tasks.data.splits import PARTS, check_classes, split

OTHER = ("id", "label", "truth")  # columns that are no channel


class SeriesData(PoolingData):
    """Series that a CSV holds, all in one: rows of one ``id`` are one series, in the order of time.

    Columns are ``id``, ``label``, perhaps ``truth`` (1 where a time step decides the label: for `judge`), and one for
    each channel.

    Args:
        path: The CSV.
        num_folds: Folds of the cross-validation.
        val: Share of the training series that validates.
        options: Options of `tasks.data.base.PoolingData`.
    """

    def __init__(self, path: str, *, num_folds: int = 5, val: float = 0.2, **options):
        super().__init__(**options)
        self.path, self.num_folds, self.val = path, num_folds, val

    @property
    def folds(self) -> list[int]:
        """All folds."""
        return list(range(self.num_folds))

    def load(self) -> None:
        """Read and check every row, then split the series.

        Raises:
            BadInput: Naming every row that cannot be used, and every series that has two labels.
        """
        problems = Problems(self.path, on_bad=self.on_bad)
        rows = read_manifest(self.path, required=("id", "label"))
        series, channels = read_series(rows, problems), channel_names(rows)
        classes = sorted({one["label"] for one in series})
        if len(classes) < 2:
            problems.stop("column label", f"expected at least two classes, got {len(classes)}; add the others")
            problems.finish(total=len(rows))
        for one in series:
            one["target"] = classes.index(one["label"])
        targets = [one["target"] for one in series]
        numbers = split(targets, folds=self.num_folds, fold=self.fold, val=self.val, seed=self.seed)
        parts = {part: [series[number] for number in numbers[part]] for part in PARTS}
        counts = check_classes(
            {part: [one["target"] for one in members] for part, members in parts.items()}, classes, problems
        )
        problems.finish(total=len(rows))

        self.datasets = dict(parts)
        self._samples = {part: [Sample(one["id"]) for one in members] for part, members in parts.items()}
        steps = torch.cat([one["x"] for one in parts["train"]])
        self._spec = {  # plain values: the checkpoint holds them, and `explain` needs nothing else
            "kind": "binary" if len(classes) == 2 else "multiclass",
            "classes": classes,
            "class_counts": counts,
            "train_size": len(parts["train"]),
            "channels": channels,
            "mean": steps.mean(0).tolist(),
            "std": steps.std(0).clamp(min=1e-8).tolist(),
        }

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Pad the series of a batch at their ends."""
        return collate(samples)

    def elements(self, sample: dict[str, Any]) -> int:
        """Time steps, by which `buckets` sorts."""
        return len(sample["x"])


def channel_names(rows: list[Row]) -> list[str]:
    """The columns that hold numbers."""
    return [column for column in rows[0] if column not in OTHER]


def read_series(rows: list[Row], problems: Problems) -> list[dict[str, Any]]:
    """Join the rows of each series: its ``x`` (time, channels), ``id``, ``label`` and ``truth``."""
    columns, truth = channel_names(rows), "truth" in rows[0]
    steps: dict[str, list[Row]] = {}
    for row in rows:
        steps.setdefault(str(row["id"]), []).append(row)
    series = []
    for name, members in steps.items():
        bad = [row for row in members if not all(_is_number(row[column]) for column in columns)]
        labels = sorted({str(row["label"]) for row in members})
        for row in bad:
            problems.add(row.where, f"expected a number in {', '.join(columns)}; correct it")
        if len(labels) > 1:
            problems.add(f"series {name}", f"has the labels {' and '.join(labels)}; expected one")
        if bad or len(labels) > 1:
            continue
        one = {"id": name, "label": labels[0]}
        one["x"] = torch.tensor([[float(row[column]) for column in columns] for row in members])
        series.append(one | ({"truth": torch.tensor([row["truth"] == "1" for row in members])} if truth else {}))
    return series


def _is_number(cell: str | None) -> bool:
    try:
        return math.isfinite(float(cell or ""))
    except ValueError:
        return False


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch: a dict whose every value has one entry a sample, so that it can be cut to its first few."""
    batch: dict[str, Any] = {
        "x": pad_sequence([one["x"] for one in samples], batch_first=True),  # (B, T, C)
        "lengths": torch.tensor([len(one["x"]) for one in samples]),
        "target": torch.tensor([one["target"] for one in samples]),
        "id": [one["id"] for one in samples],
    }
    return batch | ({"truth": [one["truth"] for one in samples]} if "truth" in samples[0] else {})


def write_example(path: str | Path, count: int = 120, seed: int = 0) -> None:
    """Write a CSV whose answer is known: noise with a short wave in it, which rises first ("up") or falls first.

    Series are 40 to 80 steps long; the wave's 12 steps are in column ``truth``.
    """
    generator = torch.Generator().manual_seed(seed)
    wave = torch.sin(torch.linspace(0, 2 * math.pi, 12))
    lines = ["id,label,truth,left,right"]
    for number in range(count):
        length = int(torch.randint(40, 81, (1,), generator=generator))
        start = int(torch.randint(length - 12 + 1, (1,), generator=generator))
        values: Tensor = 0.4 * torch.randn(length, 2, generator=generator)
        values[start : start + 12, 0] += wave * (2 if number % 2 else -2)
        for step, (left, right) in enumerate(values.tolist()):
            inside = int(start <= step < start + 12)
            lines.append(f"s{number:03d},{'up' if number % 2 else 'down'},{inside},{left:.4f},{right:.4f}")
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
