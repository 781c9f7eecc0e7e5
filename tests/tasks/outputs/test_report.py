"""The report of a run and its diagrams: curves as scikit-learn draws them, a page that opens from disk."""

import csv
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as judge

from tasks.outputs.diagrams import draw_test, precision_recall, roc
from tasks.outputs.report import write_report

SAMPLES = st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=40).filter(
    lambda samples: 0 < sum(hit for _, hit in samples) < len(samples)
)


@settings(max_examples=50, deadline=None)
@given(SAMPLES)
def test_curves_are_those_of_scikit_learn(samples):
    p, hits = np.array([one / 20 for one, _ in samples]), np.array([hit for _, hit in samples])
    x, y = roc(p, hits)
    expected = judge.roc_curve(hits, p, drop_intermediate=False)
    np.testing.assert_allclose((x, y), expected[:2], atol=1e-12)
    recall, precision = precision_recall(p, hits)
    theirs = judge.precision_recall_curve(hits, p)
    np.testing.assert_allclose(recall[1:], theirs[1][:-1][::-1], atol=1e-12)
    np.testing.assert_allclose(precision[1:], theirs[0][:-1][::-1], atol=1e-12)
    assert judge.average_precision_score(hits, p) == pytest.approx(np.sum(np.diff(recall) * precision[1:]))


@pytest.mark.parametrize(
    ("kind", "predictions", "target"),
    [
        ("binary", [[0.2, 0.8], [0.9, 0.1], [0.4, 0.6]], [1, 0, 0]),
        ("binary", [[0.2, 0.8], [0.9, 0.1]], [0, 0]),  # one class is absent
        ("multiclass", np.eye(3), [0, 1, 1]),
        ("multilabel", [[0.2, 0.8, 0.1], [0.9, 0.1, 0.2]], [[0, 1, 0], [1, 0, 0]]),
        ("regression", [[1.0], [2.0]], [[1.5], [2.5]]),
    ],
)
def test_every_kind_is_drawn(tmp_path, kind, predictions, target):
    classes = ["a", "<b>", "c"][: np.shape(predictions)[1]]
    path = draw_test(tmp_path / "test.png", kind, classes, np.array(predictions), np.array(target), None)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert draw_test(tmp_path / "none.png", kind, classes, np.array(predictions[:1]), np.array(target[:1])) is None


SUMMARY = {
    "kind": "binary",
    "classes": ["healthy", "<script>alert(1)</script>"],
    "samples": 20,
    "groups": 5,
    "positive": "<script>alert(1)</script>",
    "pool": "Pool('[n] c')",
    "test": {"acc": {"value": 0.8, "low": 0.6, "high": 0.95}, "auroc": {"value": None, "low": None, "high": None}},
    "without_leaks": {"samples": 18, "test": {"acc": {"value": 0.75, "low": 0.5, "high": 0.9}}},
    "at_threshold": {
        "threshold": 0.31,
        "chosen_on": "validation",
        "sensitivity": {"value": 0.9, "low": 0.8, "high": 1.0},
    },
    "per_class": {"healthy": {"samples": 12, "recall": 0.5, "precision": None, "f1": 0.4}},
    "by": {"site": {"oslo": {"samples": 11, "acc": 0.7}, "": {"samples": 9, "acc": 0.9}}},
    "permutation_test": {"p": {"acc": 0.004}, "permutations": 999, "shuffled": "groups"},
    "mistakes": [{"id": "=<b>1", "target": "healthy", "prediction": "ill", "picture": "maps/a b.png"}],
    "run": {
        "data": ["train: 100 samples; healthy 60, ill 40; 25 groups"],
        "ended": "stopped at epoch 28 of 80, best 8: no better val/loss for 20",
        "command": "python -m tasks fit -c a.yaml",
        "versions": {"torch": "2.11.0"},
    },
}


def test_the_page_says_everything_and_runs_nothing(tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
    with (tmp_path / "floors.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["floor", "acc"], ["majority", "0.6"], ["Weisfeiler-Leman", "0.851234"]])
    (tmp_path / "curves.png").write_bytes(b"\x89PNG curves")
    page = write_report(tmp_path).read_text()
    assert "<script" not in page
    assert not re.search(r"""(src|href)="https?:""", page)  # opens without a network
    for words in (
        "20 samples in 5 groups, which the intervals resample; the positive class is &lt;script&gt;",
        "0.6 to 0.95", "undefined", "0.004",
        "2 test samples are not independent of the training; without them acc is 0.75",
        "train: 100 samples", "stopped at epoch 28 of 80, best 8", "Weisfeiler-Leman", "0.8512", "p &gt; 0.31", "oslo",
        "(empty)", "maps/a%20b.png", "=&lt;b&gt;1: healthy, predicted ill", "python -m tasks fit -c a.yaml",
        "torch 2.11.0", "data:image/png;base64,",
    ):  # fmt: skip
        assert words in page, words

    class Closed(HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag not in ("meta", "img"):
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    parser = Closed()
    parser.open = []
    parser.feed(page)
    assert parser.open == []


def test_what_there_is_not_has_no_heading(tmp_path):
    bare = {key: SUMMARY[key] for key in ("kind", "classes", "samples", "pool", "test")}
    (tmp_path / "summary.json").write_text(json.dumps(bare))
    page = write_report(tmp_path).read_text()
    assert re.findall(r"<h2>(.*?)</h2>", page) == ["The test"]
