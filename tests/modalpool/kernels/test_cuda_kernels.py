"""The Triton kernels against float64 loops: on a GPU if there is one, and without one under Triton's interpreter.

The interpreter has to be chosen before anything imports Triton, so this file runs itself again in a process of its own.
"""

import os
import subprocess
import sys

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
anywhere = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(), reason="runs on a CUDA device, or from test_interpreted"
)
on_a_card = pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="needs a CUDA device")

if INTERPRETED:
    from triton.runtime import interpreter

    def _patch(tensor, scope, patch=interpreter._patch_lang_tensor):
        patch(tensor, scope)
        # Scalars are arrays with one element there, which NumPy 2.4 no longer takes for integers.
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = _patch

if INTERPRETED or torch.cuda.is_available():
    from hypothesis import given, settings
    from hypothesis import strategies as st

    from modalpool.kernels import Segments, cuda, tuning
    from modalpool.kernels.cuda import ops
else:  # the checks below are only collected
    from hypothesis import given, settings
    from hypothesis import strategies as st

RULES = ["sum", "max", "min", "soften", "attend", "weighted", "whole", "each", "sparse"]
QUICK = ["sum", "max", "min", "soften", "weighted"]  # each has a kernel of its own
SLOW = pytest.mark.slow


def run_again(*flags):
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", *flags, __file__],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]
    assert " passed" in result.stdout


@pytest.mark.skipif(INTERPRETED, reason="this is the process it starts")
def test_interpreted():
    pytest.importorskip("triton")
    run_again("-m", "not slow")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(INTERPRETED, reason="this is the process it starts")
def test_interpreted_slowly():
    pytest.importorskip("triton")
    run_again("-m", "slow")


def by_hand(rule, x, sets, many, extra, *, scale=1.0):
    """What a rule gives for elements ``(N, C)``, set by set, in the type of x."""
    channels = x.shape[1]
    first, second = [], []
    for rows in sets:
        rows = rows[many[rows] > 0]
        values, times = x[rows], many[rows]
        if rule == "sum":
            first.append((times[:, None] * values).sum(0))
        elif rule in ("max", "min"):
            # Ties share: the mean of the elements that attain the extreme.
            best = values == (getattr(values, f"a{rule}")(0) if len(rows) else 0)
            shared = torch.where(best, values, 0.0).sum(0) / best.sum(0).clamp(min=1)
            nothing = -torch.inf if rule == "max" else torch.inf
            first.append(shared if len(rows) else x.new_full((channels,), nothing))
        elif rule in ("weighted", "each", "sparse"):
            share = extra[rows]  # (n, K, G)
            groups = values.unflatten(1, (share.shape[2], -1))
            first.append((share[..., None] * groups[:, None]).sum(0).flatten(1))
        else:
            scores = values * scale if rule == "soften" else values @ extra.T
            scores = scores + times.log()[:, None]
            weight = scores.softmax(0)
            if rule == "soften":
                first.append((weight * values).sum(0))
            elif rule == "whole":
                first.append(weight.T @ values)
            else:
                heads = weight.shape[1] // 2  # two queries
                groups = values.unflatten(1, (heads, -1))
                z = torch.einsum("nkh,nhd->khd", weight.unflatten(1, (2, heads)), groups)
                first.append(z.flatten(1))
            second.append(scores.logsumexp(0).reshape(-1) if len(rows) else x.new_full((weight.shape[1],), -torch.inf))
    return (torch.stack(first), torch.stack(second)) if second else (torch.stack(first),)


def by_kernel(rule, x, segments, many, extra, *, scale=1.0):
    group = cuda.Ragged(segments)
    if rule in ("sum", "max", "min"):
        return (getattr(group, rule)(x, many),)
    if rule == "soften":
        return group.soften(x, scale, many)
    if rule in ("weighted", "each", "sparse"):
        return (group.weighted_sum(extra, x, many, exact_zeros=rule != "weighted"),)
    z, log_mass = group.attend(x, extra, many, queries=2, all_channels=rule == "whole")
    return z, log_mass.flatten(1)


def extra_of(rule, count, channels, there):
    """Weights, which are zero where nothing is there, or the matrix of attention."""
    if rule in ("weighted", "sparse"):
        weight = torch.randn(count, 2, 2 if channels % 2 == 0 else 1) * there[:, None, None]
        return weight if rule == "weighted" else weight.relu()
    if rule == "each":
        return torch.randn(count, 1, channels).relu() * there[:, None, None]
    heads = 2 if channels % 2 == 0 else 1
    return torch.randn(2 * heads, channels) / channels**0.5 if rule in ("attend", "whole") else None


def slopes(outputs):
    return [torch.linspace(-1, 2, z.numel()).reshape(z.shape).to(z) for z in outputs]


def finite(outputs):
    return [torch.where(z.isfinite(), z, 0.0) for z in outputs]


def gradients(outputs, inputs, *, again=False):
    """Of all outputs, and if asked for those of a weighted sum of the first gradients."""
    inputs = [given for given in inputs if given is not None]
    outputs = finite(outputs)
    outputs = [z.sin() for z in outputs] if again else outputs  # so that there is something to differentiate
    pairs = [(z, slope) for z, slope in zip(outputs, slopes(outputs), strict=True) if z.requires_grad]
    if not pairs:  # loops over nothing but empty sets
        return [torch.zeros_like(given) for given in inputs]
    first = torch.autograd.grad(
        [z for z, _ in pairs], inputs, [slope for _, slope in pairs], create_graph=again, materialize_grads=True
    )
    if not again:
        return first
    total = sum((g.double() * s.double()).sum() for g, s in zip(first, slopes(first), strict=True))
    return torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)


def check(rule, lengths, channels, *, dtype=torch.float32, many=None, ordered=True, again=False, turned=False, seed=0):
    """Outputs and gradients of a kernel and of the loops; what is not there is NaN."""
    torch.manual_seed(seed)
    count = sum(lengths)
    x = torch.randn(count, channels).to(dtype)
    if rule in ("max", "min"):
        x = (x * 2).round() / 2  # ties
    if turned:
        x = x.T.contiguous().T
    times = {None: torch.ones(count), "mask": (torch.rand(count) > 0.3).float(), "weight": torch.rand(count) * 2 - 0.5}
    times = times[many].clamp(min=0)
    extra = extra_of(rule, count, channels, times > 0)
    index = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    ptr = torch.tensor([0, *lengths]).cumsum(0)
    if not ordered:
        index = index[torch.randperm(count)]
    sets = [(index == s).nonzero().flatten() for s in range(len(lengths))]

    exact = x.double().requires_grad_()
    exact_extra = None if extra is None else extra.double().requires_grad_()
    want = by_hand(rule, exact, sets, times.double(), exact_extra)
    expected = gradients(want, [exact, exact_extra], again=again)

    poisoned = torch.where(times[:, None] > 0, x, torch.nan) if many else x
    poisoned = torch.empty_like(x).copy_(poisoned) if turned else poisoned
    where = {"ptr": ptr} if ordered else {"index": index}
    segments = Segments(len(lengths), count, **{name: t.to(DEVICE) for name, t in where.items()})
    given_x = poisoned.to(DEVICE).requires_grad_()
    given_extra = None if extra is None else extra.to(DEVICE).requires_grad_()
    given_many = {None: None, "mask": times > 0, "weight": times}[many]
    given_many = None if given_many is None else given_many.to(DEVICE)
    got = by_kernel(rule, given_x, segments, given_many, given_extra)
    found = gradients(got, [given_x, given_extra], again=again)

    sizes = torch.tensor(lengths).clamp(min=1)
    for z, w in zip(got, want, strict=True):
        assert z.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        torch.testing.assert_close(z.cpu().double(), w, rtol=2e-5, atol=2e-6 * sizes.max().item() ** 0.5)
    rounding = {torch.float16: 2e-3, torch.bfloat16: 1e-2}.get(dtype, 5e-5)
    for g, w in zip(found, expected, strict=True):
        scale = max(w.abs().max().item(), 1.0) if w.numel() else 1.0
        torch.testing.assert_close(g.cpu().double(), w, rtol=rounding, atol=(rounding if again else 5e-6) * scale)
    with torch.no_grad():
        for z, w in zip(by_kernel(rule, given_x, segments, given_many, given_extra), want, strict=True):
            torch.testing.assert_close(z.cpu().double(), w, rtol=2e-5, atol=2e-6 * sizes.max().item() ** 0.5)


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles so small that a few dozen elements are many parts, and parts so few that they have to grow."""
    monkeypatch.setattr(tuning, "TILE", 2)
    monkeypatch.setattr(tuning, "LAUNCHES", 4)


@anywhere
@pytest.mark.parametrize("rule", [*QUICK, *(pytest.param(rule, marks=SLOW) for rule in RULES if rule not in QUICK)])
def test_sets_in_any_order(rule):
    check(rule, [3, 0, 1, 7], 6, many="weight", ordered=False)


@anywhere
@pytest.mark.parametrize("rule", ["sum", "soften", pytest.param("max", marks=SLOW)])
def test_long_sets_in_parts(rule, small_tiles):
    check(rule, [1, 70, 0, 3], 2, many="mask")


@anywhere
@pytest.mark.parametrize("rule", ["weighted", pytest.param("attend", marks=SLOW)])
def test_half_precision_and_strides(rule):
    check(rule, [5, 2], 3, dtype=torch.bfloat16, turned=True)


@anywhere
@pytest.mark.parametrize("rule", [*QUICK, pytest.param("attend", marks=SLOW)])
def test_second_derivatives(rule):
    check(rule, [4, 1], 2, many="mask", again=True)


@anywhere
def test_infinities_share_the_weight_and_nan_stays():
    inf, nan = torch.inf, torch.nan
    x = torch.tensor([[inf, -inf, -inf, nan], [1.0, 2.0, -inf, 1.0], [inf, 3.0, -inf, inf]], device=DEVICE)
    segments = Segments(2, 3, ptr=torch.tensor([0, 3, 3], device=DEVICE))
    z, log_mass = cuda.Ragged(segments).soften(x, 1.0)
    soft = (2 * torch.exp(torch.tensor(-1.0)) + 3) / (1 + torch.exp(torch.tensor(-1.0)))
    torch.testing.assert_close(z[0].cpu(), torch.tensor([inf, soft.item(), -inf, nan]), equal_nan=True)
    torch.testing.assert_close(z[1].cpu(), torch.zeros(4))
    assert log_mass[0, [0, 2]].tolist() == [inf, -inf]
    assert log_mass[1].tolist() == [-inf] * 4
    top = cuda.Ragged(segments).max(x)
    torch.testing.assert_close(top[0].cpu(), torch.tensor([inf, 3.0, -inf, nan]), equal_nan=True)
    assert top[1].tolist() == [-inf] * 4
    bottom = cuda.Ragged(segments).min(x)
    torch.testing.assert_close(bottom[0].cpu(), torch.tensor([1.0, -inf, -inf, nan]), equal_nan=True)
    assert bottom[1].tolist() == [inf] * 4


@anywhere
def test_dense_sets_in_any_memory_order():
    """Mask that varies along a kept axis, channels first in memory: a masked mean's sum, maximum and softmax."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 2, 3, 4).permute(0, 2, 3, 4, 1)  # (B, kept, P, P, C)
    mask = torch.rand(2, 2, 3, 1) > 0.4
    poisoned = torch.where(mask[..., None], x, torch.nan).to(DEVICE).requires_grad_()
    exact = x.double().requires_grad_()
    there = mask.expand(2, 2, 3, 4)
    sets = [(b, k) for b in range(2) for k in range(2)]
    for name in ("sum", "max", "soften"):
        arguments = (*((1.0,) if name == "soften" else ()), mask.to(DEVICE))
        got = getattr(cuda.Dense((2, 3)), name)(poisoned, *arguments)
        got = got if isinstance(got, tuple) else (got,)
        rows = [exact[b, k][there[b, k]] for b, k in sets]
        whole = [torch.arange(len(row)) for row in rows]
        want = [
            by_hand(name, row, [all_], torch.ones(len(row)).double(), None)
            for row, all_ in zip(rows, whole, strict=True)
        ]
        want = tuple(torch.cat(column).reshape(2, 2, 3) for column in zip(*want, strict=True))
        for z, w in zip(got, want, strict=True):
            torch.testing.assert_close(z.cpu().double(), w, rtol=1e-5, atol=1e-5)
        (g,), (w,) = gradients(got, [poisoned]), gradients(want, [exact])
        torch.testing.assert_close(g.cpu().double(), w, rtol=1e-5, atol=1e-5)
        assert g.stride() == poisoned.stride()


@anywhere
def test_a_set_gives_the_same_bits_in_any_batch():
    """Whatever else is in the batch, and in every run: no atomics, no order of arrival."""
    torch.manual_seed(0)
    parts = [torch.randn(n, 3, device=DEVICE) for n in (4, 9, 2)]

    def pooled(order):
        x = torch.cat([parts[i] for i in order])
        ptr = torch.tensor([0, *(len(parts[i]) for i in order)], device=DEVICE).cumsum(0)
        return cuda.Ragged(Segments(3, len(x), ptr=ptr)).soften(x, 1.0)[0]

    assert torch.equal(pooled([0, 1, 2])[1], pooled([2, 0, 1])[2])


@anywhere
@pytest.mark.slow
def test_compiled_as_one_operation():
    x = torch.randn(9, 4, device=DEVICE, requires_grad=True)
    ptr = torch.tensor([0, 4, 9], device=DEVICE)

    def pool(x, ptr):
        group = cuda.Ragged(Segments(2, 9, ptr=ptr))
        return group.sum(x) + group.soften(x, 1.0)[0]

    eager = pool(x, ptr)
    compiled = torch.compile(pool, fullgraph=True, backend="aot_eager")(x, ptr)
    torch.testing.assert_close(compiled, eager)
    slope = torch.randn_like(eager)
    (g,), (w,) = torch.autograd.grad(compiled, [x], slope), torch.autograd.grad(eager, [x], slope)
    torch.testing.assert_close(g, w)


@anywhere
@pytest.mark.slow
@pytest.mark.parametrize("ragged", [True, False])
def test_ops_keep_what_they_promise(ragged):
    """torch's own checks: schema, no mutation, fake tensors, autograd registration."""
    torch.manual_seed(0)
    x = torch.randn(*(1, 1, 6) if ragged else (2, 1, 3), 2, 2, device=DEVICE, requires_grad=True)
    ptr = torch.tensor([0, 2, 6], device=DEVICE) if ragged else None
    order = torch.randperm(6).to(DEVICE) if ragged else None
    many = torch.ones(x.shape[:4], device=DEVICE)
    weight = torch.randn(*x.shape[:3], 1, 2, device=DEVICE, requires_grad=True)
    sets = (many, ptr, order)
    torch.library.opcheck(ops.set_sum, (x, weight, *sets, True))
    torch.library.opcheck(ops.set_sum, (x, None, *sets, False))
    torch.library.opcheck(ops.set_max, (x, *sets, True, False))
    torch.library.opcheck(ops.set_max, (x, *sets, True, True))
    torch.library.opcheck(ops.set_soften, (x, 1.5, *sets))


LENGTHS = st.lists(st.sampled_from([0, 0, 1, 2, 3, 5, 8, 17, 40]), min_size=1, max_size=6)


@anywhere
@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=15 if INTERPRETED else 200, deadline=None, database=None)
@given(
    lengths=LENGTHS,
    channels=st.sampled_from([1, 2, 3, 5, 8]),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]),
    many=st.sampled_from([None, "mask", "weight"]),
    ordered=st.booleans(),
    turned=st.booleans(),
    tile=st.sampled_from([2, 16, 1024]),
    seed=st.integers(0, 100),
)
def test_any_sets(rule, lengths, channels, dtype, many, ordered, turned, tile, seed):
    before, tuning.TILE = tuning.TILE, tile
    try:
        check(rule, lengths, channels, dtype=dtype, many=many, ordered=ordered, turned=turned, seed=seed)
    finally:
        tuning.TILE = before


@anywhere
@pytest.mark.slow
@pytest.mark.parametrize("value", [0.1, 1000.3])
def test_a_million_elements_within_two_ulp(value):
    count = 1_000_000
    x = torch.full((count, 1), value, device=DEVICE)
    total = cuda.Ragged(Segments(1, count, ptr=torch.tensor([0, count], device=DEVICE))).sum(x)
    exact = x[0, 0].double().item() * count
    ulp = torch.finfo(torch.float32).eps * 2 ** torch.tensor(exact).log2().floor().item()
    assert abs(total.item() - exact) <= 2 * ulp


@anywhere
@pytest.mark.slow
def test_a_huge_set_among_small_ones():
    for rule in ("sum", "max", "soften", "attend"):
        check(rule, [3, 20_000, 0, 5], 2)


@on_a_card
@pytest.mark.gpu
def test_more_than_two_to_the_31_values():
    """The last set lies beyond what 32 bits can count."""
    channels = 64
    count = 2**31 // channels + 1000
    x = torch.zeros(count, channels, device=DEVICE, dtype=torch.bfloat16)
    x[-10:] = 2.0
    segments = Segments(2, count, ptr=torch.tensor([0, count - 10, count], device=DEVICE))
    assert (cuda.Ragged(segments).sum(x)[1] == 20).all()
    assert (cuda.Ragged(segments).max(x)[1] == 2).all()
    x.requires_grad_()
    z = cuda.Ragged(segments).soften(x, 1.0)[0]
    assert (z[1] == 2).all()
    z[1].sum().backward()
    torch.testing.assert_close(x.grad[-10:].float(), torch.full((10, channels), 0.1, device=DEVICE), rtol=1e-2, atol=0)
    assert not x.grad[:-10].any()


@on_a_card
@pytest.mark.gpu
@pytest.mark.parametrize("rule", RULES)
def test_no_buffer_of_the_size_of_x(rule):
    count, channels = 2**18, 64
    x = torch.randn(count, channels, device=DEVICE)
    extra = extra_of(rule, count, channels, torch.ones(count))
    if rule in ("each", "attend", "whole"):
        pytest.skip("its weights are as large as x, or values and scores have a gradient of x each")
    extra = None if extra is None else extra.to(DEVICE).requires_grad_()
    segments = Segments(256, count, ptr=torch.arange(0, count + 1, count // 256, device=DEVICE))
    x.requires_grad_()
    size = x.nbytes

    def peak(function):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        kept = function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before, kept

    used, z = peak(lambda: by_kernel(rule, x, segments, None, extra))
    assert used < size / 4
    used, _ = peak(lambda: gradients(z, [x, extra]))
    assert used < size * 1.5


@on_a_card
@pytest.mark.gpu
@pytest.mark.parametrize("rule", RULES)
def test_deterministic_mode_autocast_and_no_waiting(rule):
    count, channels = 5000, 16
    x = torch.randn(count, channels, device=DEVICE)
    extra = extra_of(rule, count, channels, torch.ones(count))
    extra = None if extra is None else extra.to(DEVICE)
    index = torch.randint(0, 7, (count,), device=DEVICE)
    torch.use_deterministic_algorithms(True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.autocast("cuda", torch.bfloat16):
            a, b = (by_kernel(rule, x, Segments(7, count, index=index), None, extra) for _ in range(2))
    finally:
        torch.cuda.set_sync_debug_mode("default")
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(p, q) and p.dtype == torch.float32 for p, q in zip(a, b, strict=True))
