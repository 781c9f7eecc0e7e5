"""Parts of a set give what the whole gives."""

import pytest
import torch
from every import CHANNELS, EVERY, Case, close, every, make
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from modalpool import Pool

MERGING = every("its parts merge")


def places(n: int) -> torch.Tensor:
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


def in_parts(pool: Pool, x: torch.Tensor, axis: int, sizes: list[int], **per_element: torch.Tensor) -> torch.Tensor:
    """Pool ``x`` split along an axis, with everything else that is given per element split alike (axis 1)."""
    state, start = None, 0
    for size in sizes:
        sets = {name: given.narrow(1, start, size) for name, given in per_element.items()}
        state = pool.update(state, x.narrow(axis, start, size), **sets)
        start += size
    return pool.finalize(state)


@MERGING
def test_chunks_of_a_recording_give_the_whole(case: Case):
    pool = make(case, dtype=torch.float64)
    x = torch.randn(2, CHANNELS, 11, dtype=torch.float64, requires_grad=True)
    mask = torch.ones(2, 11, dtype=torch.bool)
    mask[0, 3:8] = False  # the third chunk of the first recording is all masked
    mask[1, ::3] = False
    coords = places(11)[None, :, None].expand(2, 11, 1)
    whole = pool(x, mask=mask, coords=coords)
    parts = in_parts(pool, x, 2, [4, 0, 3, 4], mask=mask, coords=coords)
    close(parts, whole, ulp=64)
    slope = torch.randn_like(whole)
    inputs = [x, *pool.parameters()]
    for got, expected in zip(
        torch.autograd.grad(parts, inputs, slope, allow_unused=True, materialize_grads=True),
        torch.autograd.grad(whole, inputs, slope, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        close(got, expected, ulp=256)


@MERGING
def test_tiles_of_a_volume_give_the_whole(case: Case):
    pool = make(case, "b c [d h w]", dtype=torch.float64, coordinates=3)
    x = torch.randn(2, CHANNELS, 4, 4, 5, dtype=torch.float64)
    coords = torch.stack(torch.meshgrid(places(4), places(4), places(5), indexing="ij"), dim=-1)[None]
    states = [
        pool.update(
            None, x[:, :, d : d + 2, :, w : w + 3], coords=coords[:, d : d + 2, :, w : w + 3].expand(2, -1, -1, -1, -1)
        )
        for d in (0, 2)
        for w in (0, 3)
    ]
    close(
        pool.finalize(pool.merge(pool.merge(states[3], states[0]), pool.merge(states[1], states[2]))), pool(x), ulp=64
    )


@MERGING
def test_parts_of_a_graph_give_the_whole(case: Case):
    pool = make(case, "[n] c", dtype=torch.float64)
    x = torch.randn(30, CHANNELS, dtype=torch.float64)
    index = torch.randint(0, 5, (30,))
    index[index == 3] = 4  # set 3 is empty everywhere
    coords = torch.rand(30, 1, dtype=torch.float64)
    state = None
    for part in (slice(0, 8), slice(8, 9), slice(9, 30)):
        state = pool.update(state, x[part], index=index[part], dim_size=5, coords=coords[part])
    close(pool.finalize(state), pool(x, index=index, dim_size=5, coords=coords), ulp=64)


@MERGING
def test_empty_value_counts_the_whole(case: Case):
    pool = make(case, empty_value=-5.0)
    x, nothing, coords = (
        torch.randn(2, CHANNELS, 3),
        torch.tensor([[False], [True]]),
        places(3)[None, :, None].expand(2, 3, 1),
    )
    state = pool.update(None, x, mask=nothing, coords=coords)
    assert (pool.finalize(state)[0] == -5).all()
    state = pool.update(state, x, coords=coords)
    both = torch.cat([x, x], dim=-1)
    mask = torch.cat([nothing.expand(2, 3), torch.ones(2, 3, dtype=torch.bool)], dim=-1)
    close(pool.finalize(state), pool(both, mask=mask, coords=torch.cat([coords, coords], dim=1)), ulp=64)


def random_state(pool: Pool, seed: int, exponent: int):
    """The state of a chunk of 0 to 6 elements, some of them masked, at any scale."""
    generator = torch.Generator().manual_seed(seed)
    n = int(torch.randint(0, 7, (), generator=generator))
    x = torch.randn(3, CHANNELS, n, generator=generator, dtype=torch.float64) * 10.0**exponent
    mask = torch.rand(3, n, generator=generator) < 0.7
    coords = torch.rand(3, n, 1, generator=generator, dtype=torch.float64)
    return pool.update(None, x, mask=mask, coords=coords)


@MERGING
@given(seeds=st.tuples(*[st.integers(0, 2**31)] * 3), exponents=st.tuples(*[st.integers(-3, 3)] * 3))
@settings(max_examples=15, deadline=None, phases=[Phase.generate])  # seeds do not shrink
def test_merge_is_associative_and_commutative(case: Case, seeds: tuple[int, ...], exponents: tuple[int, ...]):
    pool = make(case, dtype=torch.float64)
    a, b, c = (random_state(pool, seed, exponent) for seed, exponent in zip(seeds, exponents, strict=True))
    one = pool.merge(pool.merge(a, b), c)
    for other in (pool.merge(a, pool.merge(b, c)), pool.merge(c, pool.merge(b, a))):
        assert torch.equal(other.count, one.count)
        close(pool.finalize(other), pool.finalize(one), ulp=256)


@EVERY
def test_a_chunk_does_not_know_its_place(case: Case):
    pool = make(case)
    if pool.reduction.positional:
        with pytest.raises(ValueError, match="a chunk does not know its place in the whole; pass coords="):
            pool.update(None, torch.randn(2, CHANNELS, 3))
    else:
        pool.update(None, torch.randn(2, CHANNELS, 3))
