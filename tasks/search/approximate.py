"""Approximate neighbours by faiss, for what is too many to compare with all (Douze et al. 2024, arXiv 2401.08281)."""

from pathlib import Path
from typing import Any

import numpy as np

from tasks.extras import require

EXACT = 100_000
"""Up to so many vectors all are compared: faster than any index when its building is counted."""
GRAPH = 1_000_000
"""Up to so many a graph of neighbours (HNSW, Malkov and Yashunin 2016), 256 bytes a vector beside the vectors."""
LINKS, BUILD, LOOK = 32, 80, 128
"""Neighbours of a vector in the graph, candidates when it is built, and when it is searched."""
LISTS, PROBED = 4096, 64
"""Cells of an inverted file (IVF), and how many of them a query looks into."""
TRAINED = 200_000
"""Vectors that cells and the range of numbers are learned from."""


def kind_for(count: int) -> str:
    """The index that suits a number of vectors: exact, HNSW, or cells of vectors of a byte a number.

    Example:
        >>> [kind_for(n) for n in (100_000, 1_000_000, 10_000_000)]
        ['exact', 'HNSW', 'IVF-SQ8']
    """
    return "exact" if count <= EXACT else "HNSW" if count <= GRAPH else "IVF-SQ8"


def build(vectors: np.ndarray, kind: str) -> Any:
    """A faiss index of vectors (N, D) by inner product: ``HNSW``, ``IVF`` or ``IVF-SQ8``.

    Raises:
        ImportError: If faiss is missing, with the command that installs it.
    """
    (faiss,) = require("faiss", extra="search", what=f"an index of {len(vectors)} vectors")
    width = vectors.shape[1]
    if kind == "HNSW":
        index = faiss.IndexHNSWFlat(width, LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = BUILD, LOOK
    else:
        lists = min(LISTS, max(1, len(vectors) // 39))  # below 39 vectors a cell faiss warns
        text = f"IVF{lists},{'Flat' if kind == 'IVF' else 'SQ8'}"  # SQ8: a byte a number, a quarter of float32
        index = faiss.index_factory(width, text, faiss.METRIC_INNER_PRODUCT)
        step = max(1, len(vectors) // TRAINED)
        index.train(np.ascontiguousarray(vectors[::step]))
        index.nprobe = PROBED
    add(index, vectors)
    return index


def add(index: Any, vectors: np.ndarray) -> None:
    """Add vectors, a block at a time."""
    for first in range(0, len(vectors), 100_000):
        index.add(np.ascontiguousarray(vectors[first : first + 100_000], np.float32))


def write(index: Any, path: Path) -> None:
    """Write an index that `read` reads."""
    (faiss,) = require("faiss", extra="search", what=str(path))
    faiss.write_index(index, str(path))


def read(path: Path, *, mapped: bool) -> Any:
    """Read an index, or map it: then cells stay on the disk until a query looks into them, and nothing can be added."""
    (faiss,) = require("faiss", extra="search", what=str(path))
    return faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY if mapped else 0)
