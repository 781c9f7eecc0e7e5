"""Quantiles: against torch and PyG, at any size, at any scale, with ties."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modalpool import Pool
from modalpool.arrange import arrange
from modalpool.layout import Layout
from modalpool.reductions.ranks import at_rank

INF = float("inf")


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4), q=st.floats(0, 1), seed=st.integers(0, 2**31))
def test_it_is_torchs(sizes, q, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-3, 4, (sum(sizes), 3), generator=generator).double() / 3
    index = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    order = torch.randperm(len(x), generator=generator)
    z = Pool("[n] c", "quantile", q=q)(x[order], index=index[order], dim_size=len(sizes))
    torch.testing.assert_close(z, torch.stack([part.quantile(q, dim=0) for part in x.split(sizes)]))


def test_it_is_pygs():
    aggr = pytest.importorskip("torch_geometric.nn.aggr")
    x, index = torch.randn(40, 4), torch.randint(0, 6, (40,)).sort().values
    for q in (0.0, 0.3, 0.5, 1.0):
        z = Pool("[n] c", "quantile", q=q)(x, index=index, dim_size=7)
        torch.testing.assert_close(z, aggr.QuantileAggregation(q)(x, index, dim_size=7))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_value_at_a_rank_is_exact_at_any_scale(dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 60, dtype=dtype, generator=generator)
    x = x * 10.0 ** torch.randint(-45, 38, (60,), generator=generator).to(dtype)  # among them subnormal numbers
    x[0, 0, :6] = torch.tensor([INF, -INF, 0.0, -0.0, INF, 3.0])
    arranged = arrange(Layout("b c [t]"), x)
    for rank, expected in enumerate(x.sort(-1).values[0].unbind(-1)):
        assert torch.equal(at_rank(arranged.elements, arranged.sets, torch.tensor([[rank]]).to(dtype))[0], expected)


def test_its_ends_and_its_gradient():
    x = torch.tensor([[[2.0, 7.0, 2.0, 5.0, 9.0]]], requires_grad=True)
    for q, expected in [
        (0.0, [0.5, 0, 0.5, 0, 0]),
        (0.25, [0.5, 0, 0.5, 0, 0]),
        (0.375, [0.25, 0, 0.25, 0.5, 0]),
        (0.5, [0, 0, 0, 1.0, 0]),
        (1.0, [0, 0, 0, 0, 1.0]),
    ]:
        z, w = Pool("b c [t]", "quantile", q=q)(x, return_weights=True)
        torch.testing.assert_close(w[0, 0], torch.tensor(expected))
        torch.testing.assert_close(torch.autograd.grad(z.sum(), x)[0], w)
        assert z.item() == pytest.approx(x.detach().flatten().quantile(q).item())


def test_infinities_and_what_is_not_a_number():
    x = torch.tensor([[[-INF, 1.0, 2.0, INF], [1.0, float("nan"), 2.0, 3.0]]])
    for q, expected in [(0.0, -INF), (1 / 3, 1.0), (0.5, 1.5), (0.9, INF)]:
        z = Pool("b c [t]", "quantile", q=q)(x)[0]
        assert z[0].item() == pytest.approx(expected)
        assert z[1].isnan()


def test_its_options():
    for q in (-0.1, 1.1):
        with pytest.raises(ValueError, match=f"q: expected a number from 0 to 1, got {q}"):
            Pool("b c [t]", "quantile", q=q)
    pool = Pool("b c [t]", "quantile")
    state = pool.update(None, torch.randn(1, 2, 3))
    with pytest.raises(NotImplementedError, match=r"a quantile needs all elements of a set.*pool the whole at once"):
        pool.merge(state, state)
