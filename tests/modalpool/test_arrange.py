"""What may not come in: every error says what was expected, what came and what to do."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modalpool import Pool
from modalpool.functional import mean_pool

X = torch.randn(2, 3, 5)
NODES = torch.randn(5, 3)
INDEX = torch.tensor([0, 0, 1, 1, 1])
OFFSETS = torch.tensor([0, 2, 5])
WIDE = torch.nested.nested_tensor_from_jagged(NODES[..., None], OFFSETS)
NESTED = torch.nested.nested_tensor_from_jagged(NODES, torch.tensor([0, 2, 5]))


@pytest.mark.parametrize(
    ("layout", "x", "sets", "error", "message"),
    [
        ("b c [t]", X.long(), {}, TypeError, "expected a floating-point tensor, got torch.int64; call x.float()"),
        ("b c [t]", X, {"mask": torch.ones(2, 5)}, TypeError, "mask: expected bool .* pass weights as weight="),
        ("b c [t]", X, {"mask": torch.tensor([[1, 0, 2, 0, 1]])}, ValueError, "mask: .* integers 0 and 1, got 0 to 2"),
        ("b c [t]", X, {"batch": INDEX}, TypeError, "batch: .* write index= for the set of each element"),
        ("b c [t]", X, {"weight": torch.ones(2, 5).bool()}, TypeError, "pass a bool tensor as mask="),
        ("b c [t]", X, {"mask": torch.ones(5).bool()}, ValueError, r"without channels, \(2, 5\) .* got \(5,\)"),
        ("b c [t]", X, {"mask": torch.ones(2, 4).bool()}, ValueError, r"mask: expected the shape .* got \(2, 4\)"),
        ("b c [t]", X, {"weight": -torch.ones(2, 5)}, ValueError, "expected numbers >= 0, got -1.0; clamp or mask"),
        ("b c [t]", X, {"weight": torch.full((2, 5), torch.nan)}, ValueError, "expected numbers >= 0, got nan"),
        ("b c [t]", X, {"lengths": torch.tensor([0.5, 1.0])}, ValueError, "expected integers .* torch.float32"),
        ("b c [t]", X, {"lengths": torch.tensor([0.5, 1.0])}, ValueError, r"\(lengths \* T\)\.round\(\)\.long\(\)"),
        ("b c [t]", X, {"lengths": {"u": torch.tensor([5, 5])}}, ValueError, "has no position 'u'; name one of t"),
        ("b c [t]", X, {"lengths": {"t": torch.tensor([5, 6])}}, ValueError, r"lengths\['t'\]: expected .* got 5 to 6"),
        ("b c [f] t", X[..., None], {"lengths": torch.tensor([5, 5])}, ValueError, r"lengths=\{'t': ...\} or "),
        ("b c [t]", X, {"lengths": torch.tensor([5, 6])}, ValueError, "expected values from 0 to 5, got 5 to 6"),
        ("b c [t]", X, {"lengths": torch.tensor([5])}, ValueError, "expected one per batch element, 2, got 1"),
        ("b [c1 t] c", X[None].mT, {"lengths": torch.tensor([5])}, ValueError, "layout has 2; pass mask="),
        ("b c [t]", X, {"index": INDEX}, ValueError, "has a batch axis b; leave b out, as in"),
        ("b c [t]", X, {"dim_size": 2}, ValueError, "dim_size: .* has a batch axis b; leave b out"),
        ("[n] c", NODES, {"lengths": torch.tensor([5])}, ValueError, "has no batch axis; pass ptr= or index="),
        ("[n] c", NODES, {"index": INDEX, "dim_size": 1}, ValueError, r"from 0 to 0 \(dim_size=1\), got 0 to 1"),
        ("[n] c", NODES, {"index": INDEX - 1}, ValueError, "index: expected values from 0 to 0 .* got -1 to 0"),
        ("[n] c", NODES, {"index": INDEX[:4]}, ValueError, r"one set per element, shape \(5,\), got \(4,\)"),
        ("[n] c", NODES, {"index": INDEX.float()}, ValueError, "index: expected integers with 1 axis"),
        ("[n] c", NODES, {"index": INDEX, "ptr": torch.tensor([0, 5])}, ValueError, "expected one of them, got both"),
        ("[n] c", NODES, {"ptr": torch.tensor([0, 4])}, ValueError, r"number of elements 5, got \[0, 4\]"),
        ("[n] c", NODES, {"ptr": torch.tensor([0, 4, 3, 5])}, ValueError, "ptr: expected to rise from 0"),
        ("[n] c", NODES, {"ptr": torch.tensor([0, 5]), "dim_size": 3}, ValueError, "describes 1 sets, got dim_size=3"),
        ("[n] c", NODES, {"dim_size": 3}, ValueError, "without index or ptr there is one set, got dim_size=3"),
        ("[n] c", NODES, {"coords": torch.zeros(5)}, ValueError, r"coords: expected floats .* \(2 axes\)"),
        ("[n] c", NESTED, {}, ValueError, "a jagged tensor needs a layout that starts with b"),
        ("b [n] c", NESTED, {"ptr": torch.tensor([0, 5])}, ValueError, "^ptr: a jagged tensor already knows its sets"),
        ("b n [c1] c", WIDE, {}, ValueError, "keeps the jagged axis 1; it has to be pooled"),
        ("b [n m] c", WIDE, {}, ValueError, "pools more than the jagged axis"),
        ("b [n] c", torch.nested.nested_tensor([NODES, NODES[:2]]), {}, ValueError, "a nested tensor with layout"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_inputs_that_do_not_fit(layout, x, sets, error, message):
    with pytest.raises(error, match=message):
        Pool(layout)(x, **sets)


def test_an_empty_set_may_be_an_error():
    pool = Pool("[n] c", empty_value="raise")
    with pytest.raises(ValueError, match="a set has no elements; mask less, drop the set or choose a number"):
        pool(NODES, index=INDEX, dim_size=3)
    assert pool(NODES, index=INDEX, dim_size=2).shape == (2, 3)


@pytest.mark.parametrize("name", ["pyramid", "attention"])
def test_positions_are_asked_for_where_an_index_does_not_tell(name):
    options = {"levels": [2]} if name == "pyramid" else {"grid": [2]}
    pool = Pool("[n] c", name, channels=3, **options)
    with pytest.raises(ValueError, match=r"looks at positions; pass coords= \(in \[0, 1\]\)"):
        pool(NODES, index=INDEX)
    with pytest.raises(ValueError, match="it has 1 axes, but positions have 2 coordinates"):
        pool(NODES, index=INDEX, coords=torch.zeros(5, 2))
    assert pool(NODES, index=INDEX, coords=torch.rand(5, 1)).shape[0] == 2


def test_the_number_of_sets_is_the_largest_index_if_nobody_says_it():
    assert Pool("[n] c")(NODES, index=torch.tensor([0, 0, 3, 1, 1])).shape == (4, 3)
    assert Pool("[n] c")(NODES[:0], index=INDEX[:0]).shape == (0, 3)


def test_declared_channels_are_checked():
    message = r"channels: declared 8, got x with shape \(2, 5, 16\), whose axis c in b \[n\] c has size 16"
    for name in ("mean", "attention", ["mean", "std"]):
        with pytest.raises(ValueError, match=message):
            Pool("b [n] c", name, channels=8)(torch.randn(2, 5, 16))


def test_sets_without_a_name_are_refused_with_what_to_write():
    for call in (lambda: Pool("[n] c")(NODES, INDEX), lambda: mean_pool(NODES, "[n] c", batch=INDEX)):
        with pytest.raises(TypeError, match="write index= for the set of each element"):
            call()


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.int32])
def test_an_attention_mask_of_zeros_and_ones(dtype):
    mask = torch.tensor([[1, 1, 0, 1, 0], [0, 1, 0, 0, 0]])
    torch.testing.assert_close(Pool("b c [t]")(X, mask=mask.to(dtype)), Pool("b c [t]")(X, mask=mask.bool()))


def test_the_first_and_the_last_element_are_masks():
    """The recipe of docs/pooling.md, padded on either side."""
    pool, steps = Pool("b c [t]"), torch.arange(5)
    for mask in (torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]), torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]])):
        where = torch.where(mask.bool(), steps, -1)
        last = steps == where.amax(1, keepdim=True)
        first = (mask.cumsum(1) == 1) & mask.bool()
        torch.testing.assert_close(pool(X, mask=last), X[torch.arange(2), :, where.amax(1)])
        torch.testing.assert_close(pool(X, mask=first), X[torch.arange(2), :, mask.argmax(1)])


@pytest.mark.parametrize("name", ["mean", "pyramid"])
def test_lengths_of_axes_by_name(name):
    options = {"levels": [[2]]} if name == "pyramid" else {}
    x, n = torch.randn(2, 3, 4, 5), {"f": torch.tensor([4, 2]), "t": torch.tensor([3, 0])}
    z = Pool("b c [f] t", name, **options)(x, lengths=n)
    assert (z[0, ..., 3:] == 0).all()
    assert (z[1] == 0).all()
    alone = Pool("b c [f] t", name, **options)(x[:1, :, :, :3])
    torch.testing.assert_close(z[:1, ..., :3], alone)
    two = Pool("b c [f t]", name, levels=[[2, 2]]) if name == "pyramid" else Pool("b c [f t]", name)
    n = {"f": torch.tensor([4, 2]), "t": torch.tensor([3, 4])}
    for b in range(2):
        torch.testing.assert_close(two(x, lengths=n)[b], two(x[b : b + 1, :, : n["f"][b], : n["t"][b]])[0])
    torch.testing.assert_close(
        Pool("b c f [t]", name, **options)(x, lengths=n["t"]),
        Pool("b c f [t]", name, **options)(x, lengths={"t": n["t"]}),
    )


RULES = {
    "mean": {}, "sum": {}, "max": {}, "std": {}, "power": {}, "softmax": {"temperature": 0.0},
    "attention": {"grid": [3]}, "pyramid": {"levels": [[1], [2]]},
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
@given(data=st.data())
def test_what_is_hidden_may_be_anything(name, data):
    """Ragged elements under a mask, or of weight zero, in x and in all that comes with it."""
    n, dims = data.draw(st.integers(1, 12)), data.draw(st.sampled_from([None, 4]))
    shown = torch.tensor(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    index = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    hidden = torch.tensor(data.draw(st.sampled_from([-1, 4, 255, -(2**62), 2**62])))
    wild = data.draw(st.sampled_from([torch.nan, torch.inf, -torch.inf, 1e300]))
    by_weight = data.draw(st.booleans())
    dims = 4 if by_weight or not shown.any() else dims
    torch.manual_seed(n)
    pool = Pool("[n] c", name, **({"channels": 3} if name == "attention" else {}), **RULES[name]).double()
    with torch.no_grad():
        for parameter in pool.parameters():
            parameter.normal_()
    x, coords, weight = (torch.rand(n, k, dtype=torch.float64) for k in (3, 1, 1))
    x.requires_grad_()
    poisoned = torch.where(shown[:, None], x, wild)
    sets = {"coords": coords, "weight": weight[:, 0]} if by_weight else {"coords": coords}
    expected = pool(x[shown], index=index[shown], dim_size=dims, **{k: v[shown] for k, v in sets.items()})
    sets["coords"] = torch.where(shown[:, None], coords, wild)
    if by_weight:
        sets["weight"] = torch.where(shown, weight[:, 0], 0.0)
    else:
        sets["mask"] = shown
    z = pool(poisoned, index=torch.where(shown, index, hidden), dim_size=dims, **sets)
    torch.testing.assert_close(z, expected)
    inputs = [x, *pool.parameters()]
    got, want = (
        torch.autograd.grad(out.square().sum(), inputs, allow_unused=True, materialize_grads=True)
        for out in (z, expected)
    )
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("wild", [torch.nan, -1.0, torch.inf])
def test_weights_beyond_the_lengths_may_be_anything(wild):
    weight, lengths = torch.rand(2, 5), torch.tensor([3, 0])
    poisoned = torch.where(torch.arange(5) < lengths[:, None], weight, wild)
    pool = Pool("b c [t]", "std")
    torch.testing.assert_close(pool(X, weight=poisoned, lengths=lengths), pool(X, weight=weight, lengths=lengths))


def test_hidden_elements_make_no_sets():
    index, mask = torch.tensor([0, 0, 1, 7, -3]), torch.tensor([1, 1, 1, 0, 0])
    torch.testing.assert_close(Pool("[n] c")(NODES, index=index, mask=mask), Pool("[n] c")(NODES[:3], index=index[:3]))
    with pytest.raises(ValueError, match=r"index: expected values from 0 to 0 \(dim_size=1\), got 0 to 1"):
        Pool("[n] c")(NODES, index=index, mask=mask, dim_size=1)
