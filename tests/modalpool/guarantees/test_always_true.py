"""The eight lines that hold for every reduction in every layout, forward and backward."""

import numpy as np
import pytest
import torch
from every import BY_NAME, EVERY, make
from forms import FORMS, SIZES, first, give, lay, make_sets, read
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import pooled

from modalpool import Layout, Pool

FORM = pytest.mark.parametrize("form", FORMS)


def slope_of(z):
    """Some slope that is the same for the same output."""
    return torch.linspace(-1.0, 2.0, z[0].numel(), dtype=z.dtype).reshape(z[0].shape).expand_as(z)


def run(case, name, sets, **options):
    """Output (3, K, C) and the gradient of every element (8, C) in one form."""
    weighted = options.pop("weighted", False)
    poison = options.pop("poison", 0.0)
    pool = make(case, "[n] c", dtype=sets.x.dtype)
    coords = pool.reduction.positional
    form = lay(name, sets, weighted=weighted, coords=coords, poison=poison)
    pool = make(case, form.layout, dtype=sets.x.dtype, **options)
    x = form.x.clone().requires_grad_()
    z = first(form, pool(give(form, x), **form.sets), vectors=pool.vectors is not None)
    (grad,) = torch.autograd.grad(z, x, slope_of(z))
    return pool, form, z.detach(), grad


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
    _, _, _, ragged = run(case, "ptr", sets, weighted=weighted)
    form_ = lay(form, sets, weighted=weighted, coords=pool.reduction.positional)
    torch.testing.assert_close(read(form_, grad), ragged, rtol=1e-9, atol=1e-11)


@EVERY
@pytest.mark.parametrize("form", ["mask", "mask_channels_last", "lengths", "volume", "kept"])
def test_what_the_mask_hides_may_be_anything(case, form):
    sets = make_sets()
    _, laid, z, grad = run(case, form, sets)
    for poison in (float("nan"), -float("inf")):
        _, _, poisoned, poisoned_grad = run(case, form, sets, poison=poison)
        torch.testing.assert_close(poisoned, z, rtol=0, atol=0)
        torch.testing.assert_close(poisoned_grad, grad, rtol=0, atol=0)
    if laid.name in ("mask", "lengths"):
        hidden = torch.ones(3, 6, dtype=torch.bool)
        for s, n in enumerate(SIZES):
            hidden[s, :n] = False
        assert (grad.mT[hidden] == 0).all()


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
@pytest.mark.parametrize(("empty", "value"), [(0, 0.0), (1, -3.5), (2, "nan")])
def test_an_empty_set_gives_the_empty_value_anywhere(case, empty, value):
    lengths = torch.tensor([4, 4, 4])
    lengths[empty] = 0
    pool = make(case, empty_value=value)
    x = torch.randn(3, 4, 4, requires_grad=True)
    z = pool(x, lengths=lengths)
    got = z[empty]
    assert got.isnan().all() if value == "nan" else (got == value).all()
    others = [s for s in range(3) if s != empty]
    if case.name != "pyramid":  # a cell of a set that is not empty may be
        assert z[others].isfinite().all()
    z[others].sum().backward()
    assert x.grad.isfinite().all()
    assert (x.grad[empty] == 0).all()
    for parameter in pool.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


@EVERY
@pytest.mark.parametrize("shape", [(0, 4, 5), (2, 4, 0)], ids=["no_sets", "no_elements"])
def test_nothing_at_all(case, shape):
    pool = make(case)
    x = torch.randn(shape, requires_grad=True)
    z = pool(x)
    z.sum().backward()
    assert (z == 0).all()
    assert x.grad.shape == shape
    ragged = make(case, "[n] c")(torch.empty(0, 4), ptr=torch.tensor([0, 0, 0]))
    assert ragged.shape[0] == 2
    assert (ragged == 0).all()


@EVERY
@pytest.mark.parametrize("kind", ["one_element", "constant", "zero_weights", "zeros"])
@pytest.mark.parametrize("layout", ["b c [t]", "[n] c"])
def test_gradients_stay_finite_on_degenerate_sets(case, kind, layout):
    x = torch.zeros(2, 4, 1 if kind == "one_element" else 6) + (0.0 if kind == "zeros" else 0.7)
    weight = torch.zeros(2, x.shape[2]) if kind == "zero_weights" else None
    pool = make(case, layout)
    if layout == "[n] c":
        index = torch.arange(2).repeat_interleave(x.shape[2])
        leaf = x.mT.reshape(-1, 4).clone().requires_grad_()
        coords = torch.linspace(0.05, 0.95, len(leaf))[:, None] if pool.reduction.positional else None
        weight = None if weight is None else weight.flatten()
        z = pool(leaf, index=index, dim_size=2, weight=weight, coords=coords)
    else:
        leaf = x.requires_grad_()
        z = pool(leaf, weight=weight)
    z.sum().backward()
    assert z.isfinite().all()
    assert leaf.grad.isfinite().all()
    for parameter in pool.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


# Rules whose result is within the range of their elements, so that an ulp of it means something.
HALF = ["mean", "sum", "max", "std", "power", "logsumexp_normalized", "softmax", "attention", "pyramid", "stochastic"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", ["b c [t]", "[n] c"])
@pytest.mark.parametrize("name", HALF)
@pytest.mark.parametrize("size", [1, 256, 2049, 65_537])
def test_half_precision_adds_up_in_float32(name, size, layout, dtype):
    half_precision(name, size, layout, dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", ["b c [t]", "[n] c"])
@pytest.mark.parametrize("name", ["mean", "std", "attention"])
def test_half_precision_adds_up_a_million(name, layout, dtype):
    half_precision(name, 1_000_000, layout, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", ["b c [t]", "[n] c"])
@pytest.mark.parametrize("name", BY_NAME)
def test_half_precision_adds_up_a_million_for_every_reduction(name, layout, dtype):
    half_precision(name, 1_000_000, layout, dtype)


def half_precision(name, size, layout, dtype):
    """Two units in the last place of the float64 result."""
    torch.manual_seed(size)
    x = (torch.rand(size, 2) + 1.0).to(dtype)
    if name == "sum":
        x = (x.double() / size).to(dtype)
    case = BY_NAME[name]._replace(options={k: v for k, v in BY_NAME[name].options.items() if k != "heads"})
    pools = []
    for kind in (dtype, torch.float64):
        torch.manual_seed(0)
        pool = Pool(layout if kind == dtype else "[n] c", case.reduction, channels=2, **case.options).eval()
        pools.append(pool.to(kind if kind == torch.float64 else torch.float32))
    pools[1].load_state_dict(pools[0].state_dict())
    exact = pools[1](x.double(), ptr=torch.tensor([0, size]))
    got = pools[0](x, ptr=torch.tensor([0, size])) if layout == "[n] c" else pools[0](x.mT[None])
    ulp = torch.finfo(dtype).eps * torch.exp2(torch.floor(torch.log2(exact.abs().clamp(min=torch.finfo(dtype).tiny))))
    floor = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    assert got.dtype == dtype
    assert ((got.double() - exact).abs() <= 2 * ulp + floor).all()


@pytest.mark.parametrize("layout", ["b c [t]", "[n] c"])
@pytest.mark.parametrize("index", [False, True])
def test_a_million_equal_numbers_have_their_own_mean(layout, index):
    x = torch.full((1_000_000, 1), 1.1)
    if layout == "[n] c":
        sets = {"index": torch.zeros(len(x), dtype=torch.long), "dim_size": 1} if index else {}
        z = Pool(layout)(x, **sets)
    else:
        z = Pool(layout)(x.mT[None])
    assert abs(z.item() - 1.1) < 3e-6


INFINITE = {
    "mean": lambda x: x.mean(0),
    "sum": lambda x: x.sum(0),
    "max": lambda x: x.amax(0),
    "min": lambda x: x.amin(0),
    "logsumexp": lambda x: x.logsumexp(0),
    "softmax_hard": lambda x: x.amax(0),
    "softmax_flat": lambda x: x.mean(0),
    "mean+std+max": lambda x: torch.cat([x.mean(0), x.std(0, correction=0), x.amax(0)]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", INFINITE)
def test_real_infinities_are_kept(name, form):
    case = BY_NAME[name]
    sets = make_sets()
    sets.x[0, 0], sets.x[6, 1], sets.x[5:, 2] = float("inf"), -float("inf"), -float("inf")
    case = case._replace(options={k: v for k, v in case.options.items() if k != "learn_temperature"})
    laid = lay(form, sets, poison=float("nan"))
    pool = Pool(laid.layout, case.reduction, channels=4, **case.options)
    z = first(laid, pool(give(laid, laid.x), **laid.sets), vectors=False)
    torch.testing.assert_close(z[0, 0], INFINITE[name](sets.x[:5]), equal_nan=True)
    torch.testing.assert_close(z[2, 0], INFINITE[name](sets.x[5:]), equal_nan=True)


@pytest.mark.parametrize("form", ["mask", "ptr"])
def test_an_infinity_stays_in_its_own_cell(form):
    sets = make_sets()
    sets.x[0, 0] = float("inf")
    laid = lay(form, sets, coords=True)
    z = Pool(laid.layout, "pyramid", levels=[[1], [5]])(laid.x, **laid.sets)
    assert z[0, :, 0].isinf().tolist() == [True, True, False, False, False, False]
    assert z.isnan().sum() == 0


@EVERY
@FORM
def test_weights_times_elements_are_the_output(case, form):
    sets = make_sets(weighted=True)
    sets = sets._replace(x=sets.x.abs() + 0.1)  # the power mean's shares are exact where x >= eps
    pool = make(case, "[n] c", dtype=torch.float64)
    laid = lay(form, sets, weighted=True, coords=pool.reduction.positional)
    pool = make(case, laid.layout, dtype=torch.float64)
    z, w = pool(give(laid, laid.x), **laid.sets, return_weights=True)
    vectors = pool.vectors is not None
    z = first(laid, z, vectors=vectors)
    start = 0
    for s, n in enumerate(SIZES):
        total = torch.zeros_like(z[s])
        for k in range(pool.vectors or 1):
            one = w
            if vectors:
                one = w[k] if laid.layout.startswith("[") else w.select(1, k)
            one = read(laid, one)[start : start + n]
            x = sets.x[start : start + n].repeat(1, pool.reduction.repeats)
            share = one.repeat_interleave(x.shape[1] // one.shape[1], dim=1) * x
            total[k] = pool.reduction.project(share.sum(0)[None])[0] if n else 0.0
            means = ("mean", "softmax", "attention", "regions", "pyramid", "stochastic")
            if n and case.name.startswith(means) and "+" not in case.name:
                sums = one.sum(0)
                present = sums > 0
                torch.testing.assert_close(sums[present], torch.ones_like(sums[present]))
        if "logsumexp" not in case.name:
            torch.testing.assert_close(total, z[s], rtol=1e-9, atol=1e-10)
        start += n


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 7), min_size=1, max_size=6),
    channels=st.integers(1, 3),
    seed=st.integers(0, 2**31),
    name=st.sampled_from(["mean", "max", "std", "softmax", "power", "logsumexp"]),
)
def test_any_sizes_any_order(sizes, channels, seed, name):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor(sizes)
    x = torch.randn(sum(sizes), channels, generator=generator, dtype=torch.float64)
    index = torch.repeat_interleave(torch.arange(len(sizes)), lengths)
    order = torch.randperm(len(x), generator=generator)
    ptr = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
    ragged = Pool("[n] c", name)
    expected = ragged(x, ptr=ptr)
    torch.testing.assert_close(ragged(x[order], index=index[order], dim_size=len(sizes)), expected)
    padded = torch.full((len(sizes), max(*sizes, 1, 1), channels), float("nan"), dtype=torch.float64)
    for s, part in enumerate(x.split(sizes)):
        padded[s, : len(part)] = part
    torch.testing.assert_close(Pool("b [n] c", name)(padded, lengths=lengths), expected)


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


@pytest.mark.parametrize("layout", ["b c [t]", "b c f [t]", "b c [f] t", "b c [d h w]", "b d c [h w]", "b c [d] h [w]"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_dense_mean_is_torchs_own_to_the_bit(layout, dtype, channels_last):
    names = layout.replace("[", "").replace("]", "").split()
    x = torch.randn([2 + 3 * i for i in range(len(names))]).to(dtype)
    if channels_last and x.ndim in (4, 5):
        x = x.contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)
    axes = Layout(layout).axes(x.ndim)
    assert torch.equal(Pool(layout)(x), x.mean(axes.pooled))
