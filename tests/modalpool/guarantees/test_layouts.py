"""The layout does not matter, nor a set's batch-mates, nor the order of its elements, forward and backward."""

import numpy as np
import pytest
import torch
from every import CHANNELS, EVERY, make, run
from forms import FORMS, SIZES, first, lay, make_sets, read
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import pooled

RAGGED = {}


@EVERY
@pytest.mark.parametrize(
    ("form", "weighted"),
    [(form, True) for form in FORMS] + [(form, False) for form in ("mask", "lengths", "index", "ptr", "jagged")],
)
def test_every_layout_gives_the_loops_over_sets(case, form, weighted):
    sets = make_sets(weighted=weighted)
    pool, _, z, grad = run(case, form, sets, weighted=weighted)
    start = 0
    for s, n in enumerate(SIZES):
        one = slice(start, start + n)
        expected = pooled(sets.x[one].numpy(), sets.weight[one].numpy(), sets.coords[one].numpy(), pool.reduction)
        np.testing.assert_allclose(z[s].numpy(), expected, rtol=1e-11, atol=1e-12)
        start += n
    # The gradient is the one of the ragged form, whose forward the loops above have checked.
    if (case.name, weighted) not in RAGGED:
        RAGGED[case.name, weighted] = run(case, "ptr", sets, weighted=weighted)[3]
    ragged = RAGGED[case.name, weighted]
    form_ = lay(form, sets, weighted=weighted, coords=pool.reduction.positional)
    torch.testing.assert_close(read(form_, grad), ragged, rtol=1e-9, atol=1e-11)


@EVERY
@pytest.mark.parametrize("form", ["mask", "ptr", "index"])
def test_batch_mates_and_order_do_not_matter(case, form):
    sets = make_sets()
    _, _, z, grad = run(case, form, sets)
    others = make_sets(seed=1)
    mixed = sets._replace(x=torch.cat([sets.x[:5], 100 * others.x[5:]]))
    _, laid, other, other_grad = run(case, form, mixed)
    torch.testing.assert_close(other[0], z[0], rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(read(laid, other_grad)[:5], read(laid, grad)[:5], rtol=1e-11, atol=1e-13)
    swap = torch.tensor([3, 0, 4, 1, 2, 5, 6, 7])
    shuffled = sets._replace(x=sets.x[swap], coords=sets.coords[swap])
    pool = make(case, "[n] c", dtype=torch.float64)
    if pool.reduction.positional and form == "ptr":
        laid = lay(form, shuffled, coords=True)
        result = make(case, laid.layout, dtype=torch.float64)(laid.x, **laid.sets)
        result = first(laid, result, vectors=pool.vectors is not None)
    else:
        _, laid, result, _ = run(case, form, shuffled)
    torch.testing.assert_close(result, z, rtol=1e-12, atol=1e-13)


@EVERY
@settings(max_examples=6, deadline=None)
@given(sizes=st.lists(st.integers(0, 7), min_size=1, max_size=6), seed=st.integers(0, 2**31))
def test_any_sizes_any_order(case, sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor(sizes)
    x = torch.randn(sum(sizes), CHANNELS, generator=generator, dtype=torch.float64)
    index = torch.repeat_interleave(torch.arange(len(sizes)), lengths)
    order = torch.randperm(len(x), generator=generator)
    ptr = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
    ragged, dense = (make(case, layout, dtype=torch.float64) for layout in ("[n] c", "b [n] c"))
    coords = {}
    if ragged.reduction.positional:
        coords = {"coords": torch.cat([(torch.arange(n) + 0.5) / max(n, 1) for n in sizes])[order, None].double()}
    expected = ragged(x, ptr=ptr)
    torch.testing.assert_close(ragged(x[order], index=index[order], dim_size=len(sizes), **coords), expected)
    padded = torch.full((len(sizes), max(*sizes, 1, 1), CHANNELS), float("nan"), dtype=torch.float64)
    for s, part in enumerate(x.split(sizes)):
        padded[s, : len(part)] = part
    torch.testing.assert_close(dense(padded, lengths=lengths), expected)


@EVERY
def test_a_weight_is_a_multiplicity(case):
    x = torch.randn(3, 4, dtype=torch.float64).abs() + 0.1
    coords = torch.tensor([[0.1], [0.6], [0.9]], dtype=torch.float64)
    many = torch.tensor([2.0, 0.0, 3.0], dtype=torch.float64)
    pool = make(case, "[n] c", dtype=torch.float64)
    place = {"coords": coords} if pool.reduction.positional else {}
    repeat = torch.tensor([0, 0, 2, 2, 2])
    places = {"coords": coords[repeat]} if pool.reduction.positional else {}
    torch.testing.assert_close(pool(x, weight=many, **place), pool(x[repeat], **places), rtol=1e-9, atol=1e-11)
