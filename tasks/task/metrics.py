"""Which torchmetrics belong to which kind of task, and how sure a test result is."""

import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection, R2Score
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    BinaryF1Score,
    MulticlassAccuracy,
    MulticlassF1Score,
    MultilabelAccuracy,
    MultilabelAveragePrecision,
)


def build_metrics(kind: str, classes: int, prefix: str = "", *, sync_on_compute: bool = True) -> MetricCollection:
    """Collect the metrics of a kind of task.

    Args:
        kind: ``"binary"``, ``"multiclass"``, ``"multilabel"`` or ``"regression"``.
        classes: Number of classes, or of regression targets.
        prefix: Put before the names: ``"val/"`` gives ``val/acc``.
        sync_on_compute: Whether the processes of a distributed run join what they measured.

    Returns:
        Binary: acc, auroc, f1. Multiclass: acc (over samples), f1 (mean over classes). Multilabel: acc, ap (mean over
        classes). Regression: mae and rmse in the target's units, r2; each the mean over targets.

    Example:
        >>> metrics = build_metrics("regression", 1)
        >>> sorted(metrics(torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [2.0]])))
        ['mae', 'r2', 'rmse']
    """
    sync = {"sync_on_compute": sync_on_compute}
    if kind == "binary":
        metrics = {"acc": BinaryAccuracy(**sync), "auroc": BinaryAUROC(**sync), "f1": BinaryF1Score(**sync)}
    elif kind == "multiclass":
        accuracy = MulticlassAccuracy(classes, average="micro", **sync)
        metrics = {"acc": accuracy, "f1": MulticlassF1Score(classes, **sync)}
    elif kind == "multilabel":
        metrics = {"acc": MultilabelAccuracy(classes, **sync), "ap": MultilabelAveragePrecision(classes, **sync)}
    elif kind == "regression":
        root = MeanSquaredError(squared=False, **sync)
        metrics = {"mae": MeanAbsoluteError(**sync), "rmse": root, "r2": _R2(**sync)}
    else:
        raise ValueError(
            f"expected kind binary, multiclass, multilabel or regression, got '{kind}'; correct the data's spec"
        )
    return MetricCollection(metrics, prefix=prefix, compute_groups=False)


class _R2(R2Score):
    """R² that is NaN, not an error, when there are fewer than two samples (a last batch, a smoke test)."""

    def compute(self) -> Tensor:
        return super().compute() if self.total >= 2 else torch.tensor(float("nan"), device=self.total.device)


def bootstrap(
    kind: str, classes: int, predictions: Tensor, target: Tensor, *, samples: int = 500, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Value and 95 % percentile interval of each metric, by resampling the test set (Efron 1979).

    Args:
        kind: The kind of task, see `build_metrics`.
        classes: Number of classes or targets.
        predictions: (B, K) probabilities or values.
        target: (B,) or (B, K).
        samples: Number of resamples.
        seed: Seed of the resampling.

    Returns:
        For each metric ``value``, ``low`` and ``high``. A resample in which a metric is undefined is left out.
    """
    predictions, target = predictions.cpu(), target.cpu()
    predictions = predictions[:, 1] if kind == "binary" else predictions
    metrics = build_metrics(kind, classes, sync_on_compute=False)  # one rank measures the predictions of all
    generator = torch.Generator().manual_seed(seed)

    def measure(rows: Tensor) -> dict[str, float]:
        metrics.reset()
        metrics.update(predictions[rows], target[rows])
        return {name: float(value) for name, value in metrics.compute().items()}

    values = measure(torch.arange(len(target)))
    draws = [measure(torch.randint(len(target), (len(target),), generator=generator)) for _ in range(samples)]
    result = {}
    for name, value in values.items():
        drawn = torch.tensor([draw[name] for draw in draws], dtype=torch.float64)
        low, high = (
            torch.nanquantile(drawn, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
            if samples
            else (value, value)
        )
        result[name] = {"value": value, "low": low, "high": high}
    return result
