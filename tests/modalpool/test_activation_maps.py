"""Maps element by element against the plain formula; chunks that change nothing; nothing of the input's size copied."""

import functools
import weakref

import pytest
import torch
from every import CASES, make
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from modalpool import Pool, contributions
from modalpool.reductions import Count, Reduction

SHAPES = {
    "b c [d h w]": (2, 4, 3, 4, 5),
    "b [n] c": (3, 6, 4),
    "b c f [t]": (2, 4, 3, 5),
    "b c [f] t": (2, 4, 3, 5),
    "[n] c": (9, 4),
    "[n] c f": (9, 4, 3),
}


def combinations():
    for layout in SHAPES:
        for case in CASES:
            if case.name in ("attention_grid", "pyramid") and layout == "b c [d h w]":
                continue  # their grids have one axis
            for head in ("linear", "deep"):
                yield pytest.param(case, layout, head, id=f"{case.name}-{layout}-{head}")


def setup(case, layout, head, dtype=torch.float64):
    pool = make(case, layout, dtype=dtype)
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(SHAPES[layout], dtype=dtype, generator=generator) + 0.1
    sets = {}
    if layout.startswith("[n]"):
        sets = {"index": torch.tensor([0, 2, 2, 0, 3, 0, 3, 3, 0]), "dim_size": 5}
        if pool.reduction.positional:
            shape = [size for axis, size in enumerate(x.shape) if axis != 1]
            sets["coords"] = torch.rand(*shape, 1, dtype=dtype, generator=generator)
    with torch.no_grad():
        width = pool(x, **sets).flatten(1).shape[1]
    torch.manual_seed(2)
    layers = [nn.Flatten(), nn.Linear(width, 3)] + ([] if head == "linear" else [nn.Tanh(), nn.Linear(3, 3)])
    return pool, nn.Sequential(*layers).to(dtype), x, sets


def by_the_formula(pool, head, x, sets):
    """map_i = Σ_kz w_ikz x_iz slope_kz, with everything written out for every element."""
    arranged = pool.arrange(x, **sets)
    elements = arranged.elements
    count = Count.of(arranged.sets, elements)
    state, weight = pool.reduction.partial(elements, arranged.sets, count, with_weights=True)
    z = pool.reduction.finalize(state, count).detach().requires_grad_()  # (set axes, *k, Z)
    logits = head(pool.restore(pool.fill(pool.reduction.project(z, count), state, count), arranged.axes))
    wide = z.shape[-1]
    weight = weight if pool.vectors else weight[..., None, :]
    weight = weight.repeat_interleave(wide // weight.shape[-1], -1)
    values = elements.repeat(*[1] * (elements.ndim - 1), wide // elements.shape[-1])[..., None, :]  # (E, 1, Z)
    maps = []
    for k in range(3):
        (slope,) = torch.autograd.grad(logits[:, k].sum(), z, retain_graph=True)
        slope = slope if pool.vectors else slope[..., None, :]
        maps.append((weight * values * arranged.sets.expand(slope)).sum((-2, -1)))
    return arranged.restore_elements(torch.stack(maps, -1), vectors=False).detach()


@pytest.mark.parametrize(("case", "layout", "head"), list(combinations()))
def test_every_element_by_the_formula_in_any_chunks(case, layout, head):
    pool, module, x, sets = setup(case, layout, head)
    expected = by_the_formula(pool, module, x, sets)
    for chunk in (None, 2):
        _, maps = contributions(pool, module, x, chunk=chunk, **sets)
        torch.testing.assert_close(maps, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("reduction", ["mean", "attention", "max"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_chunks_in_single_precision(reduction, channels_last):
    torch.manual_seed(0)
    x = torch.randn(1, 32, 12, 13, 14)
    x = x.to(memory_format=torch.channels_last_3d) if channels_last else x
    pool, head = Pool("b c [d h w]", reduction, channels=32), nn.Linear(32, 2)
    mask = torch.rand(1, 12, 13, 14) > 0.3
    _, whole = contributions(pool, head, x, mask=mask)
    for chunk in (100, 1000, 10**9):
        _, maps = contributions(pool, head, x, mask=mask, chunk=chunk)
        torch.testing.assert_close(maps, whole, rtol=1e-5, atol=1e-7 * whole.abs().max().item() * 10)
    assert whole.is_contiguous() != channels_last


class Crossed(Reduction):
    """Two copies of three channels in three groups of two: the second group's channels are 2 and 0."""

    repeats = 2

    def partial(self, x, sets, count, *, with_weights=False):
        weight = torch.rand(*x.shape[:-1], 3, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
        z = sets.tally(weight.repeat_interleave(2, -1) * torch.cat([x, x], -1))
        return (z,), weight if with_weights else None

    def finalize(self, state, count):
        return state[0]


def test_groups_that_cross_the_channels():
    pool, head, x = Pool("b [n] c", Crossed()), nn.Linear(6, 3).double(), torch.randn(2, 5, 3, dtype=torch.float64)
    logits, maps = contributions(pool, head, x)
    torch.testing.assert_close(maps, by_the_formula(pool, head, x, {}))
    torch.testing.assert_close(maps.sum(1) + head.bias, logits)


class Allocations(TorchDispatchMode):
    """The bytes that are held at the worst moment beside what was there before."""

    def __init__(self):
        super().__init__()
        self.live, self.most, self.known = 0, 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {a.untyped_storage()._cdata for a in args if isinstance(a, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.known | given:
                    self.known.add(storage._cdata)
                    self.live += storage.nbytes()
                    self.most = max(self.most, self.live)
                    weakref.finalize(storage, functools.partial(self.free, storage._cdata, storage.nbytes()))
        return out

    def free(self, key, size):
        self.known.discard(key)
        self.live -= size


@pytest.mark.parametrize("layout", ["b c [d h w]", "b [d h w] c"])
@pytest.mark.parametrize("head", ["linear", "sequential"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_linear_rule_needs_the_memory_of_its_maps(reduction, head, layout):
    x = torch.randn(2, 64, 16, 16, 16)
    x = x.movedim(1, -1).contiguous() if layout.endswith("c") else x
    linear = nn.Linear(64, 2)
    module = linear if head == "linear" else nn.Sequential(nn.Flatten(), nn.Dropout(), linear)
    with Allocations() as allocations:
        _, maps = contributions(Pool(layout, reduction), module, x)
    assert allocations.most < 4 * maps.nbytes + 2**16  # maps, one chunk of them, one weight an element


def test_a_chunk_bounds_what_a_rule_with_a_weight_per_channel_needs():
    x, pool, head = torch.randn(1, 64, 16, 16, 16), Pool("b c [d h w]", "max"), nn.Linear(64, 2)

    def most(chunk):
        with Allocations() as allocations:
            contributions(pool, head, x, chunk=chunk)
        return allocations.most

    with Allocations() as of_the_pool, torch.no_grad():
        pool(x, return_weights=True)
    assert most(10**9) > of_the_pool.most
    assert most(256) <= of_the_pool.most + 2**16


def test_chunks_of_nothing():
    with pytest.raises(ValueError, match="chunk: expected a positive number of elements, got 0; None chooses one"):
        contributions(Pool("b c [t]"), nn.Linear(2, 1), torch.randn(1, 2, 3), chunk=0)


@pytest.mark.parametrize(
    ("layout", "shape", "sets"),
    [
        ("b c [t]", (0, 4, 5), {}),
        ("b c [t]", (2, 4, 0), {}),
        ("b c f [t]", (0, 4, 3, 5), {}),
        ("[n] c", (0, 4), {"index": torch.zeros(0, dtype=torch.long), "dim_size": 2}),
        ("[n] c", (0, 4), {"index": torch.zeros(0, dtype=torch.long), "dim_size": 0}),
    ],
)
@pytest.mark.parametrize("reduction", ["mean", "max", "attention"])
def test_nothing_to_explain(layout, shape, sets, reduction):
    pool = Pool(layout, reduction, channels=4)
    width = 12 if " f " in layout else 4
    logits, maps, gap = contributions(
        pool, nn.Sequential(nn.Flatten(), nn.Linear(width, 2)), torch.zeros(shape), return_gap=True, **sets
    )
    batch = sets.get("dim_size", shape[0])
    assert logits.shape == gap.shape == (batch, 2)
    expected = list(shape)
    expected[1] = 2
    assert list(maps.shape) == expected
    assert not gap.any()
