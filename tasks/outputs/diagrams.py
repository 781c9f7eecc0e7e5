"""A test in pictures: which errors it makes at which threshold, and how far its probabilities can be trusted."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from tasks.outputs.drawing import canvas, save

GRID = np.linspace(0, 1, 101)
RESAMPLES = 200
CLASSES = 12  # more curves or cells than these nobody can tell apart


def draw_test(
    path: Path,
    kind: str,
    classes: Sequence[str],
    predictions: np.ndarray,
    target: np.ndarray,
    groups: Sequence[str] | None = None,
) -> Path | None:
    """Draw a test into one picture.

    Binary and multiclass: ROC and precision-recall curves (of two classes with their pointwise 95 % intervals, by
    resampling groups where there are groups), calibration, and the confusion matrix. Multilabel: a curve a label.
    Regression: prediction against target, and the residuals.

    Args:
        path: The picture.
        kind: The kind of task.
        classes: Names of classes, labels or targets.
        predictions: (N, K) probabilities or values.
        target: (N,) classes, (N, K) labels, or (N, T) values; NaN where they are not known.
        groups: Whose each sample is.

    Returns:
        The path; None where there are fewer than two samples.
    """
    if len(target) < 2:
        return None
    if kind == "regression":
        figure = canvas(8.4, 3.8 * predictions.shape[1])
        for axes, name, p, t in zip(
            figure.subplots(predictions.shape[1], 2, squeeze=False), classes, predictions.T, target.T, strict=True
        ):
            known = ~np.isnan(t)
            if known.any():
                _scatter(axes[0], name, p[known], t[known])
                _residuals(axes[1], name, p[known], t[known])
        return save(figure, path)
    hits = target if target.ndim == 2 else np.eye(len(classes), dtype=int)[target]
    single = target.ndim == 1
    figure = canvas(16.4 if single else 12.4, 4)
    axes = figure.subplots(1, 4 if single else 3)
    shown = [1] if kind == "binary" else range(min(len(classes), CLASSES))
    rows = _resampled(len(target), groups) if kind == "binary" else []
    for label in shown:
        known = ~np.isnan(hits[:, label].astype(float))
        own = predictions[known, label], hits[known, label].astype(bool)
        name = classes[label]
        _curve(axes[0], roc, *own, name, rows)
        _curve(axes[1], precision_recall, *own, name, rows)
    axes[0].plot([0, 1], [0, 1], color="0.7", lw=0.8, ls=":")
    axes[0].set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC")
    axes[1].set(xlabel="recall", ylabel="precision", title="precision and recall")
    if kind == "binary":
        sure, right = predictions[:, 1], hits[:, 1].astype(bool)
    elif single:
        sure, right = predictions.max(1), predictions.argmax(1) == target
    else:
        known = ~np.isnan(hits.astype(float))
        sure, right = predictions[known], hits[known].astype(bool)
    _calibration(axes[2], sure, right, classes[1] if kind == "binary" else "predicted class" if single else "label")
    if single:
        _confusion(axes[3], classes, predictions.argmax(1), target)
    for one in axes[:2]:
        one.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        one.grid(alpha=0.3)
        if len(one.lines) > 1:
            one.legend(fontsize=8, loc="lower center" if one is axes[1] else "lower right")
    return save(figure, path)


def roc(p: np.ndarray, hits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1 - specificity and sensitivity at every threshold, from the highest on."""
    order = np.argsort(-p, kind="stable")
    last = np.r_[np.diff(p[order]) != 0, True]  # of equal probabilities, all or none count as positive
    positive, negative = np.cumsum(hits[order])[last], np.cumsum(~hits[order])[last]
    return np.r_[0, negative / max(negative[-1], 1)], np.r_[0, positive / max(positive[-1], 1)]


def precision_recall(p: np.ndarray, hits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision at every threshold, from the highest on."""
    order = np.argsort(-p, kind="stable")
    last = np.r_[np.diff(p[order]) != 0, True]
    positive, chosen = np.cumsum(hits[order])[last], np.arange(1, len(p) + 1)[last]
    precision = positive / chosen
    return np.r_[0, positive / max(positive[-1], 1)], np.r_[precision[0], precision]


Curve = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def _curve(axes: Axes, curve: Curve, p: np.ndarray, hits: np.ndarray, name: str, rows: Sequence[np.ndarray]) -> None:
    if not 0 < hits.sum() < len(hits):
        return
    axes.plot(*curve(p, hits), label=name, lw=1.4)
    drawn = [np.interp(GRID, *curve(p[some], hits[some])) for some in rows if 0 < hits[some].sum() < len(some)]
    if drawn:
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        axes.fill_between(GRID, low, high, alpha=0.2, lw=0, label="95 % interval")


def _resampled(count: int, groups: Sequence[str] | None) -> list[np.ndarray]:
    """Rows of each resample: of all samples, or of all of drawn groups."""
    generator = np.random.default_rng(0)
    owners = np.arange(count) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    members = [np.flatnonzero(owners == owner) for owner in range(owners.max() + 1)] if groups is not None else None
    draws = (generator.integers(0, owners.max() + 1, owners.max() + 1) for _ in range(RESAMPLES))
    return [draw if members is None else np.concatenate([members[i] for i in draw]) for draw in draws]


def _calibration(axes: Axes, sure: np.ndarray, right: np.ndarray, name: str) -> None:
    """How often what is predicted with a probability comes true, in ten bins, the size of a point by its samples."""
    bins = np.minimum((sure * 10).astype(int), 9)
    there = [number for number in range(10) if (bins == number).any()]
    x, y = (np.array([values[bins == number].mean() for number in there]) for values in (sure, right))
    counts = np.array([(bins == number).sum() for number in there])
    axes.plot([0, 1], [0, 1], color="0.7", lw=0.8, ls=":")
    axes.plot(x, y, lw=1)
    axes.scatter(x, y, s=10 + 120 * counts / counts.max(), zorder=3)
    axes.set(xlabel=f"predicted probability of {name}", ylabel="share of samples", title="calibration")
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    axes.grid(alpha=0.3)


def _confusion(axes: Axes, classes: Sequence[str], predicted: np.ndarray, target: np.ndarray) -> None:
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (target, predicted), 1)
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="prediction", ylabel="truth", title="confusion, rows are the truth")
    few = len(classes) <= CLASSES
    if few:
        names = [name if len(name) <= 14 else name[:13] + "…" for name in classes]
        axes.set_xticks(range(len(classes)), names, rotation=45 if len(classes) > 3 else 0, fontsize=8)
        axes.set_yticks(range(len(classes)), names, fontsize=8)
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.6 else "black"
            axes.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)


def _scatter(axes: Axes, name: str, p: np.ndarray, t: np.ndarray) -> None:
    ends = [min(p.min(), t.min()), max(p.max(), t.max())]
    axes.plot(ends, ends, color="0.7", lw=0.8, ls=":")
    axes.scatter(t, p, s=14, alpha=0.7)
    axes.set(xlabel=f"{name}, target", ylabel=f"{name}, prediction", title="prediction against target")
    axes.grid(alpha=0.3)


def _residuals(axes: Axes, name: str, p: np.ndarray, t: np.ndarray) -> None:
    axes.axhline(0, color="0.7", lw=0.8, ls=":")
    axes.scatter(p, p - t, s=14, alpha=0.7)
    axes.set(xlabel=f"{name}, prediction", ylabel="prediction - target", title="residuals")
    axes.grid(alpha=0.3)
