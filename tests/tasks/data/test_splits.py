from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data.problems import BadInput, Problems
from tasks.data.splits import check_classes, hold_out, split


@settings(max_examples=30, deadline=None)
@given(folds=st.integers(2, 6), classes=st.integers(2, 4), each=st.integers(12, 20), seed=st.integers(0, 5))
def test_folds_are_disjoint_cover_everything_and_keep_shares(folds, classes, each, seed):
    targets = [i % classes for i in range(classes * each)]
    tested = []
    for fold in range(folds):
        parts = split(targets, folds=folds, fold=fold, seed=seed)
        assert sorted(parts["train"] + parts["val"] + parts["test"]) == list(range(len(targets)))
        tested += parts["test"]
        counts = Counter(targets[i] for i in parts["test"])
        assert max(counts.values()) - min(counts.values()) <= 1
    assert sorted(tested) == list(range(len(targets)))


def test_groups_are_never_divided():
    groups = [f"s{i // 3}" for i in range(60)]
    targets = [(i // 3) % 2 for i in range(60)]
    for stratify in (True, False):
        parts = split(targets, groups=groups, folds=5, fold=1, stratify=stratify)
        members = [{groups[i] for i in part} for part in parts.values()]
        assert all(members)
        assert not members[0] & members[1] | members[0] & members[2] | members[1] & members[2]


def test_same_seed_same_folds():
    targets = [0, 1] * 20
    assert split(targets, seed=3) == split(targets, seed=3) != split(targets, seed=4)


def test_fold_out_of_range():
    with pytest.raises(ValueError, match="expected a fold between 0 and 4, got 5; choose another fold or more folds"):
        split([0, 1] * 10, folds=5, fold=5)


def test_too_few_samples_for_the_folds():
    with pytest.raises(BadInput, match="expected at least 10 samples of a class for 10 folds"):
        split([0, 1, 0, 1], folds=10)


@pytest.mark.filterwarnings("error")
def test_a_scarce_class_is_divided_in_silence():
    targets = [0] * 12 + [1, 1]
    held = [split(targets, folds=5, fold=fold)["test"] for fold in range(5)]
    assert sorted(i for part in held for i in part) == list(range(14))
    assert split([0] * 12 + [1], folds=2)["train"]


def test_three_clips_of_an_eleventh_class_leave_the_others_as_they_were():
    plenty = [i % 10 for i in range(720)]
    train, val = hold_out(plenty, share=0.1)
    more_train, more_val = hold_out([*plenty, 10, 10, 10], share=0.1)
    assert (len(train), len(val)) == (648, 72)
    assert (set(more_train) - {720, 721, 722}, set(more_val) - {720, 721, 722}) == (set(train), set(val))
    assert len({720, 721, 722} & set(more_val)) == 1
    assert not {720, 721} & set(hold_out([*plenty, 10, 10], share=0.1)[1])  # of two, both train


def test_where_all_classes_are_scarce_all_validate():
    train, val = hold_out([0, 0, 0, 1, 1, 1], share=0.1)
    assert (len(train), len(val)) == (4, 2)


def test_share_that_validates():
    with pytest.raises(ValueError, match=r"expected a share above 0 and up to 0\.5 to hold out for validation, got 0"):
        split([0, 1] * 10, val=0)


def test_class_without_training_sample():
    problems = Problems("clips.csv")
    counts = check_classes({"train": [0, 0, 2], "test": [1]}, ["oboe", "flute", "horn"], problems)
    assert counts == [2, 0, 1]
    with pytest.raises(BadInput, match="class flute: has no training sample"):
        problems.finish(total=4)
