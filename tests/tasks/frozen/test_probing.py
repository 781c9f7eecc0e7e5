"""Probes learn what features say of the labels, from nothing else, and of samples that are theirs."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from toy import ToyData, ToyTask

from modalpool import Pool
from tasks.data.problems import BadInput
from tasks.frozen.budgets import budgets
from tasks.frozen.features import flat, network_features, raw_features, readout, standardised
from tasks.frozen.probing import Probes
from tasks.graph import GraphTask, MotifData
from tasks.task.estimators import predict, rotated


def probes(kind="binary", asked="all", seeds=(0,), **options):
    data = ToyData(kind, **options)
    return Probes(ToyTask(data.spec), data, budgets(asked), seeds)


def test_features_are_the_pool_of_what_the_encoder_gives():
    data = ToyData()
    task = ToyTask(data.spec)
    found = torch.stack(network_features(task, Pool("b [n] c", "max"), data, data.datasets["test"]))
    torch.testing.assert_close(found, task.encoder(data.datasets["test"].x).amax(1).detach())
    raw = torch.stack(raw_features(task, Pool("b [n] c", ["mean", "max"]), data, data.datasets["test"]))
    x = data.datasets["test"].x
    torch.testing.assert_close(raw, torch.cat([x.mean(1), x.amax(1)], 1))
    assert data.batch_size == 32  # as before


def test_raw_features_of_graphs_and_a_pool_that_learns():
    data = MotifData(train=12, val=4, test=4)
    data.setup()
    task = GraphTask(data.spec, hidden=8, layers=1, reduction="attention")
    found = raw_features(task, task.pool, data, data.datasets["test"])
    for graph, own in zip(data.datasets["test"], found, strict=True):
        torch.testing.assert_close(own, graph.x.mean(0))


def test_short_vectors_end_in_zeros_and_constants_are_left_out():
    train = [torch.ones(2, 2) * i for i in range(3)]
    x, asked = flat(train, [torch.ones(2, 3)])
    assert x.tolist() == [[i] * 4 for i in range(3)]
    assert asked.tolist() == [[1] * 4]
    assert flat([torch.ones(2)] * 3, [torch.zeros(2)])[0].shape == (3, 0)


def test_features_are_standardised_over_the_training_part_alone():
    x = np.random.default_rng(0).normal(3, 5, (40, 3))
    found, asked = standardised(x, x[:4] + 100)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(found.std(0), 1)
    np.testing.assert_allclose(asked, (x[:4] + 100 - x.mean(0)) / x.std(0))


@pytest.mark.parametrize("estimator", ["linear", "knn"])
@pytest.mark.parametrize(
    ("kind", "metric", "least"), [("binary", "auroc", 0.9), ("multiclass", "acc", 0.6), ("regression", "r2", 0.5)]
)
def test_a_mean_that_holds_the_target_is_found_in_features_and_input(kind, metric, least, estimator):
    torch.manual_seed(0)
    own = probes(kind)
    for table in (own.raw(Pool("b [n] c")), own.network(ToyTask(own.data.spec), Pool("b [n] c"))):
        (row,) = own.measure(table, [estimator])
        assert row[metric] > least
        assert row["labels"] == 96 + 32
    (row,) = own.measure(own.nothing(), [estimator])
    assert row[metric] < least


def test_rows_are_a_budget_and_a_draw_each():
    own = probes(asked="2,10%,all", seeds=(0, 1))
    rows = list(own.measure(own.raw(Pool("b [n] c")), ["linear", "knn"]))
    assert [(row["budget"], row["seed"], row["probe"]) for row in rows] == [
        (budget, seed, probe)
        for budget, seed in (("2", 0), ("2", 1), ("10%", 0), ("10%", 1), ("all", 0))
        for probe in ("linear", "knn")
    ]
    assert [row["labels"] for row in rows[::2]][:2] == [4, 4]


def test_labels_beyond_the_budget_say_nothing():
    first, second = probes(asked="3"), probes(asked="3")
    drawn = set(second.rows["3", 0])
    for row in range(len(second.y)):
        if row not in drawn:
            second.y[row] = 1 - second.y[row]
    pool = Pool("b [n] c")
    assert list(first.measure(first.raw(pool), ["linear"])) == list(second.measure(second.raw(pool), ["linear"]))


def test_fewer_columns_are_the_same_to_a_linear_model():
    rng = np.random.default_rng(0)
    x, asked = rng.normal(size=(12, 50)), rng.normal(size=(5, 50))
    y = rng.normal(size=12)
    fewer, others = rotated(x, asked)
    assert fewer.shape == (12, 12)
    expected = Ridge(0.7).fit(x, y).predict(asked)
    np.testing.assert_allclose(Ridge(0.7).fit(fewer, y).predict(others), expected)
    sharp = {"C": 0.5, "tol": 1e-10, "max_iter": 10_000}
    expected = LogisticRegression(**sharp).fit(x, y > 0).predict_proba(asked)
    np.testing.assert_allclose(LogisticRegression(**sharp).fit(fewer, y > 0).predict_proba(others), expected, atol=1e-6)


def test_one_label_a_class_is_the_nearest_neighbour():
    rng = np.random.default_rng(0)
    x, asked, y = rng.normal(size=(3, 5)), rng.normal(size=(9, 5)), np.arange(3)
    found = predict("multiclass", 3, x, y, asked, [None] * 3, estimator="knn", scale=False)
    expected = KNeighborsClassifier(1, metric="cosine").fit(x, y).predict(asked)
    assert found.argmax(1).tolist() == expected.tolist()


def test_a_readout_learns_nothing():
    pool = Pool("b c [d h w]", "attention", channels=4)
    assert readout(pool, {}) is pool
    assert readout(pool, {"reduction": "pyramid", "levels": [[3, 4, 3]]}).vectors == 36
    with pytest.raises(BadInput, match=r"--pool: expected a rule that learns nothing, got attention; take mean or pyr"):
        readout(pool, {"reduction": "attention"})
    with pytest.raises(BadInput, match=r"^--pool: .*median"):
        readout(pool, {"reduction": "median"})


def test_a_label_that_nobody_knows_is_a_coins_throw():
    y = np.array([[0.0, np.nan], [1.0, np.nan]])
    found = predict("multilabel", 2, np.array([[0.0], [1.0]]), y, np.array([[0.0], [1.0]]), [None] * 2)
    assert found[:, 1].tolist() == [0.5, 0.5]
    assert found[0, 0] < found[1, 0]


def test_a_network_sees_each_sample_once_and_another_network_again():
    seen = []

    class Counting(ToyTask):
        def encode(self, batch):
            seen.append(len(batch["x"]))
            return super().encode(batch)

    kept = {}
    data = ToyData(shared=True)
    task, pool = Counting(data.spec), Pool("b [n] c")
    first = Probes(task, data, budgets("all"), [0], kept).network(task, pool)
    assert sum(seen) == 96 + 32 + 32
    other = ToyData(shared=True, fold=1)  # its test samples are the first one's training samples
    second = Probes(task, other, budgets("all"), [0], kept).network(task, pool)
    assert sum(seen) == 96 + 32 + 32 + 96 + 32
    alone = Probes(task, other, budgets("all"), [0]).network(task, pool)
    np.testing.assert_allclose(second.test, alone.test)
    np.testing.assert_allclose(second.train, alone.train)
    assert first.train.shape == (128, 8)
    seen.clear()
    Probes(task, data, budgets("all"), [0], kept).network(Counting(data.spec), pool)
    Probes(task, data, budgets("all"), [0], kept).network(task, Pool("b [n] c", "max"))
    assert sum(seen) == 2 * 160
