"""Compiled code: one graph, the same numbers and gradients, any sizes; no waiting for a device; deterministic mode."""

import pytest
import torch
from every import BY_NAME, DIAGONAL, EVERY, EVERY_LAYOUT, LAYOUTS, calls, close, larger, make, needs_coords
from torch.utils._python_dispatch import TorchDispatchMode

from modalpool import Pool


@pytest.fixture(autouse=True)
def fresh():
    """No code compiled before, and no two sizes taken to be one because they happen to be equal."""
    torch._dynamo.reset()
    with torch.fx.experimental._config.patch(use_duck_shape=False):
        yield


def compare(pool, compiled, call, ulp=64.0):
    """Output and gradients of x and of all parameters, compiled and not."""
    results = []
    for function in (compiled, pool):
        x = call.x.detach().clone().requires_grad_()
        z = function(x, **needs_coords(pool, call))
        slope = torch.linspace(-1, 2, z.numel(), dtype=z.dtype).reshape(z.shape)
        inputs = [x, *pool.parameters()]
        results.append((z.detach(), torch.autograd.grad(z, inputs, slope, allow_unused=True, materialize_grads=True)))
    close(results[0][0], results[1][0], ulp=ulp)
    for got, expected in zip(results[0][1], results[1][1], strict=True):
        close(got, expected, ulp=8 * ulp)


def one_graph_for_all_sizes(case, layout, backend, check):
    call = calls(positive=True)[layout]
    pool = make(case, call.layout)
    compiled = torch.compile(pool, backend=backend, fullgraph=True, dynamic=True)
    check(pool, compiled, call)
    with torch._dynamo.config.patch(error_on_recompile=True):
        check(pool, compiled, larger(call))


def compare_outputs(pool, compiled, call):
    sets = needs_coords(pool, call)
    with torch.no_grad():
        close(compiled(call.x, **sets), pool(call.x, **sets), ulp=64)


@DIAGONAL
def test_one_graph_for_all_sizes(case, layout):
    """Each reduction in one layout here, all of them with gradients in the slow suite."""
    one_graph_for_all_sizes(case, layout, "eager", compare_outputs)


@pytest.mark.slow
@LAYOUTS
@EVERY
def test_one_graph_and_its_gradients(case, layout):
    one_graph_for_all_sizes(case, layout, "aot_eager", compare)


@pytest.mark.slow
@DIAGONAL
def test_inductor(case, layout):
    one_graph_for_all_sizes(case, layout, "inductor", compare)


class Syncs(TorchDispatchMode):
    """Counts what makes a device wait: a number read, a shape that depends on values."""

    WAITING = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::item")

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().split(".")[0]
        if name in self.WAITING or (name == "aten::repeat_interleave" and not (kwargs or {}).get("output_size")):
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


@EVERY_LAYOUT
def test_nothing_waits_for_the_device_when_sizes_are_given(case, layout):
    call = calls(positive=True)[layout]
    pool = make(case, call.layout)
    with Syncs() as syncs:
        z = pool(call.x.requires_grad_(), **needs_coords(pool, call))
        z.square().sum().backward()
    assert syncs.seen == []


def test_an_index_alone_asks_once_and_raising_asks_too():
    x, index = torch.randn(300, 2), torch.arange(300) % 3  # a CPU looks at a shorter one as a list
    with Syncs() as syncs:
        Pool("[n] c", "attention", channels=2)(x, index=index)
    assert syncs.seen == ["aten::_local_scalar_dense"]
    with Syncs() as syncs:
        Pool("b [n] c", empty_value="raise")(x[None], mask=torch.ones(1, 300, dtype=torch.bool))
    assert syncs.seen == ["aten::_local_scalar_dense"]


@EVERY_LAYOUT
def test_deterministic_mode_is_honoured_at_call_time(case, layout):
    """Nothing refuses to run, and two runs agree to the bit; asked for after the pool was made."""
    call = calls(positive=True)[layout]
    pool = make(case, call.layout)
    torch.use_deterministic_algorithms(True)
    try:
        runs = []
        for _ in range(2):
            x = call.x.detach().clone().requires_grad_()
            z = pool(x, **needs_coords(pool, call))
            runs.append((z, torch.autograd.grad(z.square().sum(), x)[0]))
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(runs[0][0].nan_to_num(), runs[1][0].nan_to_num())
    assert torch.equal(runs[0][1], runs[1][1])
    close(runs[0][0], pool(call.x, **needs_coords(pool, call)))


def test_streaming_compiles():
    pool = make(BY_NAME["std"])
    step = torch.compile(pool.update, backend="eager", fullgraph=True, dynamic=True)
    last = torch.compile(pool.finalize, backend="eager", fullgraph=True)
    x, state = torch.randn(2, 4, 12), None
    for chunk in x.split([5, 4, 3], dim=-1):
        state = step(state, chunk)
    close(last(state), pool(x), ulp=64)
