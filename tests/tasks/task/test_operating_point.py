"""The threshold of a binary task's decisions, beside an exhaustive search."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.task.operating_point import OperatingPoint


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 99), st.booleans()), min_size=2, max_size=30))
def test_no_other_threshold_does_better(samples):
    p, target = torch.tensor([one / 100 for one, _ in samples]), torch.tensor([int(hit) for _, hit in samples])
    point = OperatingPoint()
    for rows in torch.arange(len(p)).split(7):
        point.update(p[rows], target[rows])
    point.choose()
    if target.min() == target.max():
        assert math.isnan(point.threshold)
        return

    def youden(threshold):
        decided = p > threshold
        return (decided & (target == 1)).sum() / (target == 1).sum() - (decided & (target == 0)).sum() / (
            target == 0
        ).sum()

    assert youden(point.threshold) >= max(youden(step / 200) for step in range(200)) - 1e-6


def test_each_validation_chooses_anew():
    point = OperatingPoint()
    point.choose()
    assert math.isnan(point.threshold)
    point.update(torch.tensor([0.1, 0.9]), torch.tensor([0, 1]))
    point.choose()
    assert point.threshold == 0.5
    point.update(torch.tensor([0.6, 0.8]), torch.tensor([0, 1]))
    point.choose()
    assert point.threshold == 0.7
