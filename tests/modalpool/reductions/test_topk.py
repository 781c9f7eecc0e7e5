"""The mean of the largest: against torch's sort, and what ties, multiplicities and small sets mean."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modalpool import Pool

INF = float("inf")


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=4), k=st.integers(1, 6), seed=st.integers(0, 2**31))
def test_it_is_the_mean_of_torchs_largest(sizes, k, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-3, 4, (sum(sizes), 3), generator=generator).double().requires_grad_()  # with many ties
    index = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    order = torch.randperm(len(x), generator=generator)
    z = Pool("[n] c", "topk", k=k)(x[order], index=index[order], dim_size=len(sizes))
    parts = [part.topk(min(k, len(part)), 0).values.sum(0) / max(min(k, len(part)), 1) for part in x.split(sizes)]
    torch.testing.assert_close(z, torch.stack(parts))
    (grad,) = torch.autograd.grad(z.sum(), x)
    for n, part, mine in zip(sizes, x.split(sizes), grad.split(sizes), strict=True):
        torch.testing.assert_close(mine.sum(0), torch.full((3,), 1.0 if n else 0.0, dtype=torch.float64))
        assert all((mine[part == value].unique().numel() <= 3) for value in part.unique())  # a channel's ties share


@pytest.mark.parametrize("k", [0.1, 0.37, 0.5, 0.9])
def test_a_share_counts_the_last_in_part_and_repeating_a_set_changes_nothing(k):
    x = torch.randn(2, 3, 11, dtype=torch.float64)
    pool = Pool("b c [t]", "topk", k=k)
    places = max(k * 11, 1)
    weight = (places - torch.arange(11)).clamp(0, 1).double()
    expected = (x.sort(-1, descending=True).values * weight).sum(-1) / places
    torch.testing.assert_close(pool(x), expected)
    if places > 1:
        torch.testing.assert_close(pool(x.repeat(1, 1, 3)), expected)


def test_ties_share_and_multiplicities_take_places():
    x = torch.tensor([[[3.0, 3.0, 1.0, 2.0]]], requires_grad=True)
    for k, expected in [
        (1, [0.5, 0.5, 0, 0]),
        (3, [1 / 3, 1 / 3, 0, 1 / 3]),
        (9, [0.25] * 4),
        (0.25, [0.5, 0.5, 0, 0]),
    ]:
        z, w = Pool("b c [t]", "topk", k=k)(x, return_weights=True)
        torch.testing.assert_close(w[0, 0], torch.tensor(expected))
        torch.testing.assert_close(torch.autograd.grad(z.sum(), x)[0], w)
    weight = torch.tensor([[2.0, 0.5, 1.0, 0.0]])
    x = torch.tensor([[[5.0, 4.0, 1.0, 9.0]]])
    assert Pool("b c [t]", "topk", k=2)(x, weight=weight).item() == 5.0
    assert Pool("b c [t]", "topk", k=3)(x, weight=weight).item() == pytest.approx((10 + 0.5 * 4) / 2.5)
    assert Pool("b c [t]", "topk", k=4)(x, weight=weight).item() == pytest.approx((10 + 2 + 1) / 3.5)
    assert Pool("b c [t]", "topk", k=0.5)(x, weight=weight).item() == 5.0  # 1.75 of 3.5


def test_a_chunk_that_has_fewer_loses_no_infinity():
    pool, state = Pool("b c [t]", "topk", k=3), None
    for values in ([5.0], [-INF], [], [1.0]):
        state = pool.update(state, torch.tensor(values).reshape(1, 1, -1))
    assert pool.finalize(state).item() == -INF
    assert pool.finalize(pool.update(state, torch.tensor([[[2.0]]]))).item() == pytest.approx(8 / 3)


@pytest.mark.parametrize("k", [2, 0.5])
def test_what_is_not_a_number_stays(k):
    z = Pool("b c [t]", "topk", k=k)(torch.tensor([[[1.0, float("nan"), 2.0], [1.0, 2.0, 3.0]]]))
    assert z.isnan().tolist() == [[True, False]]


def test_its_options():
    assert Pool("b c [t]", "topk", k=3.0).reduction.k == 3
    for k in (0, -1, 1.5, 0.0):
        with pytest.raises(ValueError, match=f"k: expected a positive whole number, or a share .*, got {k}"):
            Pool("b c [t]", "topk", k=k)
    pool = Pool("b c [t]", "topk", k=0.5)
    state = pool.update(None, torch.randn(1, 2, 3))
    with pytest.raises(NotImplementedError, match=r"k=0.5 is a share of the whole set.*give a number of elements"):
        pool.merge(state, state)


def test_ties_share_by_their_multiplicities():
    x = torch.tensor([[[3.0, 1.0, 3.0, 2.0]]], requires_grad=True)
    z, w = Pool("b c [t]", "topk", k=2)(x, weight=torch.tensor([[2.0, 1.0, 1.0, 1.0]]), return_weights=True)
    torch.testing.assert_close(w[0, 0], torch.tensor([2 / 3, 0, 1 / 3, 0]))
    torch.testing.assert_close(torch.autograd.grad(z.sum(), x)[0], w)
