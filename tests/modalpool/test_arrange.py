"""What may not come in: every error says what was expected, what came and what to do."""

import pytest
import torch

from modalpool import Pool

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
        ("b c [t]", X, {"weight": torch.ones(2, 5).bool()}, TypeError, "pass a bool tensor as mask="),
        ("b c [t]", X, {"mask": torch.ones(5).bool()}, ValueError, r"without channels, \(2, 5\) .* got \(5,\)"),
        ("b c [t]", X, {"mask": torch.ones(2, 4).bool()}, ValueError, r"mask: expected the shape .* got \(2, 4\)"),
        ("b c [t]", X, {"weight": -torch.ones(2, 5)}, ValueError, "expected numbers >= 0, got -1.0; clamp or mask"),
        ("b c [t]", X, {"weight": torch.full((2, 5), torch.nan)}, ValueError, "expected numbers >= 0, got nan"),
        ("b c [t]", X, {"lengths": torch.tensor([0.5, 1.0])}, ValueError, "expected integers .* torch.float32"),
        ("b c [t]", X, {"lengths": torch.tensor([5, 6])}, ValueError, "expected values from 0 to 5, got 5 to 6"),
        ("b c [t]", X, {"lengths": torch.tensor([5])}, ValueError, "expected one per batch element, 2, got 1"),
        ("b [c1 t] c", X[None].mT, {"lengths": torch.tensor([5])}, ValueError, "layout has 2; pass mask="),
        ("b c [t]", X, {"index": INDEX}, ValueError, "has a batch axis b; leave b out, as in"),
        ("b c [t]", X, {"dim_size": 2}, ValueError, "has a batch axis b; leave b out"),
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
        ("b [n] c", NESTED, {"ptr": torch.tensor([0, 5])}, ValueError, "a jagged tensor already knows its sets"),
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
