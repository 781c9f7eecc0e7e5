"""Where tensors have no values to look at, or stand for many samples: vmap, fake and meta tensors, traced code."""

import pytest
import torch
from every import BY_NAME, CHANNELS, DIAGONAL, EVERY, EVERY_LAYOUT, LAYOUTS, calls, every_layout, make, needs_coords
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves

from modalpool import Pool

F64 = torch.float64
SAMPLES = 3
SETS = {  # of six elements, one sample of each argument a row
    "weight": torch.rand(SAMPLES, 6, dtype=F64),
    "mask": torch.rand(SAMPLES, 6) > 0.4,
    "lengths": torch.tensor([6, 0, 3]),
    "index": torch.tensor([[0, 0, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1], [2, 0, 1, 0, 1, 2]]),
    "ptr": torch.tensor([[0, 2, 6, 6], [0, 0, 6, 6], [0, 1, 3, 6]]),
}
EVERY_SET = every_layout(name="name", values=list(SETS), differ=("mask", "index"))


def caller(case, name):
    """The pool of one sample, as a function of its parameters, x and one argument."""
    ragged = name in ("index", "ptr")
    pool = make(case, "[n] c" if ragged else "b c [t]", dtype=F64)
    extra = {"dim_size": 3} if name == "index" else {}
    if name == "index" and pool.reduction.positional:
        extra["coords"] = torch.linspace(0, 1, 6, dtype=F64)[:, None]

    def call(parameters, x, given):
        x, given = (x.mT, given) if ragged else (x[None], given[None])
        return functional_call(pool, parameters, (x,), {name: given, **extra})

    return call, {key: value.detach() for key, value in pool.named_parameters()}


@EVERY_SET
def test_vmap_over_what_says_the_sets(case, name):
    call, parameters = caller(case, name)
    x = torch.rand(SAMPLES, CHANNELS, 6, dtype=F64) + 0.1
    for shared in (False, True):
        seen = x[:1].expand_as(x) if shared else x
        got = vmap(call, in_dims=(None, None if shared else 0, 0))(parameters, x[0] if shared else x, SETS[name])
        each = [call(parameters, *both) for both in zip(seen, SETS[name], strict=True)]
        torch.testing.assert_close(got, torch.stack(each))


@EVERY_SET
def test_gradients_of_each_sample(case, name):
    call, parameters = caller(case, name)
    x = torch.rand(SAMPLES, CHANNELS, 6, dtype=F64) + 0.1
    wanted = (0, 1, 2) if name == "weight" else (0, 1)
    slopes = grad(lambda *given: call(*given).square().sum(), argnums=wanted)
    got = vmap(slopes, in_dims=(None, 0, 0))(parameters, x, SETS[name])
    for i in range(SAMPLES):
        given = SETS[name][i].clone().requires_grad_(name == "weight")
        leaves = ({k: p.clone().requires_grad_() for k, p in parameters.items()}, x[i].clone().requires_grad_(), given)
        inputs = tree_leaves([leaves[k] for k in wanted])
        expected = torch.autograd.grad(call(*leaves).square().sum(), inputs, allow_unused=True, materialize_grads=True)
        for one, other in zip(tree_leaves(got), expected, strict=True):
            torch.testing.assert_close(one[i], other)


def test_under_vmap_all_samples_are_checked():
    x = torch.rand(SAMPLES, CHANNELS, 6)
    with pytest.raises(ValueError, match="weight: expected numbers >= 0, got -"):
        vmap(lambda x, w: Pool("b c [t]")(x[None], weight=w[None]))(x, -SETS["weight"].float())
    with pytest.raises(ValueError, match="lengths: expected values from 0 to 6, got 4 to 10"):
        vmap(lambda x, n: Pool("b c [t]")(x[None], lengths=n[None]))(x, SETS["lengths"] + 4)
    with pytest.raises(ValueError, match="dim_size: expected it where an index has no values"):
        vmap(lambda x, i: Pool("[n] c")(x.mT, index=i))(x, SETS["index"])


def split(call, pool):
    """The call's tensors, and what else it is called with."""
    sets = needs_coords(pool, call)
    tensors = {name: given for name, given in sets.items() if isinstance(given, torch.Tensor)}
    return tensors, {name: given for name, given in sets.items() if name not in tensors}


@EVERY_LAYOUT
def test_the_meta_device_and_fake_tensors_give_shapes(case, layout):
    call = calls(positive=True)[layout]
    pool = make(case, call.layout)
    tensors, rest = split(call, pool)
    shape = pool(call.x, **tensors, **rest).shape
    move = {name: given.to("meta") for name, given in tensors.items()}
    z = make(case, call.layout).to("meta")(call.x.to("meta"), **move, **rest)
    assert (z.shape, z.device.type) == (shape, "meta")
    with FakeTensorMode() as mode:
        parameters = {name: mode.from_tensor(given) for name, given in pool.named_parameters()}
        tensors = {name: mode.from_tensor(given) for name, given in tensors.items()}
        z = functional_call(pool, parameters, (mode.from_tensor(call.x),), {**tensors, **rest})
    assert z.shape == shape


def trace(case, layout, mode):
    call = calls(positive=True)[layout]
    pool = make(case, call.layout)
    tensors, rest = split(call, pool)

    def function(x, *given):
        return pool(x, **dict(zip(tensors, given, strict=True)), **rest)

    graph = make_fx(function, tracing_mode=mode, _allow_non_fake_inputs=True)(call.x, *tensors.values())
    torch.testing.assert_close(graph(call.x, *tensors.values()), function(call.x, *tensors.values()))


@DIAGONAL
def test_traced_operations_give_the_same(case, layout):
    """Each reduction in one layout and with symbols for sizes here, all of them in the slow suite."""
    trace(case, layout, "symbolic")


@LAYOUTS
def test_operations_traced_with_their_sizes_give_the_same(layout):
    trace(BY_NAME["attention"], layout, "real")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["symbolic", "real"])
@LAYOUTS
@EVERY
def test_all_traced_operations_give_the_same(case, layout, mode):
    trace(case, layout, mode)
