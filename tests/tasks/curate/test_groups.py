"""Copies and groups against loops; thresholds against what was planted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.curate.distances import clean_threshold, nearest_elsewhere, neighbours
from tasks.curate.groups import Pair, groups_of, near_pairs, representative, same_content
from tasks.search.index import Index
from tasks.search.table import VectorTable


@given(st.lists(st.integers(0, 4), max_size=12))
def test_equal_contents_are_one_group(digests):
    groups = groups_of(same_content(digests), len(digests))
    expected = [[row for row, one in enumerate(digests) if one == digest] for digest in dict.fromkeys(digests)]
    assert groups == sorted(group for group in expected if len(group) > 1)


@given(st.integers(2, 9), st.data())
def test_groups_are_what_can_be_reached(count, data):
    row = st.integers(0, count - 1)
    ends = data.draw(st.lists(st.tuples(row, row).filter(lambda pair: pair[0] != pair[1]), max_size=8))
    reach = np.eye(count, dtype=bool)
    for a, b in ends:
        reach[a, b] = reach[b, a] = True
    for _ in range(count):
        reach = (reach.astype(int) @ reach.astype(int)) > 0
    expected = {tuple(np.flatnonzero(line).tolist()) for line in reach if line.sum() > 1}
    assert {tuple(group) for group in groups_of([Pair(a, b, 1.0) for a, b in ends], count)} == expected


def test_near_pairs_are_all_pairs_above_the_threshold():
    x = np.random.default_rng(0).normal(size=(40, 3)).astype("f4")
    index = Index.of(VectorTable([str(i) for i in range(40)], x), dims=0)
    z = x / np.linalg.norm(x, axis=1, keepdims=True)
    similar = z @ z.T
    near, scores = neighbours(index, np.arange(40), 39)
    assert not (near == np.arange(40)[:, None]).any()
    expected = {(i, j) for i in range(40) for j in range(i + 1, 40) if similar[i, j] >= 0.9}
    found = near_pairs(near, scores, 0.9)
    assert {(pair.first, pair.second) for pair in found} == expected
    assert all(pair.similarity == pytest.approx(similar[pair.first, pair.second], abs=1e-5) for pair in found)


def test_who_stays():
    assert representative([0, 1, 2], ["train", "train", "test"], [True, True, False]) == 2
    assert representative([0, 1], ["train", "train"], [False, True]) == 1
    assert representative([3, 1], ["train"] * 4, [True] * 4) == 1


def test_the_nearest_of_another_group():
    x = np.array([[1, 0], [1, 0.01], [0, 1], [0.5, 1]], "f4")
    index = Index.of(VectorTable(list("abcd"), x), dims=0)
    best = nearest_elsewhere(index, np.arange(4), ["s", "s", "t", "u"])
    z = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = z @ z.T
    assert best == pytest.approx([cosine[0, 3], cosine[1, 3], cosine[2, 3], cosine[2, 3]], abs=1e-6)
    alone = nearest_elsewhere(index, np.arange(4), ["s"] * 4)
    assert np.isinf(alone).all()
    with pytest.raises(ValueError, match="expected clean samples to read a threshold from, got none; give a number"):
        clean_threshold(alone, 0.99)
    assert clean_threshold(np.array([0.0, 1.0, -np.inf]), 0.5) == 0.5
