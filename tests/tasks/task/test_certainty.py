"""Intervals that resample groups and leave undefined metrics out, and p values: closed forms and brute force."""

import itertools
import math

import numpy as np
import pytest
import torch

from tasks.task.certainty import bootstrap, permutation_test


def binary(p):
    p = torch.as_tensor(p, dtype=torch.float32)
    return torch.stack([1 - p, p], 1)


def test_interval_matches_the_binomial():
    # 200 samples, 80 % right: the standard error is sqrt(.8 * .2 / 200) = .0283.
    target = torch.zeros(200, dtype=torch.long)
    predictions = torch.tensor([[1.0, 0.0]] * 160 + [[0.0, 1.0]] * 40)
    result = bootstrap("multiclass", 2, predictions, target, samples=250)["acc"]
    assert result["value"] == pytest.approx(0.8)
    assert (result["high"] - result["low"]) / 3.92 == pytest.approx(0.0283, rel=0.15)


def test_a_perfect_classifier_of_few_positives_has_a_point_for_an_interval():
    target = torch.tensor([1, 1] + [0] * 18)
    result = bootstrap("binary", 2, binary(target * 0.8 + 0.1), target, samples=300)
    for name in ("auroc", "ap", "sensitivity"):
        assert result[name] == {"value": pytest.approx(1.0), "low": pytest.approx(1.0), "high": pytest.approx(1.0)}


def test_what_is_undefined_is_nan():
    target = torch.zeros(10, dtype=torch.long)
    result = bootstrap("binary", 2, binary([0.1] * 10), target, samples=20)
    undefined = {name for name, one in result.items() if all(map(math.isnan, one.values()))}
    assert undefined == {"auroc", "ap", "sensitivity", "precision", "f1", "balanced_acc"}
    assert result["specificity"]["value"] == result["acc"]["value"] == 1.0


def test_a_class_without_samples_is_left_out_of_the_mean():
    predictions, target = torch.eye(3)[torch.tensor([0, 1, 0, 1])], torch.tensor([0, 1, 0, 1])
    result = bootstrap("multiclass", 3, predictions, target, samples=0)
    assert (result["auroc"]["value"], result["balanced_acc"]["value"]) == (1.0, 1.0)
    hits = torch.tensor([[1, 0], [0, 0]])
    result = bootstrap("multilabel", 2, hits.float(), hits, samples=0)
    assert (result["auroc"]["value"], result["ap"]["value"]) == (1.0, 1.0)


def test_groups_are_resampled_whole():
    """30 subjects of 8 images each, whose images are right or wrong together: the error is that of 30, not of 240."""
    generator = torch.Generator().manual_seed(0)
    right = (torch.rand(30, generator=generator) < 0.7).repeat_interleave(8)
    target = torch.zeros(240, dtype=torch.long)
    predictions = torch.stack([right.float(), 1 - right.float()], 1)
    groups = [f"subject {i // 8}" for i in range(240)]
    share = right.float().mean().item()

    def width(groups):
        result = bootstrap("multiclass", 2, predictions, target, groups=groups, samples=250)["acc"]
        return (result["high"] - result["low"]) / 3.92

    assert width(groups) == pytest.approx(math.sqrt(share * (1 - share) / 30), rel=0.15)
    assert width(None) == pytest.approx(math.sqrt(share * (1 - share) / 240), rel=0.15)


def test_groups_of_one_are_samples():
    target = torch.tensor([0, 1] * 20)
    predictions = binary(torch.rand(40, generator=torch.Generator().manual_seed(1)))
    names = [str(i) for i in range(40)]
    assert bootstrap("binary", 2, predictions, target, groups=names, samples=50) == bootstrap(
        "binary", 2, predictions, target, samples=50
    )


def test_decisions_at_a_threshold():
    p, target = np.array([0.1, 0.3, 0.35, 0.6, 0.9]), np.array([0, 0, 1, 0, 1])
    result = bootstrap("binary", 2, binary(p), torch.from_numpy(target), threshold=0.32, samples=0)
    decided = p > 0.32
    assert {name: one["value"] for name, one in result.items()} == pytest.approx(
        {
            "sensitivity": decided[target == 1].mean(),
            "specificity": (~decided)[target == 0].mean(),
            "balanced_acc": (decided[target == 1].mean() + (~decided)[target == 0].mean()) / 2,
            "precision": target[decided].mean(),
        }
    )


def test_p_value_is_that_of_all_permutations():
    p, target = [0.1, 0.2, 0.4, 0.5, 0.7, 0.9], [0, 0, 1, 0, 1, 1]
    found = permutation_test("binary", 2, binary(p), torch.tensor(target), permutations=250)

    def right(labels):
        return sum((one > 0.5) == bool(label) for one, label in zip(p, labels, strict=True))

    orders = list(itertools.permutations(target))
    exact = sum(right(order) >= right(target) for order in orders) / len(orders)
    assert found["p"]["acc"] == pytest.approx(exact, abs=0.05)
    assert (found["permutations"], found["shuffled"]) == (250, "samples")


def test_labels_are_shuffled_within_groups():
    """All of site a is ill, all of site b is not, but for one each: only those can change places."""
    target = torch.tensor([1, 1, 1, 0, 0, 0, 0, 1])
    groups = ["a"] * 4 + ["b"] * 4
    predictions = binary([0.9] * 4 + [0.1] * 4)  # knows the site and nothing else
    found = permutation_test("binary", 2, predictions, target, groups=groups, permutations=100)
    assert found["shuffled"] == "samples within groups"
    assert found["p"]["acc"] == 1.0
    assert permutation_test("binary", 2, predictions, target, permutations=100)["p"]["acc"] < 0.4


def test_groups_of_one_label_exchange_it():
    target = torch.tensor([0, 1]).repeat_interleave(12)
    groups = [f"subject {i // 4}" for i in range(24)]  # six subjects, each of one diagnosis
    found = permutation_test("binary", 2, binary(target * 0.9 + 0.05), target, groups=groups, permutations=299)
    assert found["shuffled"] == "groups"
    assert found["p"]["acc"] == pytest.approx(1 / 20, abs=0.03)  # one of the 6! / (3! 3!) ways to deal the diagnoses
    samples = permutation_test("binary", 2, binary(target * 0.9 + 0.05), target, permutations=299)
    assert samples["p"]["acc"] == pytest.approx(1 / 300)


def test_lower_errors_are_better():
    target = torch.arange(8.0)[:, None]
    found = permutation_test("regression", 1, target + 0.1, target, permutations=100)
    assert found["p"]["mae"] == found["p"]["r2"] < 0.03
