"""Nothing has a value; sets of nothing, of one element, of equal ones or of weight zero have finite gradients."""

import pytest
import torch
from every import EVERY, close, make


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
    for s in others:
        close(z[s : s + 1], pool(x[s : s + 1]))
    if value != "nan":  # which a vector of a set may be that nothing belongs to, as a pyramid's cell
        assert z[others].isfinite().all()
    z[others].sum().backward()
    assert x.grad.isfinite().all()
    assert (x.grad[empty] == 0).all()
    for parameter in pool.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


@EVERY
def test_an_empty_set_may_be_an_error(case):
    pool = make(case, empty_value="raise")
    with pytest.raises(ValueError, match="a set has no elements; mask less, drop the set or choose a number"):
        pool(torch.randn(2, 4, 4), lengths=torch.tensor([4, 0]))


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
