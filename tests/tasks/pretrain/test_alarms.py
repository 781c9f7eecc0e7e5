"""What the alarms say of trainings that work and of one that does not."""

import math

import pytest
import torch
from pretraining import fit, make
from sklearn.metrics import r2_score
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from tasks.pretrain.alarms import deviation, knn, mutual_information, used, verdict


def test_information_is_zero_for_one_word_however_sharp():
    for p in (torch.eye(5)[:1].expand(7, 5), torch.full((7, 5), 0.2)):
        assert float(mutual_information(p)) == pytest.approx(0, abs=1e-6)


def test_information_is_that_of_a_table():
    """Of the joint distribution of sample and prototype, p(i, k) = pᵢₖ / n, by its definition."""
    p = torch.rand(6, 4, dtype=torch.float64)
    p = p / p.sum(1, keepdim=True)
    joint = p / 6
    slow = sum(
        float(joint[i, k]) * math.log(float(joint[i, k] / (joint[i].sum() * joint[:, k].sum())))
        for i in range(6) for k in range(4)
    )  # fmt: skip
    assert float(mutual_information(p)) == pytest.approx(slow, abs=1e-5)


def test_used_counts_first_choices():
    assert used(torch.eye(4)) == 1
    assert used(torch.eye(4)[[0, 0, 1]]) == pytest.approx(2 / 3)


def test_deviation_is_of_directions():
    x = torch.randn(2000, 50)
    assert float(deviation(x)) == pytest.approx(1, abs=0.01)
    assert float(deviation(x + 100)) < 0.02
    assert float(deviation(torch.rand(5, 1) * torch.ones(5, 3))) < 1e-3


def standard(x, of):
    return torch.nn.functional.normalize((x - of.mean(0)) / of.std(0, correction=0), dim=1).numpy()


def test_knn_is_scikit_learns():
    torch.manual_seed(0)
    train, test = torch.randn(60, 5), torch.randn(20, 5)
    classes, truth = (train[:, 0] > 0).long(), (test[:, 0] > 0).long()
    theirs = KNeighborsClassifier(7, metric="cosine").fit(standard(train, train), classes)
    score = theirs.score(standard(test, train), truth)
    assert knn(train, classes, test, truth, "binary", 7) == pytest.approx(score)
    values, wanted = train[:, :1] * 3, test[:, :1] * 3
    guess = KNeighborsRegressor(7, metric="cosine").fit(standard(train, train), values).predict(standard(test, train))
    assert knn(train, values, test, wanted, "regression", 7) == pytest.approx(r2_score(wanted, guess), abs=1e-5)


def test_knn_leaves_out_targets_that_are_not_known():
    train, known = torch.tensor([[1.0, 0.1], [-1.0, 0.1], [1.0, 0.2]]), torch.tensor([[1.0], [0.0], [math.nan]])
    test, truth = torch.tensor([[1.0, 0.15], [-1.0, 0.15]]), torch.tensor([[1.0], [math.nan]])
    assert knn(train, known, test, truth, "multilabel", 1) == 1.0


def test_a_collapsed_run_says_so_at_its_end(tmp_path):
    """Without anything against it, a teacher that follows at once and a high rate end in one word for all samples."""
    module, data = make("dino", centring="centre", half_life=1e-9, koleo=0.0, teacher_temperature=(1.0, 1.0))
    fit(module, data, tmp_path, epochs=4)
    assert any(line.startswith("collapsed: the teacher tells samples apart by 0.0") for line in module.found)


def test_verdict_names_what_is_wrong_and_nothing_else():
    good = {"train/information": 0.4, "train/deviation": 0.5, "val/knn": 0.6, "random/knn": 0.5}
    assert verdict(good) == []
    assert verdict({}) == []
    assert [line.partition(":")[0] for line in verdict({**good, "val/knn": 0.5})] == ["no better than a random network"]
    assert "same way (deviation 0.010" in verdict({**good, "train/deviation": 0.01})[0]


def test_a_run_that_works_is_told_apart(tmp_path):
    module, data = make("ntxent")
    fit(module, data, tmp_path, epochs=4)
    assert not any(line.startswith("collapsed") for line in module.found)
