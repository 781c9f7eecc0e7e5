"""Draws in proportion, and their expectation."""

import pytest
import torch

from modalpool import Pool


@pytest.mark.parametrize("way", ["dense", "ragged", "parts"])
def test_stochastic_draws_in_proportion_and_expects_in_evaluation(way):
    torch.manual_seed(0)
    x = torch.tensor([1.0, 2.0, 0.0, 5.0])
    probabilities = x / x.sum()
    draws = 20_000
    pool = Pool("[n] c" if way == "ragged" else "b c [t]", "stochastic").train()
    if way == "ragged":
        z = pool(x.repeat(draws)[:, None], index=torch.arange(draws).repeat_interleave(4), dim_size=draws)
    elif way == "dense":
        z = pool(x.expand(draws, 1, 4))
    else:
        full = x.expand(draws, 1, 4)
        z = pool.finalize(pool.update(pool.update(None, full[..., :1]), full[..., 1:]))
    for value, probability in zip(x, probabilities, strict=True):
        assert (z == value).float().mean().item() == pytest.approx(probability.item(), abs=0.015)
    pool.eval()
    expected = (probabilities * x).sum()
    z = pool(x[:, None]) if way == "ragged" else pool(x.expand(1, 1, 4))
    torch.testing.assert_close(z.squeeze(), expected)
