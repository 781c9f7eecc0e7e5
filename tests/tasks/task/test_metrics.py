import numpy as np
import pytest
import torch
from sklearn import metrics as judge
from torchmetrics.classification import MulticlassF1Score

from tasks.task.certainty import bootstrap
from tasks.task.metrics import build_metrics


def random_case(kind, count=200):
    generator = torch.Generator().manual_seed(0)
    if kind == "regression":
        target = torch.randn(count, 1, generator=generator)
        return target + 0.5 * torch.randn(count, 1, generator=generator), target
    classes = {"binary": 2, "multiclass": 4, "multilabel": 3}[kind]
    scores = torch.rand(count, classes, generator=generator)
    if kind == "multilabel":
        return scores, (torch.rand(count, classes, generator=generator) < scores).long()
    probabilities = scores / scores.sum(1, keepdim=True)
    return probabilities, torch.multinomial(probabilities, 1, generator=generator)[:, 0]


def calibration_error(p, hits, bins=15):
    """Expected calibration error (Guo et al. 2017, eq. 3)."""
    which = np.minimum((p * bins).astype(int), bins - 1)
    parts = [which == i for i in range(bins) if (which == i).any()]
    return sum(part.mean() * abs(p[part].mean() - hits[part].mean()) for part in parts)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "regression"])
def test_values_are_those_of_scikit_learn(kind):
    predictions, target = random_case(kind)
    p, t = predictions.numpy(), target.numpy()
    expected = {
        "binary": lambda: {
            "acc": judge.accuracy_score(t, p[:, 1] > 0.5),
            "auroc": judge.roc_auc_score(t, p[:, 1]),
            "f1": judge.f1_score(t, p[:, 1] > 0.5),
            "balanced_acc": judge.balanced_accuracy_score(t, p[:, 1] > 0.5),
            "sensitivity": judge.recall_score(t, p[:, 1] > 0.5),
            "specificity": judge.recall_score(t, p[:, 1] > 0.5, pos_label=0),
            "precision": judge.precision_score(t, p[:, 1] > 0.5),
            "ap": judge.average_precision_score(t, p[:, 1]),
            "brier": judge.brier_score_loss(t, p[:, 1]),
            "ece": calibration_error(p[:, 1], t),
        },
        "multiclass": lambda: {
            "acc": judge.accuracy_score(t, p.argmax(1)),
            "f1": judge.f1_score(t, p.argmax(1), average="macro"),
            "balanced_acc": judge.balanced_accuracy_score(t, p.argmax(1)),
            "auroc": judge.roc_auc_score(t, p, multi_class="ovr"),
            "ece": calibration_error(p.max(1), p.argmax(1) == t),
        },
        "multilabel": lambda: {
            "acc": np.mean((p > 0.5) == t),
            "ap": judge.average_precision_score(t, p, average="macro"),
            "auroc": judge.roc_auc_score(t, p, average="macro"),
        },
        "regression": lambda: {
            "mae": judge.mean_absolute_error(t, p),
            "rmse": judge.mean_squared_error(t, p) ** 0.5,
            "r2": judge.r2_score(t, p),
        },
    }[kind]()
    results = bootstrap(kind, predictions.shape[1], predictions, target, samples=0)
    assert {name: result["value"] for name, result in results.items()} == pytest.approx(expected, abs=1e-5)


def gaps(target, share=0.3):
    hidden = torch.rand(target.shape, generator=torch.Generator().manual_seed(1)) < share
    return torch.where(hidden, torch.nan, target.float())


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_what_is_not_known_counts_for_nothing(kind):
    """Each metric is the mean over the columns of scikit-learn's of the samples whose label or value is known."""
    generator = torch.Generator().manual_seed(0)
    predictions = torch.rand(200, 3, generator=generator)
    if kind == "multilabel":
        target = gaps(torch.rand(200, 3, generator=generator) < predictions)
    else:
        target = gaps(predictions + torch.tensor([0.1, 1.0, 5.0]) * torch.randn(200, 3, generator=generator))
    columns = [(t[~np.isnan(t)], p[~np.isnan(t)]) for t, p in zip(target.numpy().T, predictions.numpy().T, strict=True)]
    judges = {
        "multilabel": {
            "acc": lambda t, p: judge.accuracy_score(t, p > 0.5),
            "ap": judge.average_precision_score,
            "auroc": judge.roc_auc_score,
        },
        "regression": {
            "mae": judge.mean_absolute_error,
            "rmse": judge.root_mean_squared_error,
            "r2": judge.r2_score,
        },
    }[kind]
    expected = {name: np.mean([one(t, p) for t, p in columns]) for name, one in judges.items()}
    results = bootstrap(kind, 3, predictions, target, samples=20)
    assert {name: result["value"] for name, result in results.items()} == pytest.approx(expected, abs=1e-4)
    assert all(result["low"] <= result["high"] for result in results.values())
    together = build_metrics(kind, 3, every=True)
    for rows in (slice(0, 90), slice(90, 200)):
        together.update(predictions[rows], target[rows])
    assert {name: float(value) for name, value in together.compute().items()} == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_a_column_of_which_nothing_is_known_is_left_out_of_the_mean(kind):
    predictions, target = torch.tensor([[0.1, 0.3], [0.9, 0.4], [0.8, 0.1]]), torch.tensor([[0.0], [1.0], [1.0]])
    alone = bootstrap(kind, 1, predictions[:, :1], target, samples=0)
    unknown = torch.cat([target, torch.full_like(target, torch.nan)], 1)
    assert bootstrap(kind, 2, predictions, unknown, samples=0) == alone


def test_one_sample_has_no_r2():
    metrics = build_metrics("regression", 1)
    metrics.update(torch.ones(1, 1), torch.zeros(1, 1))
    assert torch.isnan(metrics.compute()["r2"])


def test_unknown_kind():
    with pytest.raises(ValueError, match="expected kind binary, multiclass, multilabel or regression, got 'ranking'"):
        build_metrics("ranking", 2)


def test_f1_is_that_of_torchmetrics_where_a_class_is_absent():
    predictions, target = torch.rand(50, 5), torch.randint(3, (50,))
    predictions[:, 4] = 0
    own, judged = build_metrics("multiclass", 5)["f1"], MulticlassF1Score(5)
    for part in (slice(0, 20), slice(20, 50)):
        own.update(predictions[part], target[part])
        judged.update(predictions[part], target[part])
    assert own.compute() == judged.compute()
    assert all(torch.equal(getattr(own, name), getattr(judged, name)) for name in ("tp", "fp", "tn", "fn"))
