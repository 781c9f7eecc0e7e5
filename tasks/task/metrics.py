"""Which torchmetrics belong to which kind of task; what is undefined is NaN, where torchmetrics says zero."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric, MetricCollection, R2Score
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
    MultilabelAccuracy,
    MultilabelAUROC,
    MultilabelAveragePrecision,
)
from torchmetrics.utilities.data import dim_zero_cat

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
        the mean over targets. What is undefined, because a class is absent, is NaN.

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
        metrics = {"acc": MultilabelAccuracy(classes, **quick), "ap": _MultilabelAP(classes, average="none", **quick)}
        if every:
            metrics["auroc"] = _MultilabelAUROC(classes, average="none", **quick)
    elif kind == "regression":
        root = MeanSquaredError(squared=False, **sync)
        metrics = {"mae": MeanAbsoluteError(**sync), "rmse": root, "r2": _R2(**sync)}
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
    """Which classes there are samples of and samples without: (classes,) bool; of (N,) numbers or (N, classes) hits."""
    hits = one_hot(target.long(), classes) if target.ndim == 1 else target
    found = hits.sum(0)
    return (found > 0) & (found < len(hits))


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


class _MultilabelAP(MultilabelAveragePrecision):
    def compute(self) -> Tensor:  # type: ignore[override]
        values = super().compute()
        return _mean_of(values, dim_zero_cat(self.target).sum(0) > 0)


class _MultilabelAUROC(MultilabelAUROC):
    def compute(self) -> Tensor:  # type: ignore[override]
        return _mean_of(super().compute(), present(dim_zero_cat(self.target), self.num_labels))


class _R2(R2Score):
    """R² that is NaN, not an error, when there are fewer than two samples (a last batch, a smoke test)."""

    def compute(self) -> Tensor:
        return super().compute() if self.total >= 2 else torch.tensor(float("nan"), device=self.total.device)
