"""How near samples are that have nothing to do with each other: what a threshold is read from."""

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from tasks.search.index import Index

BLOCK = 4096
"""Rows whose neighbours are looked for at a time."""


def neighbours(index: Index, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` nearest of rows of the index, themselves left out: rows (n, k) and similarities; -1 is none.

    Args:
        index: Where they are looked for.
        rows: Whose.
        k: How many.
    """
    found = np.full((len(rows), k), -1, np.int64)
    similar = np.full((len(rows), k), -np.inf, np.float32)
    blocks = range(0, len(rows), BLOCK)
    for first in tqdm(blocks, "neighbours", unit="block", dynamic_ncols=True, disable=len(blocks) < 3):
        own = rows[first : first + BLOCK]
        near, scores = index.neighbours(np.asarray(index.vectors[own]), k + 1)
        for place, row in enumerate(own):
            other = near[place] != row
            kept, how = near[place][other][:k], scores[place][other][:k]
            found[first + place, : len(kept)], similar[first + place, : len(kept)] = kept, how
    return found, similar


def clean_threshold(similar: np.ndarray, share: float) -> float:
    """The similarity that a ``share`` of clean nearest neighbours stays below.

    Args:
        similar: Similarity of each clean sample to the nearest of those that it has nothing to do with.
        share: 0.99 for the 99th percentile.

    Raises:
        ValueError: If there is none.
    """
    finite = similar[np.isfinite(similar)]
    if not len(finite):
        raise ValueError("expected clean samples to read a threshold from, got none; give a number")
    return float(np.quantile(finite, share))


def nearest_elsewhere(index: Index, rows: np.ndarray, groups: Sequence[object], k: int = 20) -> np.ndarray:
    """Similarity of each row to its nearest of another group, (n,), among ``k`` neighbours; -inf for none."""
    near, similar = neighbours(index, rows, k)
    owner = np.array([hash(group) for group in groups])
    other = (near >= 0) & (owner[near] != owner[rows][:, None])
    best: np.ndarray = np.where(other, similar, -np.inf).max(1)
    return best
