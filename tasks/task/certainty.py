"""How sure a test result is: intervals by resampling, and the chance that shuffled labels do as well."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from tasks.task.metrics import build_metrics, decision_metrics

Result = dict[str, dict[str, float]]
"""For each metric ``value``, and ``low`` and ``high`` of its 95 % interval."""
LOWER_IS_BETTER = ("mae", "rmse", "brier", "ece", "loss")


def report_metrics(kind: str, classes: int, *, threshold: float | None = None) -> MetricCollection:
    """The metrics of a test, in one process; of the decisions at a ``threshold`` alone where one is given."""
    if threshold is not None:
        return MetricCollection(decision_metrics(threshold, sync_on_compute=False), compute_groups=False)
    return build_metrics(kind, classes, every=True, sync_on_compute=False)


def measure(metrics: MetricCollection, kind: str, predictions: Tensor, target: Tensor) -> dict[str, float]:
    """The value of each metric, NaN where it is undefined.

    Args:
        metrics: Of `report_metrics`.
        kind: The kind of task.
        predictions: (N, K) probabilities or values.
        target: (N,) or (N, K).
    """
    metrics.reset()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No (positive|negative) samples")  # that is what NaN says
        metrics.update(predictions[:, 1] if kind == "binary" else predictions, target)
        return {name: float(value) for name, value in metrics.compute().items()}


def bootstrap(
    kind: str,
    classes: int,
    predictions: Tensor,
    target: Tensor,
    *,
    groups: Sequence[str] | None = None,
    threshold: float | None = None,
    samples: int = 500,
    seed: int = 0,
) -> Result:
    """Value and 95 % percentile interval of each metric, by resampling the test set (Efron 1979).

    Samples of one subject are not independent: where there are groups, whole groups are drawn (the cluster bootstrap,
    Davison and Hinkley 1997, section 3.8), as many as there are.

    Args:
        kind: The kind of task, see `tasks.task.metrics.build_metrics`.
        classes: Number of classes or targets.
        predictions: (N, K) probabilities or values.
        target: (N,) or (N, K).
        groups: Whose each sample is; None = each its own.
        threshold: Measure a binary task's decisions at this probability instead.
        samples: Number of resamples.
        seed: Seed of the resampling.

    Returns:
        For each metric ``value``, ``low`` and ``high``. Resamples in which a metric is undefined are left out of its
        interval; all three are NaN where it is undefined in the test set itself.

    Example:
        >>> sure, right = torch.tensor([[0.9, 0.1], [0.2, 0.8]] * 10), torch.tensor([0, 1] * 10)
        >>> bootstrap("binary", 2, sure, right, samples=20)["auroc"]
        {'value': 1.0, 'low': 1.0, 'high': 1.0}
    """
    predictions, target = predictions.cpu(), target.cpu()
    metrics = report_metrics(kind, classes, threshold=threshold)
    values = measure(metrics, kind, predictions, target)
    generator = torch.Generator().manual_seed(seed)
    members = _members(groups, len(target))

    def draw() -> Tensor:
        drawn = torch.randint(len(members), (len(members),), generator=generator)
        return drawn if groups is None else torch.cat([members[i] for i in drawn.tolist()])

    draws: dict[str, list[float]] = {name: [] for name in values}
    for _ in range(samples):
        rows = draw()
        for name, value in measure(metrics, kind, predictions[rows], target[rows]).items():
            draws[name].append(value)
    return {name: {"value": value, **_interval(value, draws[name])} for name, value in values.items()}


def _interval(value: float, drawn: list[float]) -> dict[str, float]:
    defined = torch.tensor([one for one in drawn if not math.isnan(one)], dtype=torch.float64)
    if math.isnan(value) or not len(defined):
        return {"low": math.nan, "high": math.nan} if drawn or math.isnan(value) else {"low": value, "high": value}
    low, high = torch.quantile(defined, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return {"low": low, "high": high}


def _members(groups: Sequence[str] | None, count: int) -> list[Tensor]:
    """The numbers of each group's samples."""
    if groups is None:
        return list(torch.split(torch.arange(count), 1))
    rows: dict[str, list[int]] = {}
    for number, group in enumerate(groups):
        rows.setdefault(group, []).append(number)
    return [torch.tensor(numbers) for numbers in rows.values()]


def permutation_test(
    kind: str,
    classes: int,
    predictions: Tensor,
    target: Tensor,
    *,
    groups: Sequence[str] | None = None,
    permutations: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """How often shuffled labels do as well: a p value for each metric (Phipson and Smyth 2010: (b + 1) / (n + 1)).

    Labels are shuffled within groups, because only there they are exchangeable. Where every group has one label (a
    subject's diagnosis), that would change nothing: then groups exchange theirs.

    Args:
        kind: The kind of task.
        classes: Number of classes or targets.
        predictions: (N, K) probabilities or values.
        target: (N,) or (N, K).
        groups: Whose each sample is; None = shuffle among all.
        permutations: How often to shuffle.
        seed: Seed of the shuffling.

    Returns:
        ``p`` by metric, the number of ``permutations``, and ``shuffled``, who exchanged labels.
    """
    predictions, target = predictions.cpu(), target.cpu()
    metrics = report_metrics(kind, classes)
    value = measure(metrics, kind, predictions, target)
    generator = torch.Generator().manual_seed(seed)
    shuffle, shuffled = _shuffling(groups, target, generator)
    at_least = dict.fromkeys(value, 0)
    for _ in range(permutations):
        for name, other in measure(metrics, kind, predictions, target[shuffle()]).items():
            better = other <= value[name] if name in LOWER_IS_BETTER else other >= value[name]
            at_least[name] += better
    p = {name: (hits + 1) / (permutations + 1) for name, hits in at_least.items() if not math.isnan(value[name])}
    return {"p": p, "permutations": permutations, "shuffled": shuffled}


def _shuffling(
    groups: Sequence[str] | None, target: Tensor, generator: torch.Generator
) -> tuple[Callable[[], Tensor], str]:
    """What gives a new order of the targets, and between whom it exchanges labels."""
    members = _members(groups, len(target))

    def mixed(rows: Tensor) -> Tensor:
        return rows[torch.randperm(len(rows), generator=generator)]

    def between() -> Tensor:
        order = torch.empty(len(target), dtype=torch.long)
        for rows, other in zip(members, torch.randperm(len(members), generator=generator).tolist(), strict=True):
            order[rows] = members[other][0]
        return order

    def within() -> Tensor:
        order = torch.empty(len(target), dtype=torch.long)
        for rows in members:
            order[rows] = mixed(rows)
        return order

    if groups is None:
        return lambda: mixed(torch.arange(len(target))), "samples"
    told = target.nan_to_num(nan=-1)
    if all(bool((told[rows] == told[rows[0]]).all()) for rows in members):
        return between, "groups"
    return within, "samples within groups"
