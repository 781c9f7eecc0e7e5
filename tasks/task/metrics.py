"""Which torchmetrics belong to which kind of task; what is undefined is NaN, where torchmetrics says zero."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torchmetrics import MeanSquaredError, Metric, MetricCollection
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    BinaryAveragePrecision,
    BinaryCalibrationError,
    BinaryF1Score,
    BinaryPrecision,
    BinaryRecall,
    BinarySpecificity,
    BinaryStatScores,
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassCalibrationError,
    MulticlassF1Score,
    MultilabelAUROC,
    MultilabelAveragePrecision,
    MultilabelStatScores,
)
from torchmetrics.functional.classification import binary_auroc, binary_average_precision
from torchmetrics.utilities.data import dim_zero_cat

UNKNOWN = -1  # a label that is not known, for torchmetrics
UNDEFINED: dict[str, Any] = {"zero_division": float("nan")}


def build_metrics(
    kind: str, classes: int, prefix: str = "", *, every: bool = False, sync_on_compute: bool = True
) -> MetricCollection:
    """Collect the metrics of a kind of task.

    Args:
        kind: ``"binary"``, ``"multiclass"``, ``"multilabel"`` or ``"regression"``.
        classes: Number of classes, or of regression targets.
        prefix: Put before the names: ``"val/"`` gives ``val/acc``.
        every: Whether to add those that a test is reported with to those that a training is watched by.
        sync_on_compute: Whether the processes of a distributed run join what they measured.

    Returns:
        Binary: acc, auroc, f1; of a test balanced_acc, sensitivity, specificity, precision, ap (average precision),
        brier (mean squared error of the probability) and ece (expected calibration error, 15 bins), too. Multiclass:
        acc (over samples), f1 (mean over classes); balanced_acc (mean recall), auroc (each class against the rest) and
        ece. Multilabel: acc, ap; auroc (means over labels). Regression: mae and rmse in the target's units, r2; each
        the mean over targets. What is undefined, because a class is absent, is NaN. A target that is NaN is not known,
        and counts for nothing; means are over the labels or targets in which the metric is defined.

    Example:
        >>> metrics = build_metrics("regression", 1)
        >>> sorted(metrics(torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [2.0]])))
        ['mae', 'r2', 'rmse']
        >>> [float(v) for v in build_metrics("binary", 2)(torch.tensor([0.1, 0.2]), torch.tensor([0, 0])).values()]
        [1.0, nan, nan]
    """
    sync: dict[str, Any] = {"sync_on_compute": sync_on_compute}
    quick = sync | {"validate_args": False}  # the data has looked at its targets; to look again waits for the device
    metrics: dict[str, Metric | MetricCollection]
    if kind == "binary":
        metrics = {"acc": BinaryAccuracy(**quick), "auroc": _BinaryAUROC(**quick)}
        metrics["f1"] = BinaryF1Score(**UNDEFINED, **quick)
        if every:
            metrics |= decision_metrics(**sync) | {
                "ap": _BinaryAveragePrecision(**quick),
                "brier": MeanSquaredError(**sync),
                "ece": BinaryCalibrationError(n_bins=15, **quick),
            }
    elif kind == "multiclass":
        metrics = {
            "acc": MulticlassAccuracy(classes, average="micro", **quick),
            "f1": _MulticlassF1(classes, **quick),
        }
        if every:
            metrics |= {
                "balanced_acc": MulticlassAccuracy(classes, average="macro", **quick),
                "auroc": _MulticlassAUROC(classes, average="none", **quick),
                "ece": MulticlassCalibrationError(classes, n_bins=15, **quick),
            }
    elif kind == "multilabel":
        known = quick | {"average": "none", "ignore_index": UNKNOWN}
        metrics = {"acc": _MultilabelAccuracy(classes, **known), "ap": _MultilabelAP(classes, **known)}
        if every:
            metrics["auroc"] = _MultilabelAUROC(classes, **known)
    elif kind == "regression":
        metrics = {"mae": _MAE(classes, **sync), "rmse": _RMSE(classes, **sync), "r2": _R2(classes, **sync)}
    else:
        raise ValueError(
            f"expected kind binary, multiclass, multilabel or regression, got '{kind}'; correct the data's spec"
        )
    return MetricCollection(metrics, prefix=prefix, compute_groups=False)


def decision_metrics(threshold: float = 0.5, **options: Any) -> dict[str, Metric | MetricCollection]:
    """What a binary task's decisions are worth where a probability above ``threshold`` counts as positive."""
    options = {"threshold": threshold, "validate_args": False, **UNDEFINED, **options}
    return {
        "balanced_acc": _BalancedAccuracy(**options),
        "sensitivity": BinaryRecall(**options),
        "specificity": BinarySpecificity(**options),
        "precision": BinaryPrecision(**options),
    }


def present(target: Tensor, classes: int) -> Tensor:
    """Which classes there are samples of and samples without: (classes,) bool; of (N,) numbers or (N, classes) hits.

    Hits that are neither 0 nor 1 are not known.
    """
    hits = one_hot(target.long(), classes) if target.ndim == 1 else target
    return (hits == 1).any(0) & (hits == 0).any(0)


def _mean_of(values: Tensor, there: Tensor) -> Tensor:
    """The mean of the values that are defined; NaN where none is."""
    return torch.where(there, values, torch.nan).nanmean()


class _BalancedAccuracy(BinaryStatScores):
    """Mean of sensitivity and specificity."""

    def compute(self) -> Tensor:
        tp, fp, tn, fn, _ = super().compute().float()
        balanced: Tensor = 0.5 * (tp / (tp + fn) + tn / (tn + fp))  # 0 / 0 is NaN
        return balanced


class _BinaryAUROC(BinaryAUROC):
    def compute(self) -> Tensor:  # type: ignore[override]  # as torchmetrics does
        target = dim_zero_cat(self.target)
        both = bool((target == 0).any() & (target == 1).any())
        return super().compute() if both else torch.full((), torch.nan, device=target.device)


class _BinaryAveragePrecision(BinaryAveragePrecision):
    def compute(self) -> Tensor:  # type: ignore[override]
        target = dim_zero_cat(self.target)
        return super().compute() if bool((target == 1).any()) else torch.full((), torch.nan, device=target.device)


class _MulticlassF1(MulticlassF1Score):
    """Counts without a histogram, whose length a GPU has to be waited for."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        said, true = (one_hot(numbers, self.num_classes or 0).bool() for numbers in (preds.argmax(1), target))
        self._update_state(*(hits.sum(0) for hits in (said & true, said & ~true, ~said & ~true, ~said & true)))


class _MulticlassAUROC(MulticlassAUROC):
    def compute(self) -> Tensor:  # type: ignore[override]
        return _mean_of(super().compute(), present(dim_zero_cat(self.target), self.num_classes))


def _known(target: Tensor) -> Tensor:
    """Labels as a task gives them, zeros, ones, and NaN where it is not known whether one holds, for torchmetrics."""
    return torch.where(target.isnan(), UNKNOWN, target).long()


class _MultilabelAccuracy(MultilabelStatScores):
    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds, _known(target))

    def compute(self) -> Tensor:
        tp, fp, tn, fn = (part.float() for part in self._final_state())
        return ((tp + tn) / (tp + fp + tn + fn)).nanmean()  # 0 / 0 is NaN


class _MultilabelAP(MultilabelAveragePrecision):
    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds, _known(target))

    def compute(self) -> Tensor:  # type: ignore[override]
        return _mean_over_labels(self, binary_average_precision)


class _MultilabelAUROC(MultilabelAUROC):
    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds, _known(target))

    def compute(self) -> Tensor:  # type: ignore[override]
        return _mean_over_labels(self, binary_auroc)


def _mean_over_labels(metric: Any, score: Callable[..., Tensor]) -> Tensor:
    """The mean of a score of each label's known samples, over labels that some have and some lack.

    Torchmetrics' own score fails at a label of which nothing is known.
    """
    preds, target = dim_zero_cat(metric.preds), dim_zero_cat(metric.target)
    found = []
    for p, t in zip(preds.T, target.T, strict=True):
        if (t == 1).any() and (t == 0).any():
            found.append(score(p[t >= 0], t[t >= 0], validate_args=False))
    return torch.stack(found).mean() if found else torch.full((), torch.nan, device=preds.device)


class _Errors(Metric):
    """Sums over the known values of each target: targets in columns, NaN where one is not known."""

    SUMS = ("count", "absolute", "squared", "total", "squares")
    count: Tensor
    absolute: Tensor
    squared: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self, targets: int, **options: Any):
        super().__init__(**options)
        for name in self.SUMS:
            self.add_state(name, torch.zeros(targets), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        known = target.isfinite()
        y = torch.where(known, target, 0).to(preds)
        gap = torch.where(known, preds - y, 0)
        values = (known, gap.abs(), gap.square(), y, y.square())
        for name, value in zip(self.SUMS, values, strict=True):
            setattr(self, name, getattr(self, name) + value.sum(0))


class _MAE(_Errors):
    def compute(self) -> Tensor:
        return (self.absolute / self.count).nanmean()


class _RMSE(_Errors):
    def compute(self) -> Tensor:
        return (self.squared / self.count).sqrt().nanmean()


class _R2(_Errors):
    """R², NaN where there are fewer than two values (a last batch, a smoke test) or all are equal."""

    def compute(self) -> Tensor:
        spread = self.squares - self.total.square() / self.count
        return _mean_of(1 - self.squared / spread, (self.count >= 2) & (spread > 0))
