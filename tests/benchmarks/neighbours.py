"""Neighbours by all products and by faiss: how many of the true ten are found, how fast, in what memory.

    python tests/benchmarks/neighbours.py                                 10^4, 10^5 and 10^6 vectors of 128 numbers
    python tests/benchmarks/neighbours.py --sizes 10000000 --kinds IVF-SQ8

The vectors are points on 16-dimensional sheets around 1000 centres, with a little noise in all directions, of length
one, as embeddings have few directions of their own. Of plain noise all neighbours are equally far, and no index finds
them. Each case runs in a process of its own, whose peak of memory is that beyond the vectors.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tasks.search import approximate, exact

WIDTH, OWN, CENTRES, QUERIES, K = 128, 16, 1000, 1000, 10


def points(count: int, seed: int) -> np.ndarray:
    """Vectors (count, 128) of length one."""
    places = np.random.default_rng(0)
    centres = places.normal(size=(CENTRES, WIDTH)).astype("f4")
    sheets = places.normal(size=(CENTRES, OWN, WIDTH)).astype("f4") / OWN**0.5
    random, x = np.random.default_rng(seed), np.empty((count, WIDTH), "f4")
    for first in range(0, count, 100_000):
        number = random.integers(CENTRES, size=min(100_000, count - first))
        block = x[first : first + len(number)]
        block[:] = centres[number] + 0.1 * random.normal(size=block.shape)
        for centre in range(CENTRES):
            mine = np.flatnonzero(number == centre)
            block[mine] += random.normal(size=(len(mine), OWN)).astype("f4") @ sheets[centre]
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return x


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def case(count: int, kind: str) -> dict[str, object]:
    """One row: build, ask, compare."""
    x, asked = points(count, 1), points(QUERIES, 2)
    if kind != "exact":
        import faiss

        faiss.omp_set_num_threads(1)
    before, start = megabytes(), time.perf_counter()
    index = None if kind == "exact" else approximate.build(x, kind)
    built, start = time.perf_counter() - start, time.perf_counter()
    rows = exact.nearest(asked, x, K)[1] if index is None else index.search(asked, K)[1]
    spent, grown = time.perf_counter() - start, megabytes() - before
    truth = rows if index is None else exact.nearest(asked, x, K)[1]
    recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(rows.tolist(), truth.tolist(), strict=True)])
    values = (count, kind, built, QUERIES / spent, recall, grown)
    return dict(zip(("vectors", "kind", "build s", "queries/s", "recall@10", "MB besides"), values, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--kinds", nargs="+", default=["exact", "HNSW", "IVF", "IVF-SQ8"])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(case(int(given.one[0]), given.one[1])))
        return
    print("| vectors | index | build, s | queries/s | recall@10 | MB besides the vectors |\n|---|---|---|---|---|---|")
    for count in given.sizes:
        for kind in given.kinds:
            command = [sys.executable, __file__, "--one", str(count), kind]
            row = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            built, speed, recall, grown = list(row.values())[2:]
            print(f"| {count:,} | {kind} | {built:.1f} | {speed:,.0f} | {recall:.3f} | {grown:.0f} |", flush=True)


if __name__ == "__main__":
    main()
