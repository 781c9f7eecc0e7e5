"""Tables, whitening, exact and approximate neighbours: against loops in float64, and what is saved and added to."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data.problems import BadInput
from tasks.search import exact
from tasks.search.approximate import build, kind_for
from tasks.search.index import Index
from tasks.search.table import VectorTable, read_table, write_table
from tasks.search.whitening import fit_whitening


def vectors(count, width, seed=0):
    """Points near a few directions, as embeddings are."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(20, width)) * np.linspace(3, 0.2, width)
    return (centres[random.integers(20, size=count)] + random.normal(size=(count, width)) * 0.3 + 5).astype("f4")


def table(count=50, width=6, seed=0):
    return VectorTable(
        [f"s{number}" for number in range(count)],
        vectors(count, width, seed),
        {"target": [["a", "b"][number % 2] for number in range(count)]},
        {"shape": [width], "checkpoint": "some.ckpt", "digest": 7},
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.integers(1, 8), st.integers(1, 12), st.sampled_from([3, 17, 2**16]), st.data())
def test_neighbours_are_those_of_all_products(count, width, k, block, data):
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    base, asked = random.normal(size=(count, width)).astype("f4"), random.normal(size=(5, width)).astype("f4")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "BLOCK", block)
        patch.setattr(exact, "QUERIES", 2)
        scores, rows = exact.nearest(asked, base, k)
    products = asked.astype("f8") @ base.T.astype("f8")
    expected = -np.sort(-products, 1)[:, :k]
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(products, rows, 1), expected, rtol=1e-5, atol=1e-6)


def test_whitened_directions_have_one_variance_and_no_mean():
    x = vectors(400, 7)
    whitening = fit_whitening(x, 5)
    z = (x.astype("f8") - whitening.mean) @ whitening.matrix.T
    np.testing.assert_allclose(np.cov(z.T), np.eye(5), atol=1e-6)
    covariance = np.cov(x.T.astype("f8"))
    precision = np.linalg.inv(covariance)
    full = fit_whitening(x, 7)
    np.testing.assert_allclose(full.matrix.T @ full.matrix, precision, rtol=1e-4)  # W'W = Σ⁻¹
    np.testing.assert_allclose(np.linalg.norm(whitening(x), axis=1), 1, atol=1e-6)


def test_directions_without_variance_are_left_out():
    x = vectors(30, 3)
    wide = np.concatenate([x, x @ np.ones((3, 40), "f4"), np.full((30, 5), 2.0, "f4")], 1)
    assert fit_whitening(wide, 64).matrix.shape[0] == 3
    assert fit_whitening(vectors(4, 50), 64).matrix.shape[0] == 3  # four points span three directions
    with pytest.raises(ValueError, match="expected vectors that differ, got 3 that do not; search with --whiten 0"):
        fit_whitening(np.ones((3, 2)))


@pytest.mark.parametrize("ending", ["parquet", "npz"])
def test_a_table_comes_back(tmp_path, ending):
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    written = table()
    write_table(tmp_path / f"t.{ending}", written)
    read = read_table(tmp_path / f"t.{ending}")
    assert read.ids == written.ids
    assert read.columns == written.columns
    assert read.about == written.about
    assert np.array_equal(read.vectors, written.vectors)


def test_a_table_that_cannot_be_searched_is_refused_by_its_rows(tmp_path):
    def refused(message, **changed):
        write_table(tmp_path / "t.npz", table()._replace(**changed))
        with pytest.raises(BadInput, match=message):
            read_table(tmp_path / "t.npz")

    x = table().vectors.copy()
    x[3, 1], x[7, 0] = np.nan, np.inf
    refused(r"t\.npz: expected vectors of finite numbers, got 2 that is not a number: s3, s7; leave", vectors=x)
    x = table().vectors.copy()
    x[4] = 0
    refused("got 1 that is zero and points nowhere: s4", vectors=x)
    refused("expected every id once, got 1 more often: s0", ids=["s0", "s0", *table().ids[2:]])
    refused("got an empty table", ids=[], vectors=np.empty((0, 3), "f4"), columns={})
    with pytest.raises(
        BadInput, match=r"no.npz: expected a table of vectors, got no such file; write one by python -m"
    ):
        read_table(tmp_path / "no.npz")
    (tmp_path / "t.csv").write_text("a,b")
    with pytest.raises(BadInput, match=r"expected a table that ends in .parquet or .npz, got '.csv'"):
        read_table(tmp_path / "t.csv")
    (tmp_path / "bad.npz").write_bytes(b"PK no")
    with pytest.raises(BadInput, match="expected columns id and vector, as embed writes, got another file"):
        read_table(tmp_path / "bad.npz")


@pytest.mark.parametrize("dims", [0, 4])
@pytest.mark.parametrize("kind", ["exact", "HNSW", "IVF", "IVF-SQ8"])
def test_an_index_is_saved_mapped_and_added_to(tmp_path, kind, dims):
    if kind != "exact":
        pytest.importorskip("faiss")
    first, more = table(600), table(660, seed=0)
    more = VectorTable(more.ids[600:], more.vectors[600:], {"target": more.columns["target"][600:]}, more.about)
    index = Index.of(first, dims=dims, kind=kind)
    index.save(tmp_path / "index")
    loaded = Index.load(tmp_path / "index")
    assert isinstance(loaded.vectors, np.memmap)
    asked = first.vectors[:20]
    for found, again in zip(index.search(asked, 5), loaded.search(asked, 5), strict=True):
        np.testing.assert_allclose(found, again, atol=1e-6)
    loaded.append(more)
    assert len(loaded.ids) == 660
    rows, _ = loaded.search(more.vectors, 1)
    hits = (rows[:, 0] == np.arange(600, 660)).mean()
    assert hits == 1 if kind in ("exact", "HNSW") else hits > 0.5  # cells and codes lose some
    loaded.save(tmp_path / "grown")
    again = Index.load(tmp_path / "grown")
    assert again.ids[-1] == more.ids[-1]
    assert again.columns["target"][-1] == "b"
    assert np.array_equal(again.search(more.vectors, 3)[0], loaded.search(more.vectors, 3)[0])


def test_approximate_neighbours_are_mostly_the_exact_ones():
    pytest.importorskip("faiss")
    x = vectors(4000, 24, seed=3)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    _, truth = exact.nearest(x[:200], x, 10)
    for kind, least in (("HNSW", 0.95), ("IVF", 0.95), ("IVF-SQ8", 0.8)):
        _, found = build(x, kind).search(x[:200], 10)
        recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), truth.tolist(), strict=True)])
        assert recall >= least, kind
    assert [kind_for(n) for n in (1, 10**5, 10**5 + 1, 10**6 + 1)] == ["exact", "exact", "HNSW", "IVF-SQ8"]


def test_what_does_not_belong_into_an_index_is_refused(tmp_path):
    index = Index.of(table())
    with pytest.raises(BadInput, match="expected vectors of 6 numbers, as the index has, got 5"):
        index.search(np.ones((1, 5), "f4"))
    with pytest.raises(BadInput, match="expected every id once, got 50 more often: s0"):
        index.append(table())
    other = table(3, seed=1)
    other = VectorTable(["x", "y", "z"], other.vectors, {}, {"checkpoint": "new.ckpt", "digest": 8})
    with pytest.raises(BadInput, match=r"expected vectors of some\.ckpt, as the index has, got those of new\.ckpt"):
        index.append(other)
    with pytest.raises(BadInput, match=r"expected an index that search saved, got a folder without about\.json"):
        Index.load(tmp_path)
