"""Pooled vectors in a vector engine: the table that `embed` writes, whitened as `search` does it, in LanceDB on disk.

LanceDB needs no server, keeps its data in a folder (or in S3) in a format of Arrow, like Parquet, and filters by the
table's other columns; pgvector, Qdrant and Milvus take the same two columns. Run it from the repository:

    pip install lancedb pyarrow
    python examples/vector_engine.py runs/graph/motifs/version_0/embeddings.parquet

It prints how often the engine's ten nearest are those of comparing all, and how long a query takes.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, it is not in the repository's package

from tasks.search.index import Index
from tasks.search.table import read_table


def load(index: Index, folder: Path):
    """Write an index' vectors and columns into a new LanceDB table, and let it build cells of a graph each."""
    import lancedb
    import pyarrow

    vectors = np.ascontiguousarray(index.vectors, np.float32)
    column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.reshape(-1)), vectors.shape[1])
    rows = pyarrow.table({"id": index.ids, **index.columns, "vector": column})
    table = lancedb.connect(folder).create_table("vectors", rows, mode="overwrite")
    if len(rows) >= 5000:  # fewer are compared as fast without
        table.create_index(metric="cosine", index_type="IVF_HNSW_SQ", num_partitions=max(1, len(rows) // 50_000))
    return table


def nearest(table, vector: np.ndarray, k: int = 10, where: str | None = None) -> list[str]:
    """Ids of the ``k`` nearest by cosine; ``where`` is SQL over the other columns, such as ``part = 'train'``."""
    query = table.search(vector).distance_type("cosine").limit(k)
    if where is not None:
        query = query.where(where, prefilter=True)
    return query.to_arrow().column("id").to_pylist()


def main(path: Path, folder: Path, queries: int = 100) -> float:
    """Load a table and ask; returns the share of our ten nearest that are among the engine's."""
    index = Index.of(read_table(path))
    table = load(index, folder)
    rows = np.random.default_rng(0).choice(len(index.ids), min(queries, len(index.ids)), replace=False)
    start, found = time.perf_counter(), [nearest(table, index.vectors[row]) for row in rows]
    each = (time.perf_counter() - start) / len(rows)
    ours, _ = index.neighbours(np.asarray(index.vectors[rows]), 10)
    shares = [
        len({index.ids[one] for one in own} & set(theirs)) / len(own) for own, theirs in zip(ours, found, strict=True)
    ]
    print(f"{len(index.ids)} vectors in {folder}; recall@10 {np.mean(shares):.3f}; {1000 * each:.1f} ms a query")
    return float(np.mean(shares))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("lance"))
    given = parser.parse_args()
    main(given.table, given.folder)
