"""Labels and values that are not known: in the loss, in what is decided, in predictions.csv, in the report."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from toy import ToyTask

from tasks.outputs.diagrams import draw_test
from tasks.outputs.predictions import Row, summarise, worst_mistakes, write_predictions
from tasks.outputs.report import write_report

NAN = math.nan
KINDS = ["multilabel", "regression"]
CLASSES = ["first", "second", "third"]


def task_of(kind, **options):
    spec = {"kind": kind, "classes": CLASSES, "channels": 4, "train_size": 20}
    if kind == "multilabel":
        spec |= {"class_counts": [4, 5, 6], "known_counts": [8, 20, 12]}
    else:
        spec |= {"target_mean": [1.0, 2.0, 3.0], "target_std": [1.0, 10.0, 0.1]}
    torch.manual_seed(0)
    return ToyTask(spec, **options).eval()


@pytest.mark.parametrize("options", [{}, {"regression_loss": "huber", "label_smoothing": 0.1}, {"balance": True}])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_that_of_what_is_known(kind, options):
    """It is the mean of the losses of single entries, and an unknown one has no gradient."""
    task = task_of(kind, **options)
    logits = torch.randn(5, 3, dtype=torch.double, requires_grad=True)
    target = (torch.rand(5, 3) < 0.5).double()
    hidden = torch.rand(5, 3) < 0.4
    loss = task.loss(logits, torch.where(hidden, NAN, target))
    loss.backward()
    only = [torch.full_like(target, NAN).index_put((i, j), target[i, j]) for i, j in (~hidden).nonzero()[:, :, None]]
    expected = sum(task.loss(logits, one) for one in only) / len(only)
    torch.testing.assert_close(loss, expected)
    assert torch.equal(logits.grad == 0, hidden)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_which_nothing_is_known_teaches_nothing(kind):
    logits = torch.randn(2, 3, requires_grad=True)
    loss = task_of(kind).loss(logits, torch.full((2, 3), NAN))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_labels_are_weighed_by_what_is_known_of_them():
    assert task_of("multilabel", balance=True).class_weights.tolist() == [1.0, 3.0, 1.0]


@pytest.mark.parametrize("kind", KINDS)
def test_cells_are_empty_where_nothing_is_known(kind, tmp_path):
    task = task_of(kind)
    rows = [
        Row("a", torch.tensor([0.9, 0.2, 0.7]), torch.tensor([1.0, NAN, 0.0])),
        Row("b", torch.tensor([0.1, 0.2, 0.3])),
    ]
    write_predictions(tmp_path / "predictions.csv", rows, task)
    with (tmp_path / "predictions.csv").open() as file:
        first, second = csv.DictReader(file)
    assert [first[f"target {name}"] for name in CLASSES] == ["1", "", "0"]
    assert [second[f"target {name}"] for name in CLASSES] == ["", "", ""]
    if kind == "multilabel":
        assert first["prediction"] == "first|third"
    assert [row.id for row in worst_mistakes(rows, task)] == ["a"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_test_with_gaps_is_reported_by_target(kind, tmp_path):
    task, generator = task_of(kind), torch.Generator().manual_seed(0)
    p = torch.rand(40, 3, generator=generator)
    target = torch.where(
        torch.rand(40, 3, generator=generator) < 0.3, NAN, (p + 0.3 * torch.randn(40, 3) > 0.5).float()
    )
    rows = [Row(str(i), p[i], target[i]) for i in range(40)]
    summary = summarise(rows, task, resamples=5, permutations=5)
    name = "auroc" if kind == "multilabel" else "rmse"
    columns = [summary["per_class"][one] for one in CLASSES]
    assert [one["samples"] for one in columns] == (~target.isnan()).sum(0).tolist()
    assert np.mean([one[name] for one in columns]) == pytest.approx(summary["test"][name]["value"], abs=1e-5)
    (tmp_path / "summary.json").write_text(json.dumps(summary, allow_nan=False))
    draw_test(tmp_path / "test.png", kind, CLASSES, p.numpy(), target.numpy())
    page = write_report(tmp_path).read_text()
    assert "<td>second</td>" in page
    assert "test.png" not in page  # it is in the page
    assert 'alt="test"' in page
