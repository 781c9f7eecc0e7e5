"""The faster paths are their definition: same numbers, same gradients, whatever the sets look like."""

from copy import deepcopy

import pytest
import torch
from every import BY_NAME, EVERY, LAYOUTS, calls, close, make, needs_coords
from forms import FORMS, lay, make_sets
from measure import peak_bytes
from torch.autograd import gradcheck, gradgradcheck

from modalpool import Pool, sets
from modalpool.kernels import Segments, cpu, definition, path, tuning
from modalpool.layout import Layout
from modalpool.reductions import Mean


@pytest.fixture(autouse=True)
def _fast_however_small(monkeypatch):
    monkeypatch.setattr(tuning, "FEW", 0)


@pytest.fixture
def by_definition(monkeypatch):
    """Compute something by the definition."""

    def compute(function):
        with monkeypatch.context() as patch:
            patch.setattr(sets, "path", plain_path)
            return function()

    return compute


def plain_path(values, of):
    return definition.Ragged(of) if isinstance(of, Segments) else definition.Dense(of)


def output_and_gradients(pool, x, given):
    leaf = x.detach().clone().requires_grad_()
    z = pool(leaf, **given)
    slope = torch.linspace(-1, 2, z.numel(), dtype=z.dtype).reshape(z.shape)
    inputs = [leaf, *pool.parameters()]
    return z, *torch.autograd.grad(z, inputs, slope, allow_unused=True, materialize_grads=True)


@EVERY
@pytest.mark.parametrize(("layout", "limit"), [("dense", 20), ("mask", 12), ("index", 4), ("ptr", 12)])
def test_every_reduction_in_chunks_is_that_of_everything(case, layout, limit, monkeypatch):
    monkeypatch.setattr(tuning, "MANY", 0)
    monkeypatch.setattr(tuning, "RULE_CHUNK", limit)
    monkeypatch.setattr(Mean, "in_chunks", lambda *_: True)
    call = calls(torch.float64, positive=True)[layout]
    pool = make(case, call.layout, dtype=torch.float64)
    given = needs_coords(pool, call)
    got = output_and_gradients(pool, call.x, given)
    monkeypatch.setattr(tuning, "MANY", 10**9)
    for one, all_at_once in zip(got, output_and_gradients(pool, call.x, given), strict=True):
        torch.testing.assert_close(one, all_at_once, rtol=1e-10, atol=1e-11)


@LAYOUTS
@pytest.mark.parametrize("name", ["logsumexp", "attention_gated", "std"])
def test_gradients_of_gradients_in_chunks(name, layout, monkeypatch):
    monkeypatch.setattr(tuning, "MANY", 0)
    monkeypatch.setattr(tuning, "RULE_CHUNK", 12)
    call = calls(torch.float64, positive=True)[layout]
    pool = make(BY_NAME[name], call.layout, dtype=torch.float64)
    x = call.x.requires_grad_()
    assert gradcheck(lambda x: pool(x, **needs_coords(pool, call)), [x], fast_mode=True)
    assert gradgradcheck(lambda x: pool(x, **needs_coords(pool, call)), [x], fast_mode=True)


@LAYOUTS
@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_reduction_is_its_definition(case, layout, dtype, by_definition):
    call = calls(dtype, positive=True)[layout]
    pool = make(case, call.layout)
    given = needs_coords(pool, call)
    for got, expected in zip(
        output_and_gradients(pool, call.x, given),
        by_definition(lambda: output_and_gradients(pool, call.x, given)),
        strict=True,
    ):
        close(got, expected, ulp=64 if got.dtype == torch.float32 else 2)


@pytest.mark.parametrize("name", ["mean", "sum", "max", "min", "std", "softmax", "attention", "mean+std+max"])
@pytest.mark.parametrize("form", [form for form in FORMS if not form.startswith("jagged")])  # which are ptr
@pytest.mark.parametrize("weighted", [False, True])
def test_masks_weights_poison_and_infinities(name, form, weighted, by_definition):
    case = BY_NAME[name]
    for real in (0.0, float("inf")):
        given = make_sets(weighted=weighted)
        given.x[0, 0] += real
        laid = lay(form, given, weighted=weighted, poison=float("nan"))
        pool = make(case, laid.layout, dtype=torch.float64)
        for got, expected in zip(
            output_and_gradients(pool, laid.x, laid.sets)[: 1 if real else None],
            by_definition(lambda pool=pool, laid=laid: output_and_gradients(pool, laid.x, laid.sets)),
            strict=not real,
        ):
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-11, equal_nan=True)


SIZES = [3, 0, 2000, 1, 0, 1500, 5, 0]  # long sets are cut


def ragged(*, ordered, channels=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    index = torch.repeat_interleave(torch.arange(len(SIZES)), torch.tensor(SIZES))
    x = torch.randn(len(index), channels, generator=generator, dtype=dtype)
    index = index if ordered else index[torch.randperm(len(index), generator=generator)]
    return x, index


def both(operation, x, index, *, many=None, fast=cpu.Ragged, size=None):
    """An operation's outputs and the gradients of x, fast and by definition."""
    results = []
    for group in (fast, definition.Ragged):
        leaf = x.clone().requires_grad_()
        outputs = operation(group(Segments(size or len(SIZES), len(x), index=index)), leaf, many)
        outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
        finite = [torch.where(out.isfinite(), out, 0.0) for out in outputs]
        slopes = [torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape) for out in outputs]
        results.append((*outputs, *torch.autograd.grad(finite, leaf, slopes)))
    return zip(*results, strict=True)


MATRIX = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(4, 4)


def sizes_of(group):
    return group.segments.lengths.clamp(min=1)[:, None].to


OPERATIONS = {
    "sum": lambda g, x, many: g.sum(x, many),
    "mean": lambda g, x, many: g.mean(x),
    "max": lambda g, x, many: g.max(x, many),
    "max of ties": lambda g, x, many: g.max(x.round(), many),
    "min": lambda g, x, many: g.min(x, many),
    "min of ties": lambda g, x, many: g.min(x.round(), many),
    "attend": lambda g, x, many: g.attend(x, MATRIX.to(x), many, queries=2),
    "attend whole": lambda g, x, many: g.attend(x, MATRIX.to(x), many, queries=2, all_channels=True),
    "attend from far": lambda g, x, many: g.attend(x + 300, MATRIX.to(x), many, queries=2),
    "attend one": lambda g, x, many: g.attend(x, MATRIX[:1].to(x), many),
    "weighted sum": lambda g, x, many: g.weighted_sum((x[:, :2, None] + x[:, None, 2:]).sigmoid(), x, many),
    "softmax": lambda g, x, many: g.softmax(x, many),
    "softmax from far": lambda g, x, many: g.softmax(x + 300, many),
    "soften": lambda g, x, many: g.soften(x, 1.5, many),
    "soften from far": lambda g, x, many: g.soften(x + 300, 1.5, many),
    "power cut at one": lambda g, x, many: g.power(x + 1, 3.0, 1.0, many, sizes_of(g)),
    "power beyond": lambda g, x, many: g.power(x + 3, 90.0, 1e-6, many, sizes_of(g)),
    "power": lambda g, x, many: g.power(x + 3, 2.5, 1e-6, many, sizes_of(g)),
    "soften downward from far": lambda g, x, many: g.soften(x + 300, -1.5, many),
    "moments": lambda g, x, many: g.moments(x, many, sizes_of(g)),
    "moments from far": lambda g, x, many: g.moments(x + 1000, many, sizes_of(g)),
}


@pytest.mark.parametrize(("wide", "chunk"), [(1, 2**8), (1000, 2**18)])
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("name", OPERATIONS)
def test_ragged_operations_on_short_and_long_sets(name, ordered, wide, chunk, monkeypatch):
    monkeypatch.setattr(tuning, "WIDE", wide)
    monkeypatch.setattr(tuning, "CHUNK", chunk)
    x, index = ragged(ordered=ordered)
    for got, expected in both(OPERATIONS[name], x, index):
        # exp(x) is 2^(x log2 e): a relative error of |x| half-ulps.
        torch.testing.assert_close(got, expected, rtol=1e-12 if "far" not in name else 1e-9, atol=1e-12)


@pytest.mark.parametrize("ordered", [True, False])
def test_maxima_of_sets_with_infinities_and_nan(ordered):
    x, index = ragged(ordered=ordered)
    x[::7, 0], x[::5, 1], x[::1000, 2], x[:, 3] = torch.inf, -torch.inf, torch.nan, -torch.inf
    got = cpu.Ragged(Segments(len(SIZES), len(x), index=index)).max(x)
    for i, size in enumerate(SIZES):
        expected = x[index == i].amax(0) if size else torch.full((4,), -torch.inf, dtype=x.dtype)
        torch.testing.assert_close(got[i], expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("value", [0.1, -0.3, 3e38, float("inf"), float("-inf")])
def test_the_definition_of_a_maximum_rounds_nothing(value):
    x = torch.full((7, 2), value)
    x[5:] = min(value, 0.0) - 1
    x.requires_grad_()
    top = definition.Ragged(Segments(3, 7, index=torch.tensor([0, 2, 2, 2, 2, 2, 0]))).max(x)
    assert top[[0, 2]].tolist() == [[x[0, 0].item()] * 2] * 2
    assert top[1].tolist() == [-torch.inf] * 2
    (slope,) = torch.autograd.grad(top[[0, 2]], x, torch.ones(2, 2))
    if value > -torch.inf:  # otherwise all tie
        torch.testing.assert_close(slope[:, 0], torch.tensor([1, 0.25, 0.25, 0.25, 0.25, 0, 0]))


@pytest.mark.parametrize("name", ["sum", "max", "min"])
@pytest.mark.parametrize("kind", [torch.bool, torch.float64])
def test_what_is_not_there_is_not_read(name, kind):
    x, index = ragged(ordered=True)
    many = (torch.arange(len(x)) % 3 > 0).to(kind) * (1 if kind == torch.bool else 1.5)
    many = many.to(kind)
    x[many == 0] = float("nan")
    for got, expected in both(OPERATIONS[name], x, index, many=many):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_sums_and_maxima_in_any_order(dtype):
    x, index = ragged(ordered=False, dtype=dtype)
    for name in ("sum", "max", "max of ties", "min", "min of ties"):
        for got, expected in both(OPERATIONS[name], x, index):
            torch.testing.assert_close(got, expected, rtol=1e-5 if got.dtype == torch.float32 else 1e-2, atol=1e-4)


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_of_gradients_of_the_fast_form(name):
    index = torch.tensor([0, 2, 2, 0, 2])
    x = torch.linspace(-2, 2, 20, dtype=torch.float64).cos().reshape(5, 4).requires_grad_()

    def function(x):
        segments = Segments(3, 5, index=index)
        found = OPERATIONS[name.removesuffix(" of ties")](cpu.Ragged(segments), x, None)
        found = (found,) if isinstance(found, torch.Tensor) else found
        return tuple(torch.where(out.isfinite(), out, 0.0) for out in found)

    assert gradcheck(function, [x], check_batched_grad=True)
    if name == "moments from far" or "far" not in name:  # second differences drown in 300
        assert gradgradcheck(function, [x])


FEW = torch.tensor([0, 2, 2, 0, 2])  # set 1 is empty


def few_elements(name, value=0.0):
    x = torch.linspace(-2, 2, 20, dtype=torch.float64).cos().reshape(5, 4)
    x[1, 0] += value
    return x, OPERATIONS[name]


@pytest.mark.parametrize("value", [0.0, float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("name", OPERATIONS)
def test_few_elements_take_shorter_steps_to_the_same_numbers(name, value):
    x, operation = few_elements(name, value)
    for got, expected in both(operation, x, FEW, fast=cpu.FewRagged, size=3):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("bounds", [{"index": FEW}, {"ptr": torch.tensor([0, 2, 2, 5])}])
@pytest.mark.parametrize("name", OPERATIONS)
def test_few_elements_without_gradient(name, bounds):
    x, operation = few_elements(name)
    with torch.no_grad():
        groups = (cpu.FewRagged, definition.Ragged)
        got, expected = (operation(group(Segments(3, 5, **bounds)), x, None) for group in groups)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_of_gradients_of_few_elements(name):
    x, operation = few_elements(name)

    def function(x):
        found = operation(cpu.FewRagged(Segments(3, 5, index=FEW)), x, None)
        found = (found,) if isinstance(found, torch.Tensor) else found
        return tuple(torch.where(out.isfinite(), out, 0.0) for out in found)

    if not name.endswith("of ties"):  # rounding has no slope
        assert gradcheck(function, [x.requires_grad_()])
    if "far" not in name:  # second differences drown in the offset
        assert gradgradcheck(function, [x.requires_grad_()])


@pytest.mark.parametrize("size", [5, 1100])  # long ones are divided again
@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("times", [None, "mask", "weight", "an empty set", "low scores"])
def test_dense_softmax_along_memory_or_across_it(size, channels_first, times):
    x = torch.randn(2, 3, size, dtype=torch.float64) if channels_first else torch.randn(2, size, 3, dtype=torch.float64)
    x = x.mT if channels_first else x
    many = None
    if times == "low scores":
        x[:, 1] = -torch.inf
    elif times:
        many = torch.arange(size).expand(2, -1) % 3 > 0
        many[0] &= times != "an empty set"
        x[~many] = torch.nan
        many = many * torch.linspace(0.5, 2, size) if times == "weight" else many
    x = x.requires_grad_()
    got, expected = cpu.Dense((1,)).softmax(x, many), definition.Dense((1,)).softmax(x, many)
    with torch.no_grad():
        torch.testing.assert_close(cpu.Dense((1,)).softmax(x, many), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    slopes = [torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape) for out in got]
    for used in ([0], [1], [0, 1]):
        gradients = [
            torch.autograd.grad([outs[i] for i in used], x, [slopes[i] for i in used], retain_graph=True)[0]
            for outs in (got, expected)
        ]
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("times", [None, "mask", "weight", "an empty set"])
@pytest.mark.parametrize("far", [0.0, 500.0, -500.0, torch.inf])
@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_dense_softening_in_blocks(channels_first, times, far, kind, monkeypatch):
    monkeypatch.setattr(tuning, "CHUNK", 7)
    x = torch.linspace(-3, 3, 72).cos().to(kind).reshape(2, 3, 4, 3)
    x = x.movedim(1, 3).contiguous().movedim(3, 1) if channels_first else x
    x[..., 0] += far  # another channel is near
    many = None
    if times:
        many = torch.arange(12).reshape(3, 4).expand(2, -1, -1) % 3 > 0
        many[0] &= times != "an empty set"
        x[~many] = torch.nan
        many = many * torch.linspace(0.5, 2, 4, dtype=torch.float64) if times == "weight" else many
    leaf = x.requires_grad_()
    results = []
    for group in (cpu.Dense, definition.Dense):
        outputs = group((1, 2)).soften(leaf, 1.5, many)
        slopes = [torch.linspace(-1, 2, out.numel()).reshape(out.shape).to(out.dtype) for out in outputs]
        results.append([*outputs, *(torch.autograd.grad(outputs, leaf, slopes) if far < torch.inf else ())])
    for got, expected in zip(*results, strict=True):
        rtol, atol = {torch.float64: (1e-12, 1e-12), torch.float32: (1e-5, 1e-5)}.get(got.dtype, (1e-2, 1e-2))
        torch.testing.assert_close(got, expected, rtol=rtol, atol=atol, equal_nan=True)


@pytest.mark.parametrize("near", [0, 1000])
@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_dense_attention_with_small_and_large_matrices(near, channels_first, masked, monkeypatch):
    monkeypatch.setattr(tuning, "NEAR", near)
    x = torch.linspace(-3, 3, 48, dtype=torch.float64).cos().reshape(2, 6, 4)
    x = x.mT.contiguous().mT if channels_first else x
    many = torch.tensor([[True] * 5 + [False], [False, True] * 3]) if masked else None
    x, matrix = x.requires_grad_(), MATRIX[:2].clone().requires_grad_()
    results = []
    for group in (cpu.Dense, definition.Dense):
        outputs = group((1,)).attend(x, matrix, many)
        slopes = [torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape) for out in outputs]
        results.append((*outputs, *torch.autograd.grad(outputs, [x, matrix], slopes)))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("regions", {"regions": 3, "grid": [2, 2]}),
        ("regions", {"regions": 3, "score": "none", "grid": [2, 2]}),
        ("attention", {"score": "gated", "heads": 2}),
        ("attention", {"score": "linear", "grid": [2, 2]}),
    ],
)
def test_scores_are_the_same_wherever_channels_lie(name, options, masked):
    x = torch.linspace(-3, 3, 96, dtype=torch.float64).cos().reshape(2, 4, 3, 4)
    mask = torch.arange(12).reshape(3, 4).expand(2, -1, -1) % 3 > 0 if masked else None
    first, last = (Pool(layout, name, channels=4, **options).double() for layout in ("b c [h w]", "b [h w] c"))
    for parameter in first.parameters():
        torch.nn.init.normal_(parameter)
    last.load_state_dict(first.state_dict())
    expected = output_and_gradients(last, x.permute(0, 2, 3, 1).contiguous(), {"mask": mask})
    got = output_and_gradients(first, x, {"mask": mask})
    torch.testing.assert_close(got[1].permute(0, 2, 3, 1), expected[1])
    for one, other in zip((got[0], *got[2:]), (expected[0], *expected[2:]), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("times", [None, "mask", "weight", "an empty set"])
@pytest.mark.parametrize("p", [0.5, 1.0, 3.0, 40.0])
@pytest.mark.parametrize("scale", [1.0, 1e-10, 1e30])
def test_dense_power_means_in_blocks(channels_first, times, p, scale, monkeypatch):
    monkeypatch.setattr(tuning, "CHUNK", 7)
    x = scale * torch.linspace(-3, 3, 72, dtype=torch.float64).cos().reshape(2, 3, 4, 3)
    x[0, 0, 0, 0] = 1e-6  # which is epsilon
    x = x.movedim(1, 3).contiguous().movedim(3, 1) if channels_first else x
    many, size = None, torch.full((2, 1), 12.0, dtype=torch.float64)
    if times:
        many = torch.arange(12).reshape(3, 4).expand(2, -1, -1) % 3 > 0
        many[0] &= times != "an empty set"
        x[~many] = torch.nan
        many = many * torch.linspace(0.5, 2, 4, dtype=torch.float64) if times == "weight" else many
        size = many.sum((1, 2)).clamp(min=1).double()[:, None]
    x.requires_grad_()
    results = []
    for group in (cpu.Dense, definition.Dense):
        z = group((1, 2)).power(x, p, 1e-6, many, lambda _: size)
        slope = torch.linspace(-1, 2, z.numel(), dtype=z.dtype).reshape(z.shape)
        results.append([z, *torch.autograd.grad(z, x, slope)])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


def test_gradients_of_gradients_of_a_dense_power_mean():
    x = torch.linspace(0.2, 2, 12, dtype=torch.float64).cos().reshape(2, 3, 2).requires_grad_()
    size = torch.full((2, 1), 3.0, dtype=torch.float64)
    assert gradcheck(lambda x: cpu.Dense((1,)).power(x, 3.0, 1e-6, None, lambda _: size), [x])
    assert gradgradcheck(lambda x: cpu.Dense((1,)).power(x, 3.0, 1e-6, None, lambda _: size), [x])


def test_gradients_of_gradients_of_a_dense_softening():
    x = torch.linspace(-2, 2, 12, dtype=torch.float64).cos().reshape(2, 3, 2).requires_grad_()
    many = torch.tensor([[True, True, False], [True, False, True]])
    for given in (None, many, many * 1.5):
        for far in (0, 50):  # from where a set's largest value is taken off
            assert gradcheck(lambda x, m=given, far=far: cpu.Dense((1,)).soften(x + far, 1.0, m), [x])
            assert gradgradcheck(lambda x, m=given, far=far: cpu.Dense((1,)).soften(x + far, 1.0, m), [x], atol=1e-4)


def test_gradients_of_gradients_of_a_dense_softmax():
    x = torch.linspace(-2, 2, 12, dtype=torch.float64).cos().reshape(2, 3, 2).requires_grad_()
    many = torch.tensor([[True, True, False], [True, False, True]])
    for mask in (None, many):
        assert gradcheck(lambda x, mask=mask: cpu.Dense((1,)).softmax(x, mask), [x])
        assert gradgradcheck(lambda x, mask=mask: cpu.Dense((1,)).softmax(x, mask), [x])


@pytest.mark.parametrize("layout", LAYOUTS.args[1])
@pytest.mark.parametrize("limit", [12, 200])  # some elements at a time, some sets
def test_attention_without_a_gradient_writes_few_weights(layout, limit, monkeypatch):
    monkeypatch.setattr(tuning, "MANY", 0)
    monkeypatch.setattr(tuning, "RULE_CHUNK", limit)
    call = calls(torch.float64)[layout]
    pool = make(BY_NAME["attention"], call.layout, dtype=torch.float64)
    arranged = pool.arrange(call.x, **needs_coords(pool, call))
    assert pool.reduction.in_chunks(arranged.elements, arranged.sets)
    with torch.no_grad():
        got = pool(call.x, **needs_coords(pool, call))
        monkeypatch.setattr(tuning, "MANY", 10**9)
        torch.testing.assert_close(got, pool(call.x, **needs_coords(pool, call)), rtol=1e-12, atol=1e-12)


def test_sets_are_known_to_be_full_only_where_a_look_is_free():
    index = torch.tensor([0, 2, 1, 2])
    assert Segments(3, 4, index=index).full
    assert not Segments(4, 4, index=index).full
    assert not Segments(0, 0, ptr=torch.tensor([0])).full
    seen = []
    torch.vmap(lambda x: seen.append(Segments(3, 4, index=index).full) or x)(torch.ones(2))
    assert seen == [False]


def test_the_number_of_values_chooses_the_path(monkeypatch):
    monkeypatch.setattr(tuning, "FEW", 8)
    segments = Segments(2, 2, ptr=torch.tensor([0, 1, 2]))
    assert [type(path(torch.ones(2, 4), of)) for of in (segments, (1,))] == [cpu.FewRagged, definition.Dense]
    assert [type(path(torch.ones(3, 4), of)) for of in (segments, (1,))] == [cpu.Ragged, cpu.Dense]


def test_std_is_exact_at_any_offset():
    x, index = ragged(ordered=True, dtype=torch.float32)
    shifted = (x.double() + 1000).float()
    exact = Pool("[n] c", "std")(shifted.double(), index=index, dim_size=len(SIZES))
    got = Pool("[n] c", "std")(shifted, index=index, dim_size=len(SIZES))
    assert ((got - exact).abs() <= 2e-6 * exact).all()


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("name", "dtype"),
    [("mean", torch.float32), ("mean", torch.bfloat16), ("max", torch.bfloat16), ("attention", torch.float32)],
)
def test_dense_gradients_lie_in_memory_as_the_input_does(name, dtype, memory):
    x = torch.randn(2, 8, 5, 6).to(dtype).contiguous(memory_format=memory).requires_grad_()
    mask = torch.rand(2, 5, 6) < 0.7
    pool = Pool("b c [h w]", name, channels=8)
    (grad,) = torch.autograd.grad(pool(x, mask=mask).sum(), x)
    assert grad.is_contiguous(memory_format=memory)


@pytest.mark.parametrize("layout", ["b c [d h w]", "b [d h] w c", "b c f [t]"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_means_are_torchs_own_to_the_bit(layout, dtype):
    x = torch.randn(2, 6, 4, 5, 3)[..., 0] if layout.count(" ") == 3 else torch.randn(2, 6, 4, 5, 3)
    dims = {"b c [d h w]": (2, 3, 4), "b [d h] w c": (1, 2), "b c f [t]": (3,)}[layout]
    results = []
    for mean in (Pool(layout), lambda x: x.mean(dims)):
        given = x.to(dtype).requires_grad_()
        z = mean(given)
        slope = torch.linspace(-1, 2, z.numel(), dtype=dtype).reshape(z.shape)
        results.append((z, *torch.autograd.grad(z, given, slope)))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("layout", ["b c [d h w]", "b [d h] w c", "b [d h w] c", "b c d h [w]"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last_3d])
def test_half_means_of_many_elements_are_rounded_once(layout, dtype, memory, monkeypatch):
    monkeypatch.setattr(tuning, "MANY", 2**11)
    monkeypatch.setattr(tuning, "CHUNK", 2**9)  # sets are cut, and there are several at a time
    x = (
        torch.randn(3, 16, 12, 10, 8, generator=torch.Generator().manual_seed(0))
        .to(dtype)
        .contiguous(memory_format=memory)
    )
    dims = Layout(layout).axes(5).pooled
    got, own = Pool(layout)(x), x.mean(dims)
    torch.testing.assert_close(got, own, rtol=torch.finfo(dtype).eps, atol=0)
    assert (got == own).float().mean() > 0.99
    assert peak_bytes(lambda: Pool(layout)(x), "cpu") < 0.3 * x.nbytes + 5 * got.nbytes


@pytest.mark.parametrize("offset", [0.0, 20.0, 1e4])
@pytest.mark.parametrize("name", ["mean", "var", "std", "power", "softmax", "attention"])
def test_few_elements_in_single_precision_against_double(name, offset):
    torch.manual_seed(0)
    x, index = torch.randn(60, 8) + offset, torch.arange(60) % 7
    pool = Pool("[n] c", name, channels=8)
    got, exact = pool(x, index=index, dim_size=9), deepcopy(pool).double()(x.double(), index=index, dim_size=9)
    torch.testing.assert_close(got.double(), exact, rtol=3e-6, atol=1e-6)
    assert not got[7:].any()
