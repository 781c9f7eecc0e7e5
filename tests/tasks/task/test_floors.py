"""Baselines beside a result: what they learn, from whom, how they are compared, and that they never break a run."""

import csv
import json

import numpy as np
import pytest
import torch
import yaml
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.feature_extraction import DictVectorizer
from toy import ToyData, ToyTask

from tasks.__main__ import main
from tasks.data.base import Sample
from tasks.task import estimators
from tasks.task.floors import below, matrices, measure_floors
from tasks.task.modality import ForForest

QUICK = ["--trainer.max_epochs=1", "--outputs.bootstrap=0", "--outputs.maps=0", "--outputs.every=0"]


class Told(ToyTask):
    """A task whose floors are told what `tell` makes of a batch."""

    tell = staticmethod(lambda batch: {})

    def floors(self, batch):
        return self.tell(batch)


def measured(kind, tell, data=None, **options):
    data = data or ToyData(kind)
    task = Told(data.spec)
    task.tell = tell
    return {row.pop("floor"): row for row in measure_floors(task, data, **options)}


def means(batch):
    return {"means": list(batch["x"].mean(1))}


def words(batch):
    """Counts that hold the class: how often the word 7 is there; the other words are noise."""
    noise = torch.randint(100, 110, (len(batch["y"]), 4), generator=torch.Generator().manual_seed(len(batch["y"])))
    return {
        "words": [
            {7: 1 + 5 * int(y), **dict.fromkeys(row.tolist(), 1)} for y, row in zip(batch["y"], noise, strict=True)
        ]
    }


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_a_floor_whose_counts_hold_the_class_is_always_right(kind):
    assert measured(kind, words)["words"]["acc"] == 1.0


@pytest.mark.parametrize(
    ("kind", "metric", "least"),
    [("binary", "auroc", 0.97), ("multiclass", "acc", 0.85), ("multilabel", "ap", 0.97), ("regression", "r2", 0.999)],
)
def test_vectors_that_hold_the_target_are_found_in_every_kind_of_task(kind, metric, least):
    assert measured(kind, means)["means"][metric] > least


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "regression"])
def test_a_forest_is_that_of_scikit_learn(kind, monkeypatch):
    monkeypatch.setattr(estimators, "TREES", 20)
    data = ToyData(kind, train=60)
    data.setup()
    tell = lambda batch: {"grown": ForForest(means(batch)["means"])}  # noqa: E731
    found = measured(kind, tell, data)["grown"]
    train, test = data.datasets["train"], data.datasets["test"]
    x, asked = train.x.mean(1).double().numpy(), test.x.mean(1).double().numpy()
    model = (RandomForestRegressor if kind == "regression" else RandomForestClassifier)(20, random_state=0)
    columns = train.y.numpy().reshape(len(train.y), -1).T
    said = np.stack([model.fit(x, column).predict(asked) for column in columns], 1)
    truth = test.y.numpy().reshape(said.shape)
    if kind == "regression":
        assert found["mae"] == pytest.approx(np.abs(said - truth).mean(), rel=1e-4)
    else:
        assert found["acc"] == pytest.approx((said == truth).mean(), abs=0.04)  # of a tie at one half, either
    assert "grown" not in measured(kind, tell, data, forests=False)


def test_shuffled_targets_leave_chance():
    data = ToyData("binary", train=400)
    data.setup()
    for part in data.datasets.values():
        part.y = part.y[torch.randperm(len(part), generator=torch.Generator().manual_seed(1))]
    found = measured("binary", means, data)["means"]
    assert 0.25 < found["acc"] < 0.75


def test_the_first_floor_knows_the_targets_alone():
    data = ToyData("multiclass")
    data.setup()
    train, test = data.datasets["train"].y.numpy(), data.datasets["test"].y.numpy()
    expected = DummyClassifier().fit(train[:, None], train).score(test[:, None], test)
    assert measured("multiclass", lambda batch: {}).keys() == {"majority"}
    assert measured("multiclass", lambda batch: {})["majority"]["acc"] == pytest.approx(expected)

    data = ToyData("regression")
    data.setup()
    missed = (data.datasets["test"].y - data.datasets["train"].y.mean(0)).abs().mean()
    assert measured("regression", lambda batch: {})["mean"]["mae"] == pytest.approx(float(missed), rel=1e-5)


def test_a_floor_that_is_told_nothing_is_left_out():
    tell = lambda batch: {"constant": [torch.ones(3)] * len(batch["y"]), "word": [{1: 2}] * len(batch["y"])}  # noqa: E731
    assert measured("binary", tell).keys() == {"majority"}


def test_vectors_may_differ_in_length():
    def tell(batch):
        long = [torch.cat([one.mean(0), torch.ones(i % 3)]) for i, one in enumerate(batch["x"])]
        return {"long": long}

    assert measured("binary", tell)["long"]["auroc"] > 0.9


def test_counts_become_the_logarithms_that_scikit_learns_table_gives():
    train, test = [{3: 2, -5: 1}, {3: 1}, {8: 4}], [{8: 1, 99: 7}, {}]
    table = DictVectorizer(sparse=False)
    expected = np.log1p(table.fit_transform(train)), np.log1p(table.transform(test))
    for ours, theirs in zip(matrices(train, test), expected, strict=True):
        np.testing.assert_allclose(ours.toarray(), theirs)


def test_only_training_samples_that_keep_their_label_are_learned_from(monkeypatch):
    seen = []
    half = lambda x, y, asked, groups, **_: seen.append(len(y)) or (np.full((len(asked), 2), 0.5), [0, 1])  # noqa: E731
    monkeypatch.setattr(estimators, "_fit", half)
    for data in (ToyData("binary"), ToyData("binary", labelled=5)):
        measured("binary", means, data)
    measured("binary", means, parts=("train", "val"))
    assert seen == [96, 96, 10, 10, 96 + 32, 96 + 32]


def test_no_group_is_in_two_inner_folds():
    groups = [str(i // 4) for i in range(40)]
    y = np.arange(40) % 2
    for number in (False, True):
        for rest, held in estimators._inner_folds(y, groups, number):
            assert not {groups[i] for i in rest} & {groups[i] for i in held}
    assert len(estimators._inner_folds(y, [None] * 40, False)) == 5
    assert estimators._inner_folds(np.array([0] * 9 + [1]), [None] * 10, False) == []  # one sample cannot be divided


def test_missing_numbers_are_not_learned_from():
    data = ToyData("regression")
    data.setup()
    data.datasets["train"].y[:40, 0] = torch.nan
    assert measured("regression", means, data)["means"]["r2"] > 0.99


def test_a_result_is_held_against_the_best_floor_in_each_metric():
    known = [{"floor": "a", "mae": 3.0, "r2": 0.5}, {"floor": "b", "mae": 2.0, "r2": float("nan")}]
    assert below({"mae": 2.5, "r2": 0.6}, known) == ["mae 2.5 (b: 2)"]
    assert below({"mae": 1.9, "r2": 0.5}, known) == []
    assert below({"f1": 0.0}, [{"floor": "a", "f1": 1.0}]) == []  # saying yes to everything is hard to beat there


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A folder to run in; calls `main` there with a task that knows the answer's mean."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tasks"])
    monkeypatch.setattr("tasks.outputs.callback.draw_curves", lambda *given: [])
    monkeypatch.setattr(ToyTask, "floors", lambda self, batch: means(batch))
    config = {
        "run": {"name": "toy"},
        "model": {"class_path": "toy.ToyTask", "init_args": {"lr": 1e-9}},  # learns nothing
        "data": {"class_path": "toy.ToyData", "init_args": {"kind": "multiclass"}},
        "trainer": {"accelerator": "cpu", "logger": True, "enable_progress_bar": False},
    }
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(config))
    return lambda command, *flags: main([command, "-c", "toy.yaml", *QUICK, *flags])


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_run_below_its_floor_ends_in_saying_so(toy, tmp_path, capsys):
    toy("fit")
    run = tmp_path / "runs/toy/version_0"
    rows = {row["floor"]: row for row in table(run / "floors.csv")}
    summary = json.loads((run / "summary.json").read_text())
    ours = summary["test"]["acc"]["value"]
    assert rows.keys() == {"majority", "means"}
    *_, accuracy, auroc, results, _ = capsys.readouterr().out.strip().splitlines()
    assert accuracy == f"below its floor: acc {ours:.4g} (means: {float(rows['means']['acc']):.4g})"
    assert auroc.startswith("below its floor: auroc 0.")
    assert [accuracy, auroc] == [f"below its floor: {what}" for what in summary["run"]["below"]]
    assert "Below its floor" in (run / "report.html").read_text()
    assert results.startswith("Results: ")


def test_a_run_above_its_floors_does_not(toy, capsys):
    toy("fit", "--model.lr=0.1", "--trainer.max_epochs=12", "--data.kind=binary", "--early_stopping.patience=12")
    said = capsys.readouterr().out
    assert "this network" in said
    assert float(said.split("this network")[1].split()[0]) >= 0.9


def test_floors_may_be_turned_off(toy, tmp_path, capsys):
    toy("fit", "--floors=false")
    assert "loor" not in capsys.readouterr().out
    assert not (tmp_path / "runs/toy/version_0/floors.csv").exists()


def test_floors_that_fail_leave_the_result_and_say_why(toy, tmp_path, monkeypatch, capsys):
    def fail(self, batch):
        raise RuntimeError("no\nnumbers")

    monkeypatch.setattr(ToyTask, "floors", fail)
    toy("fit")
    assert (tmp_path / "runs/toy/version_0/summary.json").exists()
    said = capsys.readouterr().out
    assert "floors: not measured (RuntimeError: no numbers); --floors false leaves them out" in said
    assert "Results: " in said


def test_many_samples_are_left_to_the_command(toy, monkeypatch, capsys):
    monkeypatch.setattr("tasks.commands.floor_tables.LARGEST", 100)
    toy("fit")
    assert "floors: not measured with more than 100 samples, here are 128" in capsys.readouterr().out


def test_a_cross_validation_has_the_floors_of_its_folds_once(toy, tmp_path, capsys):
    toy("crossval", "--seeds=0,1")
    folder = tmp_path / "runs/toy/crossval_0"
    rows = table(folder / "floors.csv")
    assert [(row["fold"], row["floor"]) for row in rows] == [
        ("0", "majority"),
        ("0", "means"),
        ("1", "majority"),
        ("1", "means"),
    ]
    assert [path.parent.name for path in sorted(folder.glob("fold_*/floors.csv"))] == ["fold_0_seed_0", "fold_1_seed_0"]
    said = capsys.readouterr().out
    best = np.mean([float(row["acc"]) for row in rows if row["floor"] == "means"])
    assert f"(means: {best:.4g})" in said.splitlines()[-3]
    assert said.splitlines()[-1].startswith("look at")

    toy("floors")
    again = table(tmp_path / "runs/toy/floors_0/floors.csv")
    assert again == rows


def test_a_comparison_has_a_row_of_the_best_floor(toy, tmp_path, capsys):
    toy("compare", "--reductions=mean,max")
    folder = tmp_path / "runs/toy/comparison_0"
    accuracies = [float(row["acc"]) for row in table(folder / "floors.csv") if row["floor"] == "means"]
    pooled = [float(row["acc"]) for row in table(folder / "mean/crossval.csv")]
    mean, sd = np.mean(accuracies), np.std(accuracies, ddof=1)
    text = (folder / "comparison.md").read_text()
    assert text.count("| floor: ") == 1
    assert f"| floor: means | {mean:.4g} ± {sd:.2g} | 2 | {mean - np.mean(pooled):+.3g} [" in text
    assert "Below the floor: means: mean, max." in text


def test_parts_other_than_those_that_may_be_learned_from_are_refused(toy):
    with pytest.raises(SystemExit, match="expected --parts train or train,val, got test"):
        toy("floors", "--parts=test")
    with pytest.raises(SystemExit, match="expected --folds of 0, 1, which the data have, got 7"):
        toy("floors", "--folds=0,7")


def test_samples_need_not_say_whose_they_are():
    assert Sample("a").group is None
