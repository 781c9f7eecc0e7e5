"""Scikit-learn's estimators on a few numbers of each sample, how strong each is chosen by folds within the samples."""

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from scipy.sparse import issparse

INNER_FOLDS = 5
PENALTIES = 10.0 ** np.arange(-3, 2)  # C of the logistic regression
RIDGES = 10.0 ** np.arange(-2, 7)
NEIGHBOURS = (1, 3, 5, 10, 20)
TREES = 300
Estimator = Literal["linear", "knn", "forest"]


def predict(
    kind: str,
    classes: int,
    x: Any,
    y: np.ndarray,
    asked: Any,
    groups: Sequence[str | None],
    *,
    estimator: Estimator = "linear",
    scale: bool = True,
) -> np.ndarray:
    """Learn from some samples and predict others.

    Args:
        kind: Kind of the targets (`tasks.task.metrics.build_metrics`); of several each is learned by itself.
        classes: Number of classes.
        x: What is learned from, samples by features, dense or sparse.
        y: Its targets, (N,) or (N, T); a NaN is not learned from.
        asked: What is asked for, samples by features.
        groups: Whose each learned sample is: nobody is in two of the inner folds.
        estimator: "linear", logistic regression or ridge, its penalty chosen by inner folds; "knn", the nearest
            neighbours by cosine, weighed by 1 / distance, their number chosen likewise; or "forest", of `TREES` trees.
        scale: Whether to standardise dense features by the samples that are learned from.

    Returns:
        Probabilities (B, K) or values (B, T).

    Example:
        >>> x = np.array([[0.0, 1], [0, 2], [1, 0], [2, 0]])
        >>> predict("binary", 2, x, np.array([0, 0, 1, 1]), x, [None] * 4, estimator="knn").argmax(1).tolist()
        [0, 0, 1, 1]
    """
    if estimator == "linear" and not scale:
        x, asked = rotated(x, asked)
    options: dict[str, Any] = {"estimator": estimator, "scale": scale}
    if kind in ("binary", "multiclass"):
        found, values = _fit(x, y, asked, groups, **options)
        probabilities = np.zeros((len(found), classes))
        probabilities[:, values] = found
        return probabilities
    columns = []
    for column in y.T:
        there = np.flatnonzero(~np.isnan(column))
        if not len(there):  # of few labels none may be of this target
            columns.append(np.full(asked.shape[0], 0.0 if kind == "regression" else 0.5))
            continue
        own = [groups[number] for number in there.tolist()]
        found, values = _fit(x[there], column[there], asked, own, number=kind == "regression", **options)
        columns.append(found[:, 0] if kind == "regression" else found[:, values == 1].sum(1))
    return np.stack(columns, 1)


def rotated(x: Any, asked: Any) -> tuple[Any, Any]:
    """Dense features in no more columns than there are samples to learn from, which a linear model cannot tell apart.

    With a penalty on its squared norm, its weights lie in the span of the samples (the representer theorem).

    Example:
        >>> rotated(np.array([[3.0, 4.0]]), np.array([[3.0, 4.0], [4.0, -3.0]]))[1].round(9).__abs__().tolist()
        [[5.0], [0.0]]
    """
    if issparse(x) or x.shape[1] <= x.shape[0]:
        return x, asked
    axes = np.linalg.svd(x, full_matrices=False)[2].T
    return x @ axes, asked @ axes


def _fit(
    x: Any,
    y: np.ndarray,
    asked: Any,
    groups: Sequence[str | None],
    *,
    number: bool = False,
    estimator: Estimator = "linear",
    scale: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the classes in ``y`` and which these are; a column of values where ``y`` is a number."""
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    different = len(set(y.tolist()))
    if x.shape[1] == 0 or different == 1:
        model: Any = DummyRegressor() if number else DummyClassifier()
    elif estimator == "forest":
        model = (RandomForestRegressor if number else RandomForestClassifier)(TREES, random_state=0)
    else:
        inner = _inner_folds(y, groups, number)
        fewest = min((len(rest) for rest, _ in inner), default=len(y))
        fitted, option, values = _neighbours(number, fewest) if estimator == "knn" else _linear(number, different)
        first = StandardScaler() if scale and not issparse(x) else FunctionTransformer()
        model = make_pipeline(first, fitted)
        if inner:
            scoring = "neg_mean_squared_error" if number else "accuracy"
            model = GridSearchCV(
                model, {f"{type(fitted).__name__.lower()}__{option}": values}, cv=inner, scoring=scoring
            )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y)
    return (model.predict(asked)[:, None], y[:0]) if number else (model.predict_proba(asked), model.classes_)


def _linear(number: bool, classes: int) -> tuple[Any, str, Sequence[float]]:
    """A linear model, what is chosen of it, and from what."""
    from sklearn.linear_model import LogisticRegression, Ridge

    if number:
        return Ridge(), "alpha", RIDGES.tolist()
    # Of two classes in thousands of sparse columns liblinear is five times as fast; it knows no more than two.
    solver = "liblinear" if classes == 2 else "lbfgs"
    return LogisticRegression(solver=solver, max_iter=300), "C", PENALTIES.tolist()


def _neighbours(number: bool, samples: int) -> tuple[Any, str, Sequence[float]]:
    """Nearest neighbours; one, unless there are enough samples to choose from."""
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    kind = KNeighborsRegressor if number else KNeighborsClassifier
    return kind(1, weights="distance", metric="cosine"), "n_neighbors", [k for k in NEIGHBOURS if k <= samples]


def _inner_folds(y: np.ndarray, groups: Sequence[str | None], number: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Folds in which a penalty is chosen, no group in two of them; none where they would be too small."""
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

    grouped = len(set(groups)) if all(group is not None for group in groups) else 0
    folds = min(
        INNER_FOLDS, len(y) if number else min(Counter(y.tolist()).values()), grouped if grouped > 1 else len(y)
    )
    if folds < 2:
        return []
    kinds = (GroupKFold, StratifiedGroupKFold) if grouped > 1 else (KFold, StratifiedKFold)
    splitter = kinds[0 if number else 1](folds, shuffle=True, random_state=0)
    found = list(splitter.split(np.zeros(len(y)), y, list(groups) if grouped > 1 else None))
    everywhere = number or all(len(set(y[rest].tolist())) == len(set(y.tolist())) for rest, _ in found)
    return found if everywhere else []
