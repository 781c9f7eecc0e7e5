"""The floor of two towers: ridge regression from counts of a sample to counts of the letters said of it."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from tasks.match.retrieval import recall

PENALTIES = (1.0, 10.0, 100.0, 1e3, 1e4)
MOST = 1000  # n-grams, and words of sparse features


def ridge_floor(
    told: dict[str, tuple[Any, Any, Any]], texts: tuple[Sequence[str], ...], keys: tuple[Sequence[Hashable], ...]
) -> list[dict[str, Any]]:
    """Predict standardised counts of one to three letters, and of words, and find the text that is most like them.

    Args:
        told: By name the features of train, val and test samples (`tasks.task.floors.matrices`).
        texts: Of the same three parts.
        keys: What a pair is (`recall`).

    Returns:
        A row for each kind of features, its penalty chosen on the validation part, and recall on the test part.
    """
    grams = CountVectorizer(analyzer="char", ngram_range=(1, 3), lowercase=False, max_features=MOST, min_df=2)
    counts = [np.log1p(part.toarray()) for part in (grams.fit_transform(texts[0]), *map(grams.transform, texts[1:]))]
    scaler = StandardScaler().fit(counts[0])
    train, val, test = (scaler.transform(part) for part in counts)
    rows = []
    for name, parts in told.items():
        most = np.argsort(-np.asarray(parts[0].sum(0)).ravel(), kind="stable")[:MOST]  # of counts, the frequent ones
        dense = [part[:, most].toarray() if issparse(part) else part for part in parts]
        inputs = StandardScaler().fit(dense[0])
        x = [inputs.transform(part) for part in dense]
        best: tuple[float, Any] = (-1.0, None)
        for penalty in PENALTIES:
            model = Ridge(penalty).fit(x[0], train)
            best = max(
                best, (recall(_cosines(model.predict(x[1]), val), keys[1])["R@1"], model), key=lambda one: one[0]
            )
        rows.append({"floor": f"ridge, {name}", **recall(_cosines(best[1].predict(x[2]), test), keys[2])})
    return rows


def _cosines(a: np.ndarray, b: np.ndarray) -> torch.Tensor:
    one, other = (torch.nn.functional.normalize(torch.from_numpy(x).float(), dim=1) for x in (a, b))
    return one @ other.T
