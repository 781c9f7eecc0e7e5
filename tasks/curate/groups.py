"""Samples that are copies of each other, joined into groups of which one stays."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components


class Pair(NamedTuple):
    """Two rows that are copies, and how near they are; 1 where their content is the same."""

    first: int
    second: int
    similarity: float


def same_content(contents: Sequence[Hashable]) -> list[Pair]:
    """Rows whose content is the same: each with the first of its kind.

    Example:
        >>> same_content([5, 7, 5, 5])
        [Pair(first=0, second=2, similarity=1.0), Pair(first=0, second=3, similarity=1.0)]
    """
    first: dict[Hashable, int] = {}
    found = []
    for row, content in enumerate(contents):
        if content in first:
            found.append(Pair(first[content], row, 1.0))
        else:
            first[content] = row
    return found


def near_pairs(rows: np.ndarray, scores: np.ndarray, threshold: float) -> list[Pair]:
    """Pairs at least as similar as ``threshold``, out of each row's neighbours, (N, k) each as `Index.search` gives.

    A pair counts whichever of the two has it among its neighbours.

    Example:
        >>> near_pairs(np.array([[0, 1], [1, 0], [2, 1]]), np.array([[1, 0.9], [1, 0.9], [1, 0.2]]), 0.8)
        [Pair(first=0, second=1, similarity=0.9)]
    """
    own = np.repeat(np.arange(len(rows)), rows.shape[1])
    other, score = rows.reshape(-1), scores.reshape(-1)
    kept = (score >= threshold) & (other != own) & (other >= 0)
    low, high = np.minimum(own, other)[kept], np.maximum(own, other)[kept]
    best: dict[tuple[int, int], float] = {}
    for a, b, similarity in zip(low.tolist(), high.tolist(), score[kept].tolist(), strict=True):
        best[a, b] = max(similarity, best.get((a, b), -np.inf))
    return [Pair(a, b, similarity) for (a, b), similarity in sorted(best.items())]


def groups_of(pairs: Sequence[Pair], count: int) -> list[list[int]]:
    """Rows that are connected by pairs, in groups of two and more, each in order.

    Example:
        >>> groups_of([Pair(0, 3, 1.0), Pair(3, 4, 0.9)], 6)
        [[0, 3, 4]]
    """
    if not pairs:
        return []
    ends = np.array([(pair.first, pair.second) for pair in pairs]).T
    graph = coo_matrix((np.ones(ends.shape[1]), (ends[0], ends[1])), shape=(count, count))
    labels = connected_components(graph, directed=False)[1]
    members = defaultdict(list)
    for row in np.unique(ends).tolist():
        members[labels[row]].append(row)
    return sorted(members.values())


def representative(group: Sequence[int], parts: Sequence[str], labelled: Sequence[bool]) -> int:
    """The row of a group that stays: of the test before the validation before the training part, labelled, first.

    So no test set changes, and no label is lost.

    Example:
        >>> representative([0, 1, 2], ["train", "val", "train"], [True, False, True])
        1
    """
    order = {"test": 0, "val": 1}
    return min(group, key=lambda row: (order.get(parts[row], 2), not labelled[row], row))
