"""The example runs: LanceDB finds what comparing all finds, with and without an index, and filters by columns."""

import importlib.util

import numpy as np
import pytest
from toy import ROOT

from tasks.search.index import Index
from tasks.search.table import VectorTable, write_table


@pytest.fixture
def engine():
    pytest.importorskip("lancedb", reason="no lancedb: pip install lancedb")
    pytest.importorskip("pyarrow", reason="no pyarrow: pip install pyarrow")
    spec = importlib.util.spec_from_file_location("vector_engine", ROOT / "examples" / "vector_engine.py")
    engine = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(engine)
    return engine


@pytest.mark.slow
@pytest.mark.parametrize(("count", "recall"), [(600, 1.0), (6000, 0.95)])
def test_it_finds_what_comparing_all_finds(engine, tmp_path, count, recall):
    random = np.random.default_rng(0)
    centres = random.normal(size=(60, 32))
    vectors = (centres[random.integers(60, size=count)] + 0.3 * random.normal(size=(count, 32))).astype("f4")
    parts = [("train", "test")[number % 2] for number in range(count)]
    table = VectorTable([f"s{number}" for number in range(count)], vectors, {"part": parts})
    write_table(tmp_path / "embeddings.parquet", table)
    assert engine.main(tmp_path / "embeddings.parquet", tmp_path / "lance", queries=50) >= recall
    index = Index.of(table)
    found = engine.nearest(engine.load(index, tmp_path / "lance"), index.vectors[0], where="part = 'test'")
    assert len(found) == 10
    assert all(int(name[1:]) % 2 for name in found)
