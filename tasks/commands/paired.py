"""Is one pool better than another? Differences of runs that share their fold, and how sure their mean is."""

import math
import statistics
from typing import Any, NamedTuple

from scipy.stats import t


class Difference(NamedTuple):
    """Mean paired difference and its 95 % interval; the interval is NaN where one pair is all there is."""

    mean: float
    low: float
    high: float


def difference(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], metric: str, *, folds: int) -> Difference:
    """How much larger a metric is in ``ours`` than in ``theirs``, over the folds that both have run.

    Runs of one fold with several seeds are averaged first. The folds' differences are not independent, because their
    training parts overlap: their variance counts (1/n + 1/(folds - 1)) times instead of 1/n times, the second part
    being the test part's share to the training part's (Nadeau and Bengio, Machine Learning 2003, eq. 4); Student's t
    with n - 1 degrees of freedom. Where the data has one split, pairs are seeds: then the interval is a plain t
    interval, and says how sure the training is, not how sure the data.

    Args:
        ours: Rows with fold, seed and metrics (`tasks.commands.runs.fit_all`).
        theirs: The rows to compare with.
        metric: The metric.
        folds: Number of folds of the data; 1 is a fixed split.

    Example:
        >>> theirs = [{"fold": i, "seed": 0, "acc": 0.5} for i in range(2)]
        >>> ours = [{"fold": 0, "seed": 0, "acc": 0.75}, {"fold": 1, "seed": 0, "acc": 1.0}]
        >>> difference(ours, theirs, "acc", folds=2).mean
        0.375
    """
    known = {(row["fold"], row["seed"]): row[metric] for row in theirs}
    pairs = {key: row[metric] - known[key] for row in ours if (key := (row["fold"], row["seed"])) in known}
    if folds > 1:
        together: dict[int, list[float]] = {}
        for (fold, _), value in pairs.items():
            together.setdefault(fold, []).append(value)
        values = [statistics.fmean(one) for one in together.values()]
        overlap = 1 / (folds - 1)
    else:
        values, overlap = list(pairs.values()), 0.0
    if not values:
        return Difference(math.nan, math.nan, math.nan)
    mean, n = statistics.fmean(values), len(values)
    if n < 2 or math.isnan(mean):
        return Difference(mean, math.nan, math.nan)
    half = float(t.ppf(0.975, n - 1)) * statistics.stdev(values) * math.sqrt(1 / n + overlap)
    return Difference(mean, mean - half, mean + half)
