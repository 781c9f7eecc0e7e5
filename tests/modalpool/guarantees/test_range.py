"""Numbers as far from one as their type goes, limits of temperatures, and sets of any size."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modalpool import Pool

F64 = torch.float64


def in_form(name, form, x, **options):
    """One set of numbers ``(n,)`` pooled: dense, masked, weighted, ragged or in two chunks."""
    dense = form in ("dense", "mask", "weight", "chunks")
    pool = Pool("b c [t]" if dense else "[n] c", name, channels=1, **options).to(x.dtype)
    if form == "chunks":
        half = len(x) // 2
        state = pool.update(pool.update(None, x[None, None, :half]), x[None, None, half:])
        return pool.finalize(state)[0, 0]
    if dense:
        more = torch.cat([x, x.new_full((2,), torch.nan)])
        there = torch.arange(len(more)) < len(x)
        sets = {"mask": {"mask": there[None]}, "weight": {"weight": there[None].to(x.dtype)}}.get(form, {})
        return pool(more[None, None] if sets else x[None, None], **sets)[0, 0]
    index = torch.zeros(len(x), dtype=torch.long)
    return pool(x[:, None], **({"index": index, "dim_size": 1} if form == "index" else {}))[0, 0]


FORMS = pytest.mark.parametrize("form", ["dense", "mask", "weight", "index", "one", "chunks"])


@FORMS
@settings(max_examples=25)
@given(power=st.integers(-36, 34), offset=st.sampled_from([0.0, 1.0, 100.0]), seed=st.integers(0, 99))
def test_deviations_of_any_magnitude(form, power, offset, seed):
    generator = torch.Generator().manual_seed(seed)
    wide = (torch.randn(6, generator=generator, dtype=F64) + offset) * 10.0**power
    x = wide.float().requires_grad_()
    z = in_form("std", form, x)
    (slope,) = torch.autograd.grad(z, x)
    exact = x.detach().double().requires_grad_()
    expected = exact.std(correction=0)
    torch.testing.assert_close(z.double(), expected, rtol=2e-5, atol=0)
    torch.testing.assert_close(slope.double(), torch.autograd.grad(expected, exact)[0], rtol=1e-4, atol=1e-4)


@FORMS
def test_what_is_constant_has_no_deviation_at_any_magnitude(form):
    for value in (0.0, 1e-30, 1.0, 1e20):
        x = torch.full((6,), value, requires_grad=True)
        z = in_form("std", form, x)
        assert z == 0
        assert (torch.autograd.grad(z, x)[0] == 0).all()


def test_sets_of_one_call_may_differ_by_forty_orders_of_magnitude():
    scale = torch.tensor([1e-20, 1.0, 1e20])
    x = torch.randn(3, 1, 50) * scale[:, None, None]
    torch.testing.assert_close(
        Pool("b c [t]", "std")(x).double() / scale[:, None], x.double().std(2, correction=0) / scale[:, None]
    )
    wide = x[:, 0].flatten()[:, None]
    ragged = Pool("[n] c", "std")(wide, ptr=torch.tensor([0, 50, 100, 150]))
    torch.testing.assert_close(ragged, Pool("b c [t]", "std")(x))


@FORMS
@pytest.mark.parametrize("name", ["var", "std"])
@pytest.mark.parametrize("correction", [1, 2.5])
def test_corrections_are_torchs(form, name, correction):
    x = torch.randn(7, dtype=F64)
    z = in_form(name, form, x, correction=correction)
    torch.testing.assert_close(z, getattr(torch, name)(x, correction=correction))
    assert in_form(name, form, x[:2], correction=2) == 0


def test_a_correction_has_exact_shares():
    x, weight = torch.randn(2, 3, 9, dtype=F64), torch.rand(2, 9, dtype=F64) + 1
    for name in ("var", "std"):
        z, w = Pool("b c [t]", name, correction=1)(x, weight=weight, return_weights=True)
        torch.testing.assert_close((w * x).sum(-1), z)
    with pytest.raises(ValueError, match="correction: expected a number >= 0, got -1"):
        Pool("b c [t]", "std", correction=-1)


@FORMS
@settings(max_examples=25)
@given(power=st.floats(-3, 9), spread=st.sampled_from([1e-3, 1.0, 30.0]), seed=st.integers(0, 99))
def test_a_smooth_maximum_is_right_at_any_temperature(form, power, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    x = (spread * torch.randn(8, generator=generator)).requires_grad_()
    z = in_form("logsumexp", form, x, temperature=10.0**power, normalize=True)
    exact = x.detach().double().requires_grad_()
    near = exact.amax().detach()
    expected = near + 10.0**power * ((exact - near) / 10.0**power).expm1().mean().log1p()
    torch.testing.assert_close(z.double(), expected, rtol=1e-5, atol=1e-6 * spread)
    slopes = torch.autograd.grad(z, x)[0].double(), torch.autograd.grad(expected, exact)[0]
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["softmax", "attention"])
@settings(max_examples=50)
@given(values=st.lists(st.floats(-(2.0**120), 2.0**120, width=32), min_size=2, max_size=6), cut=st.integers(0, 6))
def test_the_coldest_chunks_merge_at_any_magnitude(name, values, cut):
    pool = Pool("b c [t]", name, channels=1, temperature=0.0)
    if name == "attention":
        torch.nn.init.ones_(pool.reduction.scores.content.weight)
    x = torch.tensor(values)[None, None]
    state = None
    for chunk in (x[..., :cut], x[..., cut:]):
        state = pool.update(state, chunk)
    torch.testing.assert_close(pool.finalize(state), pool(x))
    torch.testing.assert_close(pool(x), x.amax(2))


def test_ties_in_several_chunks_are_shared_by_all_their_elements():
    pool = Pool("b c [t]", "attention", channels=2, temperature=0.0)
    torch.nn.init.zeros_(pool.reduction.scores.content.weight)
    x = torch.randn(1, 2, 7)
    state = pool.update(pool.update(None, x[..., :2]), x[..., 2:])
    torch.testing.assert_close(pool.finalize(state), x.mean(2))


def test_a_state_counts_beyond_what_float32_can():
    pool = Pool("b c [t]", "sum")
    state = pool.update(None, torch.ones(1, 1, 4))
    state = pool.update(replace(state, count=torch.full_like(state.count, 2.0**24)), torch.ones(1, 1, 1))
    assert state.count.item() == 2**24 + 1
