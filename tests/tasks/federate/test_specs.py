"""Sites agree on one spec, that of all their samples, or are told what they differ in."""

import re

import pytest
import torch
from toy import ToyData

from tasks.data.problems import BadInput
from tasks.federate import agree


def test_targets_are_standardised_as_in_one_place():
    torch.manual_seed(0)
    values = [torch.randn(9, 2).double() * 3 + 1, torch.randn(4, 2).double() - 5]
    specs = [
        {
            "kind": "regression",
            "classes": ["a", "b"],
            "train_size": len(one),
            "target_mean": one.mean(0).tolist(),
            "target_std": one.std(0, correction=0).tolist(),
        }
        for one in values
    ]
    found, all_values = agree(specs), torch.cat(values)
    torch.testing.assert_close(torch.tensor(found["target_mean"]).double(), all_values.mean(0), rtol=1e-6, atol=1e-6)
    spread = all_values.std(0, correction=0)
    torch.testing.assert_close(torch.tensor(found["target_std"]).double(), spread, rtol=1e-6, atol=1e-6)
    assert found["train_size"] == 13


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_classes_are_counted_at_all_sites(kind):
    specs = [ToyData(kind, train=train, fold=fold).spec for fold, train in enumerate((30, 50))]
    found = agree(specs)
    assert found["class_counts"] == [a + b for a, b in zip(*(spec["class_counts"] for spec in specs), strict=True)]
    assert found["train_size"] == 80
    assert agree(specs[:1]) == specs[0]


def test_features_are_standardised_by_all_nodes():
    values = [torch.tensor([[0.0], [2.0]]), torch.tensor([[7.0]] * 6 + [[1.0]] * 2)]
    specs = [
        {
            **ToyData().spec,
            "feature_mean": one.mean(0).tolist(),
            "feature_std": one.std(0, correction=0).tolist(),
            "degree_histogram": [0, len(one)],
        }
        for one in values
    ]
    found, nodes = agree(specs), torch.cat(values)
    assert found["feature_mean"] == pytest.approx(nodes.mean(0).tolist())
    assert found["feature_std"] == pytest.approx(nodes.std(0, correction=0).tolist())


def test_histograms_of_other_lengths_are_added_too():
    spec = ToyData().spec
    found = agree([{**spec, "degree_histogram": [0, 3, 4]}, {**spec, "degree_histogram": [1, 2, 0, 0, 5]}])
    assert found["degree_histogram"] == [1, 5, 4, 0, 5]


def test_all_that_sites_differ_in_is_named():
    spec = ToyData().spec
    others = [spec, {**spec, "classes": ["no", "yes"]}, {**spec, "channels": 2, "rate": 1}]
    message = (
        "site 1: expected classes ['low', 'high'] as at site 0, got ['no', 'yes']\n"
        "site 2: expected channels 4 as at site 0, got 2\n"
        "site 2: expected rate None as at site 0, got 1\n"
        "prepare the data alike at all sites"
    )
    with pytest.raises(BadInput, match=re.escape(message)):
        agree(others)
