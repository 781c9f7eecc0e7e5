"""Leaks between parts: found by content, file and group, beside a brute-force search; said, dropped, or refused."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data.leaks import Identity, contradictions, find_leaks, look_for_leaks
from tasks.data.problems import BadInput, Problems
from tasks.data.splits import PARTS

KEYS = ("content", "file", "subject")


@st.composite
def split_samples(draw):
    parts, number = {}, 0
    for part in PARTS:
        values = draw(st.lists(st.tuples(*[st.integers(0, 12)] * 3), max_size=6))
        parts[part] = []
        for value in values:
            number += 1
            keys = dict(zip(KEYS, value, strict=True))
            parts[part].append(Identity(f"s{number}", f"row {number}", keys, target=value[0] % 2))
    return parts


def share(a, b):
    return [key for key in KEYS if a.keys[key] == b.keys[key]]


@settings(max_examples=100, deadline=None)
@given(split_samples())
def test_every_pair_across_parts_is_found(parts):
    found = {(leak.part, leak.sample): leak.key for leak in find_leaks(parts)}
    for place, part in enumerate(PARTS):
        earlier = [one for other in PARTS[:place] for one in parts[other]]
        for number, own in enumerate(parts[part]):
            shared = {key for one in earlier for key in share(own, one)}
            assert found.get((part, number)) == next((key for key in KEYS if key in shared), None)


@settings(max_examples=100, deadline=None)
@given(split_samples())
def test_what_is_dropped_leaves_no_leak_and_the_test_as_it_is(parts):
    said = []
    kept, leaked, dropped = look_for_leaks(parts, lambda one: one, "drop", Problems("t.csv"), said.append)
    assert kept["test"] == parts["test"]
    assert find_leaks(kept) == []
    assert leaked == set()
    assert (kept == parts) == (not find_leaks(parts))
    assert dropped == {
        part: names for part in PARTS if (names := [one.name for one in parts[part] if one not in kept[part]])
    }


def one(name, **keys):
    return Identity(name, f"t.csv row {name[1:]}", keys, target=keys.pop("target", None))


def test_a_warning_names_both_rows_and_what_they_share():
    said = []
    parts = {"train": [one("s1", file="a.wav"), one("s2", content=3)], "val": [], "test": [one("s3", file="a.wav")]}
    kept, leaked, _ = look_for_leaks(parts, lambda own: own, "warn", Problems("t.csv"), said.append)
    assert kept == parts
    assert leaked == {"s3"}
    assert said[0].splitlines() == [
        "t.csv: 1 sample of val and test not independent of an earlier part",
        "  t.csv row 3: is in test, with the same file as t.csv row 1 in train",
        "results are given without them too; --data.on_leak drop leaves their twins out of training",
    ]


def test_an_error_lists_them_all():
    problems = Problems("t.csv")
    parts = {"train": [one("s1", subject="a"), one("s2", subject="b")], "val": [one("s3", subject="a")]}
    parts["test"] = [one("s4", subject="b")]
    look_for_leaks(parts, lambda own: own, "error", problems, pytest.fail)
    with pytest.raises(BadInput) as caught:
        problems.finish(total=4)
    assert re.findall(r"row \d: is in \w+, with the same subject as t.csv row \d in train", str(caught.value)) == [
        "row 3: is in val, with the same subject as t.csv row 1 in train",
        "row 4: is in test, with the same subject as t.csv row 2 in train",
    ]


def test_one_content_with_two_targets_is_reported():
    parts = {"train": [Identity("a", "row 1", {"content": 5}, 0), Identity("b", "row 2", {"content": 5}, 1)]}
    assert contradictions(parts) == ["row 2: has the content of row 1, but another target"]
    said = []
    look_for_leaks(parts, lambda own: own, "warn", Problems("t.csv"), said.append)
    assert said == ["t.csv: contradicting targets\n  row 2: has the content of row 1, but another target"]


def test_many_are_counted():
    said = []
    samples = [one(f"s{i}", content=i) for i in range(40)]
    parts = {"train": samples, "test": samples}
    look_for_leaks(parts, lambda own: own, "warn", Problems("t.csv"), said.append)
    assert "  ... and 30 more" in said[0].splitlines()
    problems = Problems("t.csv")
    for i in range(200_000):
        problems.add(f"row {i}", "file does not exist")
    with pytest.raises(BadInput) as caught:
        problems.finish(total=200_000)
    assert len(str(caught.value).splitlines()) == 53
    assert "... and 199,950 more" in str(caught.value)
    assert str(caught.value).startswith("t.csv: 200,000 problems found, 200,000 of them: file does not exist\n")
