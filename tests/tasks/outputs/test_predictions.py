"""predictions.csv and summary.json: all that a reader needs to compute the numbers again, from the table alone."""

import csv
import json

import numpy as np
import pytest
import torch
from sklearn import metrics as judge
from toy import ToyTask

from tasks.data.base import Sample
from tasks.outputs.predictions import Row, report, summarise, values, write_predictions

SPEC = {"kind": "binary", "classes": ["healthy", "ill"], "channels": 4, "class_counts": [1, 1]}


@pytest.fixture
def task():
    return ToyTask(SPEC)


def rows_of(count=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    p, draws = torch.rand(count, generator=generator), torch.rand(count, generator=generator)
    return [
        Row(
            f"s{i}",
            torch.tensor([1 - p[i], p[i]]),
            target=torch.tensor(int(draws[i] < p[i])),
            part="test",
            fold=2,
            sample=Sample(f"s{i}", f"g{i // 4}", {"site": "abc"[i % 3]}),
        )
        for i in range(count)
    ]


def test_the_table_gives_the_summary_back(tmp_path, task):
    rows = rows_of()
    task.operating_point.threshold = 0.4
    write_predictions(tmp_path / "p.csv", rows, task, by=["site"])
    summary = summarise(rows, task, resamples=20, by=["site"])
    table = list(csv.DictReader((tmp_path / "p.csv").open()))
    assert list(table[0]) == ["id", "target", "prediction", "p(healthy)", "p(ill)", "part", "fold", "group", "site"]
    t, p = np.array([row["target"] == "ill" for row in table]), np.array([float(row["p(ill)"]) for row in table])
    assert {row["fold"] for row in table} == {"2"}
    assert summary["groups"] == len({row["group"] for row in table}) == 15
    assert summary["positive"] == "ill"
    assert values(summary)["auroc"] == pytest.approx(judge.roc_auc_score(t, p), abs=1e-4)
    assert summary["confusion"] == judge.confusion_matrix(t, p > 0.5).tolist()
    assert summary["at_threshold"]["sensitivity"]["value"] == pytest.approx(judge.recall_score(t, p > 0.4), abs=1e-5)
    sites = np.array([row["site"] for row in table])
    for site, found in summary["by"]["site"].items():
        here = sites == site
        assert found["samples"] == here.sum()
        assert found["acc"] == pytest.approx(judge.accuracy_score(t[here], p[here] > 0.5), abs=1e-5)
    report_ = judge.classification_report(t, p > 0.5, output_dict=True, target_names=SPEC["classes"])
    for name, found in summary["per_class"].items():
        assert found["recall"] == pytest.approx(report_[name]["recall"])
        assert found["precision"] == pytest.approx(report_[name]["precision"])
        assert found["f1"] == pytest.approx(report_[name]["f1-score"])


def test_what_is_undefined_is_null_and_said(task):
    rows = [row._replace(target=torch.tensor(0)) for row in rows_of()]
    summary = summarise(rows, task, resamples=5)
    text = json.dumps(summary, allow_nan=False)
    assert json.loads(text)["test"]["auroc"] == {"value": None, "low": None, "high": None}
    assert np.isnan(values(summary)["auroc"])
    assert "test auroc: undefined, a class is absent" in list(report(summary))


def test_the_lines_name_the_positive_class_and_the_groups(task):
    lines = list(report(summarise(rows_of(), task, resamples=5, permutations=9, by=["site"])))
    assert lines[0] == "test: 60 samples, in 15 groups, which intervals resample; positive: ill"
    assert "p: 9 permutations of the labels of samples within groups" in lines
    assert any(line.startswith("site a: 20 samples, acc ") for line in lines)
    assert any("confusion" in line for line in lines)


def test_no_cell_is_a_formula(tmp_path, task):
    rows = [rows_of(1)[0]._replace(id=name) for name in ("=cmd|' /C calc'!A0", "+1+1", "@x", "-a", "-0.5", "plain")]
    write_predictions(tmp_path / "p.csv", rows, task)
    ids = [row["id"] for row in csv.DictReader((tmp_path / "p.csv").open())]
    assert ids == ["'=cmd|' /C calc'!A0", "'+1+1", "'@x", "'-a", "-0.5", "plain"]


def test_the_accuracy_without_leaks_stands_beside_the_accuracy(task):
    rows = [row._replace(leaked=i % 5 == 0) for i, row in enumerate(rows_of())]
    summary = summarise(rows, task, resamples=5)
    hits = [(float(row.predictions[1]) > 0.5) == bool(row.target) for row in rows if not row.leaked]
    assert summary["without_leaks"]["samples"] == 48
    assert values(summary)["acc_without_leaks"] == pytest.approx(np.mean(hits))
    line = next(line for line in report(summary) if "independent" in line)
    assert line.endswith("without the 12 samples that are not independent of the training")
    clean = summarise([row._replace(leaked=False) for row in rows], task, resamples=5)
    assert values(clean)["acc_without_leaks"] == values(clean)["acc"]
    assert not any("independent" in line for line in report(clean))
    assert "without_leaks" not in summarise(rows_of(), task, resamples=5)
