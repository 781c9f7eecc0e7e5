"""What the frame gives a rule: the size of each set, if it asks."""

import pytest
import torch

from modalpool import Pool
from modalpool.reductions import Count
from modalpool.sets import Sets


@pytest.mark.parametrize("reduction", ["mean", "sum", "max", "min", "softmax", "logsumexp", "attention"])
@pytest.mark.parametrize("layout", ["b c [t]", "[n] c"])
def test_a_size_that_no_rule_reads_is_not_counted(reduction, layout, monkeypatch):
    def count(*_):
        raise AssertionError("somebody asked for the size of the sets")

    monkeypatch.setattr(Sets, "count", count)
    pool, x = Pool(layout, reduction, channels=3), torch.randn(4, 3, 5)
    if layout == "b c [t]":
        pool(x)
    else:
        pool(x.mT.flatten(0, 1), index=torch.arange(4).repeat_interleave(5), dim_size=4)


def test_a_count_is_worked_out_once_and_adds_up():
    asked = []
    a, b = (Count(lambda n=n: asked.append(n) or torch.tensor([[n], [0.0]])) for n in (2.0, 3.0))
    both = a + b
    first = both[:1]
    assert asked == []
    assert both().tolist() == [[5.0], [0.0]]
    assert first().tolist() == [[5.0]]
    assert both.size().tolist() == [[5.0], [1.0]]
    assert asked == [2.0, 3.0]
    assert both.blank(torch.ones(2, 3)).tolist() == [[1.0] * 3, [0.0] * 3]
    assert both.blank(torch.ones(2, 2, 1)).tolist() == [[[1.0], [1.0]], [[0.0], [0.0]]]
    full = Count(lambda: asked.append(0.0), lambda: True)
    assert full.blank(torch.ones(2, 3)).sum() == 6
    assert asked == [2.0, 3.0]


def test_what_does_not_merge_says_why():
    pool = Pool("b c [t]", ["mean", "attention"], channels=3, temperature_scaling="log_n", reference_size=4)
    state = pool.update(None, torch.randn(2, 3, 4))
    with pytest.raises(NotImplementedError, match=r"log_n.*size of the whole set.*use temperature_scaling='none'"):
        pool.merge(state, state)
