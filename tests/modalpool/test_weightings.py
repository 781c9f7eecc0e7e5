"""Many weightings in one call, and a weight for each channel: what as many calls give."""

import pytest
import torch
from every import CHANNELS, EVERY, make
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from modalpool import Pool
from modalpool.functional import mean_pool

F64 = torch.float64
CALLS = {
    "b c [t]": ((2, CHANNELS, 6), "b k t", {"lengths": torch.tensor([6, 4])}),
    "b [n] c": ((2, 6, CHANNELS), "b n k", {"mask": torch.arange(6) < torch.tensor([[6], [3]])}),
    "b c f [t]": ((2, CHANNELS, 3, 6), "k b f t", {}),
    "[n] c": ((6, CHANNELS), "n k", {"index": torch.tensor([0, 2, 0, 2, 2, 0]), "dim_size": 3}),
}


def lay(case, layout):
    torch.manual_seed(0)
    shape, axes, sets = CALLS[layout]
    x = torch.rand(shape, dtype=F64) + 0.1
    sizes = dict(zip(layout.replace("[", "").replace("]", "").split(), shape, strict=True)) | {"k": 5}
    weight = torch.rand([sizes[name] for name in axes.split()], dtype=F64) * (torch.rand(()) + 0.5)
    pool = make(case, layout, dtype=F64)
    if pool.reduction.positional and "index" in sets:
        sets = {**sets, "coords": torch.rand(6, 1, dtype=F64)}
    return pool, x.requires_grad_(), weight.requires_grad_(), axes, sets


def same(got, expected, leaves):
    """The same numbers and gradients."""
    for one, other in zip(tree_leaves(got), tree_leaves(expected), strict=True):
        torch.testing.assert_close(one, other)
    slopes = []
    for out in (got, expected):
        total = sum(
            (each.double() * torch.linspace(-1, 2, each.numel()).reshape(each.shape)).sum() for each in tree_leaves(out)
        )
        slopes.append(torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True))
    torch.testing.assert_close(slopes[0], slopes[1])


@pytest.mark.parametrize("layout", CALLS)
@EVERY
def test_many_weightings_are_many_calls(case, layout):
    pool, x, weight, axes, sets = lay(case, layout)
    got = pool(x, weight=weight, weight_axes=axes, **sets)
    each = [pool(x, weight=one, **sets) for one in weight.unbind(axes.split().index("k"))]
    same(got, torch.stack(each, 1), [x, weight, *pool.parameters()])
    y, w = pool(x, weight=weight, weight_axes=axes, return_weights=True, **sets)
    torch.testing.assert_close(y, got)
    k = 0 if layout == "[n] c" else 1
    _, alone = pool(x, weight=weight.select(axes.split().index("k"), 3), return_weights=True, **sets)
    torch.testing.assert_close(w.select(k, 3), alone)


@pytest.mark.parametrize("layout", CALLS)
@EVERY
def test_a_weight_for_each_channel_is_a_call_for_each(case, layout):
    pool, x, _, _, sets = lay(case, layout)
    axes = layout.replace("[", "").replace("]", "")
    weight = torch.rand(x.shape, dtype=F64).requires_grad_()
    if any(parameter.ndim for parameter in pool.parameters()):
        with pytest.raises(ValueError, match="a weight for each channel needs a rule that sees one channel at a time"):
            pool(x, weight=weight, weight_axes=axes, **sets)
        return
    got = pool(x, weight=weight, weight_axes=axes, **sets)
    at = axes.split().index("c")
    one = Pool(layout, pool.reduction)
    each = [one(x.narrow(at, c, 1), weight=weight.select(at, c), **sets) for c in range(CHANNELS)]
    if isinstance(case.reduction, list):  # side by side on the channel axis
        pytest.skip("a list gives each channel's results side by side")
    left = [name for name in layout.split() if name[0] != "["]
    where = left.index("c") + (pool.vectors is not None) + (layout == "[n] c")
    same(got, torch.cat(each, where), [x, weight])


class Largest(TorchDispatchMode):
    """The most memory that any one tensor takes."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for one in tree_leaves(out):
            if isinstance(one, torch.Tensor):
                self.numel = max(self.numel, one.untyped_storage().nbytes() // one.element_size())
        return out


@pytest.mark.parametrize("name", ["mean", "sum", "std", "max", "softmax"])
@pytest.mark.parametrize("axes", ["b k t", "b c t"])
def test_nothing_is_as_large_as_many_copies(name, axes):
    x = torch.randn(2, 16, 500, requires_grad=True)
    weight = torch.rand(2, 8 if "k" in axes else 16, 500)
    pool = Pool("b c [t]", name)
    with Largest() as most:
        pool(x, weight=weight, weight_axes=axes).square().sum().backward()
    assert most.numel <= 2 * x.numel()


def test_what_does_not_fit():
    x, weight = torch.randn(2, 3, 5), torch.rand(2, 4, 5)
    pool = Pool("b c [t]")
    for axes in ("b t", "b k s", "b k k t", "b k c t", "k t"):
        with pytest.raises(ValueError, match="weight_axes: expected the positions of x and one axis more"):
            pool(x, weight=weight, weight_axes=axes)
    for wrong in (None, weight[0]):
        with pytest.raises(ValueError, match="weight: expected the 3 axes of weight_axes='b k t'"):
            pool(x, weight=wrong, weight_axes="b k t")
    with pytest.raises(ValueError, match="weight: expected numbers >= 0"):
        pool(x, weight=-weight, weight_axes="b k t")
    torch.testing.assert_close(
        mean_pool(x, "b c [...]", weight=weight, weight_axes="b k ..."),
        torch.einsum("bct,bkt->bkc", x, weight) / weight.sum(-1, keepdim=True),
    )


@pytest.mark.parametrize("empty_value", [0.0, 7.0, "nan"])
def test_weightings_without_weight_are_empty(empty_value):
    x, weight = torch.randn(2, 3, 5), torch.rand(2, 4, 5)
    weight[1, 2] = 0
    for name in ("mean", "sum", "max"):
        z = Pool("b c [t]", name, empty_value=empty_value)(x, weight=weight, weight_axes="b k t")
        torch.testing.assert_close(z[1, 2], torch.full((3,), float(empty_value)), equal_nan=True)
        assert z.isfinite().sum() >= 21
