"""Curves of vanishing elements, and what is left of a map when the weights are forgotten."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from tasks.maps.faithfulness import SHARES, area, deletion, insertion, randomised, similarity


def linear_case(seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = [torch.randn(n, generator=generator) for n in (10, 17)]
    return x, lambda hidden: torch.stack([torch.where(h, 0, one).sum() for one, h in zip(x, hidden, strict=True)])


def test_curves_of_a_sum_are_sums_of_the_sorted_elements():
    x, score = linear_case()
    gone, come = deletion(score, x), insertion(score, x)
    for i, one in enumerate(x):
        ordered = sorted(one.tolist(), reverse=True)
        for j, share in enumerate(SHARES):
            k = round(share * len(ordered))
            assert gone[i, j].item() == pytest.approx(sum(ordered[k:]), abs=1e-5)
            assert come[i, j].item() == pytest.approx(sum(ordered[:k]), abs=1e-5)


def test_the_exact_map_beats_every_other_order():
    x, score = linear_case()
    best = area(deletion(score, x)), area(insertion(score, x))
    for seed in range(10):
        others = [one[torch.randperm(len(one), generator=torch.Generator().manual_seed(seed))] for one in x]
        assert (area(deletion(score, others)) >= best[0] - 1e-6).all()
        assert (area(insertion(score, others)) <= best[1] + 1e-6).all()


def test_area_is_numpys():
    curves = torch.rand(3, len(SHARES))
    np.testing.assert_allclose(area(curves), np.trapezoid(curves.numpy(), SHARES, axis=1), rtol=1e-5)
    torch.testing.assert_close(area(torch.full((2, len(SHARES)), 0.25)), torch.full((2,), 0.25))


def test_equal_values_go_in_random_order_that_is_always_the_same():
    seen = []
    shape = (4, 25)
    for _ in range(2):
        deletion(lambda hidden: seen.append(hidden[0]) or torch.zeros(1), [torch.zeros(shape)], shares=(0.5,))
    assert torch.equal(seen[0], seen[1])
    assert seen[0].sum() == 50
    assert 0 < seen[0][0].sum() < 25  # not the first half


def test_forgetting_leaves_the_trained_module_alone_and_nothing_learned():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
            self.query = nn.Parameter(torch.arange(50.0))

    module = Own()
    module.net[1].running_mean.fill_(9.0)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    blank, state = randomised(module), torch.random.get_rng_state()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not torch.equal(blank.net[0].weight, module.net[0].weight)
    assert (blank.net[1].running_mean == 0).all()
    assert not torch.equal(blank.query, module.query)
    assert torch.equal(blank.query.sort().values, module.query.sort().values)
    assert torch.equal(randomised(module).net[0].weight, blank.net[0].weight)  # the same seed
    assert not torch.equal(randomised(module, seed=1).net[0].weight, blank.net[0].weight)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_similarity_is_spearmans():
    a, b = torch.randn(5, 6), torch.randn(5, 6)
    assert similarity(a, b) == pytest.approx(spearmanr(a.flatten(), b.flatten()).statistic)
    assert similarity(a, a.exp()) == pytest.approx(1.0)
    assert similarity(a, torch.zeros(5, 6)) == 0.0
