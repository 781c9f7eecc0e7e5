"""Attentive statistics: against the paper's equations (in reference.py, for every layout), and where they are plain."""

import numpy as np
import pytest
import reference
import torch

from modalpool import Pool


@pytest.mark.parametrize("context", [False, True])
def test_they_are_the_papers(context):
    torch.manual_seed(0)
    pool = Pool("b c [t]", "statistics", channels=6, score_channels=4, context=context).double()
    x = torch.randn(2, 6, 15, dtype=torch.float64)
    lengths = torch.tensor([15, 9])
    z = pool(x, lengths=lengths).detach().numpy()
    for i, n in enumerate(lengths.tolist()):
        frames = x[i, :, :n].T.numpy()
        np.testing.assert_allclose(z[i], reference.statistics(frames, np.ones(n), None, pool.reduction)[0], rtol=1e-10)


def test_without_a_score_they_are_mean_and_std():
    pool = Pool("b c [t]", "statistics", channels=3)
    torch.nn.init.zeros_(pool.reduction.score.weight)
    x = torch.randn(2, 3, 50)
    torch.testing.assert_close(pool(x), Pool("b c [t]", ["mean", "std"])(x))


def test_a_large_offset_costs_nothing():
    pool, x = Pool("b c [t]", "statistics", channels=3), torch.randn(1, 3, 200)
    torch.nn.init.zeros_(pool.reduction.score.weight)
    x = x - x.mean(-1, keepdim=True)
    torch.testing.assert_close(pool(x + 1000)[0, 3:], pool(x)[0, 3:], rtol=1e-3, atol=0)


@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("size", [1e-30, 1e20, 1e30])
def test_numbers_of_any_magnitude_have_a_finite_deviation(size, context):
    """Whose square is none of their type's; in two chunks too."""
    pool, x = Pool("b c [t]", "statistics", channels=3, context=context), torch.randn(2, 3, 50)
    torch.nn.init.zeros_(pool.reduction.score.weight)
    wide = (x * size).requires_grad_()
    z = pool(wide)
    exact = x.double()
    expected = torch.cat([exact.mean(-1), exact.std(-1, correction=0)], -1)
    torch.testing.assert_close(z.double() / size, expected, rtol=1e-5, atol=1e-6)
    assert torch.autograd.grad(z.sum(), wide)[0].isfinite().all()
    if not context:
        state = pool.update(pool.update(None, wide[..., :20]), wide[..., 20:])
        torch.testing.assert_close(pool.finalize(state), z)


def test_what_sees_the_whole_does_not_merge():
    pool = Pool("b c [t]", "statistics", channels=3, context=True)
    state = pool.update(None, torch.randn(1, 3, 3))
    with pytest.raises(NotImplementedError, match=r"context=True looks at the mean .* use context=False"):
        pool.merge(state, state)
