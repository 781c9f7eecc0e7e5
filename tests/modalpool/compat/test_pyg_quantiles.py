"""Quantiles and medians beside PyG's own, and beside torch's."""

import pytest
import torch
from torch_geometric.nn import aggr

from modalpool import Pool
from modalpool.compat import pyg

INDEX = torch.tensor([3, 0, 0, 3, 1, 3, 0, 3, 3, 1, 0, 3])


def elements(*channels):
    return torch.randn(len(INDEX), *channels, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("interpolation", ["linear", "lower", "higher", "midpoint"])
@pytest.mark.parametrize("q", [0.0, 0.1, 0.5, 0.77, 1.0, [0.25, 0.5, 0.9]])
def test_quantiles_are_pygs(q, interpolation):
    x = elements(5)
    ours, theirs = (library.QuantileAggregation(q, interpolation, fill_value=-2.0) for library in (pyg, aggr))
    got, expected = ours(x, INDEX, dim_size=5), theirs(x, INDEX, dim_size=5)
    torch.testing.assert_close(got, expected.reshape(got.shape), rtol=1e-5, atol=1e-6)  # PyG keeps q in float32
    assert (got[[2, 4]] == -2).all()
    assert repr(ours) == repr(theirs)


def test_medians_are_pygs():
    x = elements(3, 4)
    torch.testing.assert_close(pyg.MedianAggregation()(x, INDEX, dim=0), aggr.MedianAggregation()(x, INDEX, dim=0))
    assert repr(pyg.MedianAggregation()) == repr(aggr.MedianAggregation())


@pytest.mark.parametrize("interpolation", ["linear", "lower", "higher", "nearest", "midpoint"])
@pytest.mark.parametrize("q", [0.0, 0.3, 0.5, 1.0])
def test_interpolations_are_torchs(q, interpolation):
    for count in (1, 2, 5, 6):
        x = torch.randn(1, 3, count, dtype=torch.float64, generator=torch.Generator().manual_seed(count))
        z = Pool("b c [t]", "quantile", q=q, interpolation=interpolation)(x)
        torch.testing.assert_close(z[0], torch.quantile(x[0], q, dim=1, interpolation=interpolation))


def test_bad_options_are_answered_as_pyg_answers():
    bad = [({"q": []}, "at least one"), ({"q": -1.0}, "in the range"), ({"q": 0.5, "interpolation": "x"}, "Invalid")]
    for options, words in bad:
        for library in (pyg, aggr):
            with pytest.raises(ValueError, match=words):
                library.QuantileAggregation(**options)
    with pytest.raises(ValueError, match=r"interpolation: expected one of linear, .*, got 'x'"):
        Pool("b c [t]", "quantile", interpolation="x")
