"""Floors: what simple baselines reach on the split that a task is tested on, by scikit-learn, in seconds.

A task tells a few numbers or counts of each sample (`PoolingTask.floors`). A linear model is fitted to each kind of
them on the training samples, its penalty chosen by folds within these, and tested on the test samples; where the task
asks for one, a random forest.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from tasks.data.base import PoolingData
from tasks.task.base import PoolingTask
from tasks.task.certainty import measure, report_metrics
from tasks.task.estimators import Estimator, predict
from tasks.task.modality import Counts, ForForest

Row = dict[str, Any]

JUDGED = {"acc": 1, "auroc": 1, "ap": 1, "mae": -1, "rmse": -1, "r2": 1}
"""Metrics in which a result is held against floors, with 1 where more is better. In others, such as sensitivity, saying
yes to everything is unbeaten."""


def measure_floors(
    task: PoolingTask, data: PoolingData, *, parts: Sequence[str] = ("train",), forests: bool = True
) -> list[Row]:
    """Fit the floors on a part of the data and test them on its test part.

    Args:
        task: Says what a floor is told of a sample; that it is trained or not makes no difference.
        data: Its training samples are taken without random changes, and only those that keep their label.
        parts: What floors are fitted on: train, the samples that a network learns from, or train and val.
        forests: Whether to grow the forests, too, which take minutes where there are many samples or labels.

    Returns:
        A row for each floor, ``floor`` and the metrics of the task's kind. The first knows the targets alone (the most
        frequent class, with the classes' shares as probabilities; the mean). A floor that is told the same of all
        training samples is left out.
    """
    pieces: list[Dataset[Any]] = []
    groups: list[str | None] = []
    for part in parts:
        known = [sample.group for sample in data.samples(part)]
        kept = data.kept if part == "train" and data.kept else range(len(known))
        pieces.append(Subset(data.still(part), list(kept)))
        groups += [known[number] for number in kept]
    train, train_target = told_of(task, data, ConcatDataset(pieces))
    test, target = told_of(task, data, data.still("test"))

    nothing = np.zeros((len(train_target), 0)), np.zeros((len(target), 0))
    told = {"mean" if task.kind == "regression" else "majority": nothing}
    grown = {name for name, each in train.items() if isinstance(each, ForForest)}
    wanted = [name for name in train if forests or name not in grown]
    told |= {name: both for name in wanted if (both := matrices(train[name], test[name]))[0].shape[1]}
    rows, metrics = [], report_metrics(task.kind, len(task.classes))
    for name, (x, asked) in told.items():
        kind: Estimator = "forest" if name in grown else "linear"
        y = train_target.numpy()
        predictions = predict(task.kind, len(task.classes), x, y, asked, groups, estimator=kind)
        rows.append({"floor": name, **measure(metrics, task.kind, torch.from_numpy(predictions).float(), target)})
    return rows


def below(values: Mapping[str, float], floors: Sequence[Row]) -> list[str]:
    """In which of the `JUDGED` metrics a result is worse than a floor, and than which.

    Args:
        values: The result's metrics.
        floors: Rows of `measure_floors`, or their means over folds.

    Example:
        >>> below({"acc": 0.75}, [{"floor": "majority", "acc": 0.6}, {"floor": "degrees", "acc": 0.8}])
        ['acc 0.75 (degrees: 0.8)']
    """
    said = []
    for metric, sign in JUDGED.items():
        known = [row for row in floors if not math.isnan(row.get(metric, math.nan))]
        best = max(known, key=lambda row: sign * row[metric], default=None)
        if best and metric in values and sign * values[metric] < sign * best[metric]:
            said.append(f"{metric} {values[metric]:.4g} ({best['floor']}: {best[metric]:.4g})")
    return said


def told_of(task: PoolingTask, data: PoolingData, samples: Dataset[Any]) -> tuple[dict[str, list[Any]], Tensor]:
    """What each floor is told of each sample (`PoolingTask.floors`), and the samples' targets."""
    told: dict[str, list[Any]] = {}
    targets, training = [], task.training
    task.eval()
    with torch.no_grad():
        for batch in data.loader(samples, False):
            batch = task.transfer_batch_to_device(batch, task.device, 0)
            for name, each in task.floors(batch).items():
                kept = told.setdefault(name, ForForest() if isinstance(each, ForForest) else [])
                kept.extend(one.cpu().numpy() if isinstance(one, Tensor) else one for one in each)
            targets.append(task.target(batch).cpu())
    task.train(training)
    return told, torch.cat(targets)


def matrices(train: Sequence[Any], test: Sequence[Any]) -> tuple[Any, Any]:
    """Samples by features: log(1 + count), sparse, or vectors with zeros behind short ones; constants are left out.

    Example:
        >>> train, test = matrices([{7: 1}, {8: 1}], [{7: 3, 9: 1}])
        >>> test.toarray().round(2).tolist()
        [[1.39, 0.0]]
    """
    if isinstance(train[0], Mapping):
        words = {word: place for place, word in enumerate(sorted({word for counts in train for word in counts}))}
        both = [_logarithms(part, words) for part in (train, test)]
        varied = np.flatnonzero(both[0].max(0).toarray() != both[0].min(0).toarray())
    else:
        width = max(map(len, train))  # what is beyond the longest that was learned from has no weight
        both = [np.zeros((len(part), width)) for part in (train, test)]
        for matrix, part in zip(both, (train, test), strict=True):
            for row, vector in zip(matrix, part, strict=True):
                row[: len(vector)] = vector[:width]
        varied = np.flatnonzero(np.ptp(both[0], axis=0) > 0)
    return both[0][:, varied], both[1][:, varied]


def _logarithms(samples: Sequence[Counts], words: Mapping[int, int]) -> csr_matrix:
    known = [[(words[word], number) for word, number in counts.items() if word in words] for counts in samples]
    ends = np.cumsum([0, *map(len, known)])
    places, numbers = np.array([pair for each in known for pair in each], dtype=np.int64).reshape(-1, 2).T
    return csr_matrix((np.log1p(numbers), places, ends), shape=(len(samples), len(words)))
