"""Every smooth rule ends where it says: at the mean, the sum or the maximum."""

import math

import pytest
import torch

from modalpool import Pool

X = torch.rand(2, 4, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1


@pytest.mark.parametrize(
    ("name", "options", "limit"),
    [
        ("power", {"p": 1.0}, "mean"),
        ("power", {"p": 400.0}, "max"),
        ("softmax", {"temperature": 0.0}, "max"),
        ("softmax", {"temperature": 1e-4}, "max"),
        ("softmax", {"temperature": math.inf}, "mean"),
        ("softmax", {"temperature": 1e7}, "mean"),
        ("logsumexp", {"temperature": 0.0}, "max"),
        ("logsumexp", {"temperature": 1e-4}, "max"),
        ("logsumexp", {"temperature": math.inf, "normalize": True}, "mean"),
        ("logsumexp", {"temperature": 1e7, "normalize": True}, "mean"),
        ("attention", {"temperature": math.inf}, "mean"),
        ("attention", {"temperature": 1e8}, "mean"),
        ("size_law", {"beta": 0.0}, "mean"),
        ("size_law", {"beta": 1.0}, "sum"),
        ("size_law", {"law": "mixture", "beta": 0.0}, "mean"),
        ("size_law", {"law": "mixture", "beta": 1.0}, "sum"),
    ],
)
def test_limits(name, options, limit):
    pool = Pool("b c [t]", name, channels=4, **options).double()
    torch.testing.assert_close(
        pool(X), Pool("b c [t]", limit)(X), rtol=1e-2 if options.get("p") == 400.0 else 1e-6, atol=1e-6
    )
