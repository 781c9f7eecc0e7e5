"""What a task decided, in words and numbers, against its own predictions and maps."""

import math

import pytest
import torch
from toy import ToyData, ToyTask

from tasks.task.decisions import Decision, decide

SHOWN = {"binary": 0, "multiclass": None, "multilabel": None, "regression": 0}  # None: the likeliest


@pytest.fixture(params=SHOWN)
def decided(request):
    torch.manual_seed(0)
    data = ToyData(kind=request.param)
    task = ToyTask(data.spec).eval()
    batch = next(iter(data.test_dataloader()))
    return task, batch, *decide(task, batch)


def test_numbers_are_those_of_the_maps(decided):
    task, batch, decisions, shown = decided
    predictions, maps = task.explain(batch)
    values = predictions if task.kind == "regression" else task(batch)
    for i, decision in enumerate(decisions):
        output = int(predictions[i].argmax()) if SHOWN[task.kind] is None else 0
        assert decision.value == pytest.approx(float(values[i, output]), rel=1e-5)
        assert decision.sum == pytest.approx(float(maps[i, :, output].sum()), abs=1e-5)
        assert decision.missing == pytest.approx(0, abs=1e-4)  # a linear head: nothing is missing
        bias = task.head[-1].bias[output] * task.target_std[output] + task.target_mean[output]
        assert decision.bias == pytest.approx(float(bias), abs=2e-4)
        torch.testing.assert_close(shown[i], maps[i, :, output])


def test_words_are_the_targets_and_predictions(decided):
    task, batch, decisions, _ = decided
    predictions = task.predictions(task(batch))
    first, target, prediction = decisions[0], batch["y"][0], predictions[0]
    if task.kind == "regression":
        expected = [f"first {float(row[0]):.4g}, second {float(row[1]):.4g}" for row in (target, prediction)]
        assert first.label == "first per element"
        assert math.isnan(first.sure)
        assert first.right is None
    elif task.kind == "multilabel":
        expected = ["|".join(name for name, on in zip(("first", "second"), row, strict=True) if on) or "none"
                    for row in (target > 0, prediction > 0.5)]  # fmt: skip
        assert first.label.startswith(f"evidence for {task.classes[int(prediction.argmax())]}\n")
    else:
        expected = [task.classes[int(target)], task.classes[int(prediction.argmax())]]
        assert first.sure == pytest.approx(float(prediction.max()))
    if task.kind == "binary":
        assert first.label == "evidence for high, against low\n(logit per element)"
    assert [first.target, first.prediction] == expected


def test_losses_are_each_samples_own(decided):
    task, batch, decisions, _ = decided
    mean = sum(decision.loss for decision in decisions) / len(decisions)
    assert mean == pytest.approx(float(task.loss(task(batch), batch["y"])), rel=1e-5)


def test_a_target_that_is_not_known_is_left_out(decided):
    task, batch, _, _ = decided
    unknown = torch.full_like(batch["y"].float(), math.nan)
    decision = decide(task, {**batch, "y": unknown})[0][0]
    assert decision.target == ""
    assert math.isnan(decision.loss)
    assert decision.right is None
    assert "target" not in decision.title


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({}, "a.wav\ntarget yes, prediction no (p = 0.75)\nlogit of age: −1.10 = map −2.35 + bias 1.25 + gap 0.00"),
        ({"target": ""}, "a.wav\nprediction no (p = 0.75)\nlogit of age: −1.10 = map −2.35 + bias 1.25 + gap 0.00"),
        (
            {"sure": math.nan, "value": 1234.5, "sum": 1000.0, "missing": -3.0, "prediction": "1234", "target": "1200"},
            "a.wav\ntarget 1200, prediction 1234\nage: 1234 = map 1000 + bias 237.5 + gap −3.00",
        ),
    ],
)
def test_titles(changes, title):
    given = {
        "id": "a.wav", "target": "yes", "prediction": "no", "sure": 0.75, "loss": 1.4, "about": "age", "label": "",
        "value": -1.1, "sum": -2.35, "missing": 0.0,
    }  # fmt: skip
    assert Decision(**given | changes).title == title
    long = Decision(**given | changes | {"id": "x" * 70 + "/end.wav"}).title.splitlines()[0]
    assert len(long) == 60
    assert long.startswith("…")
    assert long.endswith("/end.wav")
