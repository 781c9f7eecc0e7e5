"""Learned temperatures."""

import torch

from modalpool import Pool

X = torch.rand(2, 4, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1


def test_learned_temperatures_are_one_per_channel_and_stay_positive():
    pool = Pool("b c [t]", "softmax", channels=4, learn_temperature=True, temperature=0.5)
    assert pool.reduction.temperature.log.shape == (4,)
    optimizer = torch.optim.SGD(pool.parameters(), lr=100.0)
    pool(X.float()).sum().backward()
    optimizer.step()
    assert (pool.reduction.temperature(X) > 0).all()
