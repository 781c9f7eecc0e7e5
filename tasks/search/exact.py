"""The nearest vectors by all products, a block at a time."""

import numpy as np
import torch

BLOCK = 2**16
"""Vectors that are held against the queries at a time."""
QUERIES = 1024
"""Queries at a time: with the above 256 MB of similarities."""


def nearest(queries: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` vectors with the largest inner products with each query, the largest first.

    Memory is that of a block of similarities, however many vectors there are; they may be a file that is mapped.

    Args:
        queries: (Q, D).
        vectors: (N, D).
        k: How many, at most N.

    Returns:
        Similarities and rows, (Q, k) each. Of equal ones any may come first.

    Example:
        >>> nearest(np.eye(3, dtype="f4")[:1], np.eye(3, dtype="f4"), 2)[1][0, 0]
        np.int64(0)
    """
    k = min(k, len(vectors))
    scores = np.empty((len(queries), k), np.float32)
    rows = np.empty((len(queries), k), np.int64)
    for begin in range(0, len(queries), QUERIES):
        asked = torch.as_tensor(np.ascontiguousarray(queries[begin : begin + QUERIES], np.float32))
        best = torch.empty(len(asked), 0)
        where = torch.empty(len(asked), 0, dtype=torch.long)
        for first in range(0, len(vectors), BLOCK):
            block = torch.as_tensor(np.array(vectors[first : first + BLOCK], np.float32))
            found, at = (asked @ block.T).topk(min(k, len(block)), 1)
            best, where = torch.cat([best, found], 1), torch.cat([where, at + first], 1)
            best, order = best.topk(min(k, best.shape[1]), 1)
            where = where.gather(1, order)
        scores[begin : begin + QUERIES], rows[begin : begin + QUERIES] = best.numpy(), where.numpy()
    return scores, rows
