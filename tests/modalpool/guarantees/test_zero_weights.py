"""A weight of zero hides an element, and yet has the slope of the formula: a gate that is closed can open."""

import pytest
import torch
from every import CHANNELS, every, exception, make
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import grad

from modalpool import Pool

F64 = torch.float64
RIGHT = "the slope of a weight of zero is the formula's"
LAYOUTS = {"b c [t]": (2, CHANNELS, 6), "b [t] c": (2, 6, CHANNELS), "b c f [t]": (1, CHANNELS, 2, 6)}
RAGGED = {"[n] c": (12, CHANNELS), "[n] f c": (12, 2, CHANNELS)}


def lay(case, layout, long=1):
    """A pool, its elements, weights with some zeros, a mask, and what else it is called with."""
    torch.manual_seed(3)
    shape = [n * long if n in (6, 12) else n for n in {**LAYOUTS, **RAGGED}[layout]]
    x = torch.rand(shape, dtype=F64) + 0.1
    axes = layout.replace("[", "").replace("]", "").split()
    weight = torch.rand([n for n, axis in zip(shape, axes, strict=True) if axis != "c"], dtype=F64) + 0.1
    mask = torch.rand(weight.shape) > 0.2
    pool = make(case, layout, dtype=F64)
    sets = {"mask": mask}
    if layout in RAGGED:
        sets |= {"index": torch.arange(shape[0]) % 2, "dim_size": 2}
        if pool.reduction.positional:
            sets["coords"] = torch.rand(*weight.shape, 1, dtype=F64)
    zero = torch.rand(weight.shape) < 0.3
    weight[zero] = 0.0
    return pool, x, weight, zero & mask, sets


def output(pool, x, weight, sets):
    z = pool(x, weight=weight, **sets)
    return (z * torch.linspace(-1, 2, z.numel(), dtype=F64).reshape(z.shape)).sum()


def slopes(pool, x, weight, sets):
    weight = weight.clone().requires_grad_()
    out = output(pool, x, weight, sets)
    return torch.autograd.grad(out, weight)[0] if out.requires_grad else torch.zeros_like(weight)


@pytest.mark.parametrize(
    ("layout", "long"),
    [
        *((layout, 1) for layout in [*LAYOUTS, *RAGGED]),
        *(("b c [t]", 1000), ("[n] c", 1000)),
        *(pytest.param(layout, 1000, marks=pytest.mark.slow) for layout in ("b [t] c", "b c f [t]", "[n] f c")),
    ],
)
@every()
def test_finite_differences(case, layout, long):
    """Forwards, as there are no weights below zero; few elements and many take other paths."""
    pool, x, weight, zero, sets = lay(case, layout, long)
    if case.reduction == "pyramid" and long == 1:
        pytest.skip("a cell that a weight opens jumps")
    if exception(case, RIGHT):
        pytest.skip(exception(case, RIGHT))
    slope = slopes(pool, x, weight, sets)
    assert (slope[~sets["mask"]] == 0).all()
    for at in zero.nonzero().tolist()[:3]:
        step, values = torch.zeros_like(weight), []
        step[tuple(at)] = 1e-5
        with torch.no_grad():
            values = [output(pool, x, weight + k * step, sets) for k in range(3)]
        right = (-3 * values[0] + 4 * values[1] - values[2]) / 2e-5
        torch.testing.assert_close(slope[tuple(at)], right, rtol=1e-5, atol=1e-7)
    through = grad(lambda w: output(pool, x, w, sets))(weight)
    torch.testing.assert_close(through, slope)


@pytest.mark.parametrize("wild", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("layout", ["b c [t]", "[n] c"])
@every()
def test_what_is_not_finite_is_harmless_under_a_weight_of_zero_and_a_mask(case, layout, wild):
    pool, x, weight, zero, sets = lay(case, layout)
    hidden = (zero | ~sets["mask"]).unsqueeze(1)
    runs = []
    for fill in (0.5, wild):
        leaves = torch.where(hidden, fill, x).requires_grad_(), weight.clone().requires_grad_()
        out = output(pool, leaves[0], leaves[1], sets)
        runs.append((out, *torch.autograd.grad(out, leaves, allow_unused=True, materialize_grads=True)))
    torch.testing.assert_close(runs[1][0], runs[0][0])
    torch.testing.assert_close(runs[1][1], runs[0][1])
    torch.testing.assert_close(runs[1][2][~hidden.squeeze(1)], runs[0][2][~hidden.squeeze(1)])
    assert runs[1][2].isfinite().all()


@settings(max_examples=30)
@given(
    name=st.sampled_from(["mean", "sum", "std", "var", "power", "logsumexp", "softmax", "attention"]),
    far=st.floats(-300, 300),
    data=st.data(),
)
def test_the_slope_is_the_limit_of_those_of_small_weights(name, far, data):
    """Also where the hidden element is far above or below all others."""
    n = data.draw(st.integers(3, 8))
    torch.manual_seed(n)
    pool = Pool("b [n] c", name, channels=2).double()
    x, weight = torch.rand(1, n, 2, dtype=F64) + 0.1, torch.rand(1, n, dtype=F64) + 0.1
    x[0, 0] = abs(far) if name == "power" else far / 10 if name in ("logsumexp", "softmax", "attention") else far
    weight[0, 0] = 0.0
    small = weight.clone()
    small[0, 0] = 1e-25
    torch.testing.assert_close(slopes(pool, x, weight, {}), slopes(pool, x, small, {}), rtol=1e-6, atol=1e-9)
