"""numpy and scipy as judges, in float64; and the closed forms: limits, the size law, tiling."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from every import close

from modalpool import Pool
from modalpool.functional import label_pool

INF = float("inf")


def values(*shape, seed=0, positive=False):
    x = np.random.default_rng(seed).normal(size=shape)
    return np.abs(x) + 0.1 if positive else x


def judged(rule, x, expected, *, there=None, counts=None, ulp=256.0, **options):
    """Compare over every way to say the same sets: rows of ``x`` ``(B, T, C)``, masked or repeated."""
    expected = torch.from_numpy(np.stack(expected))
    mask = None if there is None else torch.from_numpy(there)
    weight = None if counts is None else torch.from_numpy(counts).double()
    x = torch.from_numpy(x)
    close(Pool("b [t] c", rule, **options)(x, mask=mask, weight=weight), expected, ulp=ulp)
    close(Pool("b c [t]", rule, **options)(x.transpose(1, 2), mask=mask, weight=weight), expected, ulp=ulp)
    index = torch.arange(len(x)).repeat_interleave(x.shape[1])
    order = torch.randperm(len(index), generator=torch.Generator().manual_seed(1))
    flat = [None if given is None else given.flatten()[order] for given in (mask, weight)]
    pool = Pool("[n] c", rule, **options)
    z = pool(x.flatten(0, 1)[order], index=index[order], dim_size=len(x), mask=flat[0], weight=flat[1])
    close(z, expected, ulp=ulp)


def softmax_mean(x, temperature):
    return (scipy.special.softmax(x / temperature, axis=0) * x).sum(0)


RULES = [
    pytest.param("sum", {}, lambda x: x.sum(0), id="sum"),
    pytest.param("mean", {}, lambda x: x.mean(0), id="mean"),
    pytest.param("max", {}, lambda x: x.max(0), id="max"),
    pytest.param("min", {}, lambda x: x.min(0), id="min"),
    pytest.param("var", {}, lambda x: x.var(0), id="var"),
    pytest.param("std", {}, lambda x: x.std(0), id="std"),
    pytest.param("logsumexp", {}, lambda x: scipy.special.logsumexp(x, 0), id="logsumexp"),
    pytest.param(
        "logsumexp",
        {"temperature": 0.1, "normalize": True},
        lambda x: 0.1 * (scipy.special.logsumexp(x / 0.1, 0) - np.log(len(x))),
        id="logsumexp_normalized",
    ),
    pytest.param("softmax", {}, lambda x: softmax_mean(x, 1.0), id="softmax"),
    pytest.param("softmax", {"temperature": 0.2}, lambda x: softmax_mean(x, 0.2), id="softmax_sharp"),
    pytest.param("size_law", {"beta": 0.3}, lambda x: len(x) ** 0.3 * x.mean(0), id="size_law"),
    pytest.param("size_law", {"law": "mixture", "beta": 0.3}, lambda x: (0.7 + 0.3 * len(x)) * x.mean(0), id="mixture"),
    *[
        pytest.param("power", {"p": p}, lambda x, p=p: scipy.stats.pmean(x, p), id=f"power_{p:g}")
        for p in (0.25, 1, 3, 20)
    ],
    pytest.param("stochastic", {}, lambda x: (x * x).sum(0) / x.sum(0), id="expected_draw"),
]


@pytest.mark.parametrize(("rule", "options", "numpy_rule"), RULES)
@pytest.mark.parametrize("kind", ["all", "masked", "repeated"])
def test_numpy_and_scipy_quantities(rule, options, numpy_rule, kind):
    x = values(3, 9, 4, positive=rule in ("power", "stochastic"))
    counts = np.ones((3, 9), dtype=int)
    if kind != "all":
        counts = np.random.default_rng(2).integers(0, 2 if kind == "masked" else 4, size=(3, 9))
    expected = [numpy_rule(np.repeat(row, n, axis=0)) for row, n in zip(x, counts, strict=True)]
    given = {"masked": {"there": counts > 0}, "repeated": {"counts": counts}}.get(kind, {})
    if rule == "stochastic":
        z = Pool("b [t] c", rule).eval()(torch.from_numpy(x), weight=torch.from_numpy(counts).double())
        close(z, torch.from_numpy(np.stack(expected)), ulp=1e6)  # its activations are raised by 1e-12
    else:
        judged(rule, x, expected, **given, **options)


@pytest.mark.parametrize("shift", [0.0, 1e3, -1e3])
def test_smooth_maxima_shift_with_their_elements(shift):
    x = values(2, 7, 3) + shift
    judged("logsumexp", x, [scipy.special.logsumexp(row, 0) for row in x])
    judged("softmax", x, [softmax_mean(row, 1.0) for row in x])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("rule", "judge"),
    [
        pytest.param("sum", np.sum, id="sum"),
        pytest.param("mean", np.mean, id="mean"),
        pytest.param("max", np.max, id="max"),
        pytest.param("min", np.min, id="min"),
        pytest.param("logsumexp", scipy.special.logsumexp, id="logsumexp"),
    ],
)
def test_nan_and_infinity_inside_a_set_are_kept(rule, judge, bad):
    x = values(3, 5, 2)
    x[1, 2, 0] = bad
    judged(rule, x, [judge(row, axis=0) for row in x])


def test_generalized_mean_as_in_image_retrieval():
    x = torch.from_numpy(values(2, 3, 4, 5))  # with negative numbers, which GeM raises to eps
    gem = x.clamp(min=1e-6).pow(3.0).mean((2, 3)).pow(1 / 3.0)
    close(Pool("b c [h w]", "power", p=3.0)(x), gem, ulp=256)
    close(Pool("b c [h w]", "power", p=3.0, learn_p=True).double()(x), gem, ulp=2**31)  # log p starts in float32


def test_a_power_that_would_overflow():
    x = torch.tensor([[[1e30], [2e30]]])
    assert x.pow(3).mean(1).pow(1 / 3).isinf().all()
    exact = 1e30 * (9 / 2) ** (1 / 3)
    assert abs(Pool("b [t] c", "power", p=3.0)(x).item() / exact - 1) < 1e-6


LIMITS = [
    pytest.param("power", {"p": 1.0}, "mean", 0.0, id="power_1_is_the_mean"),
    pytest.param("power", {"p": 1 + 1e-9}, "mean", 1e-7, id="power_to_1"),
    pytest.param("power", {"p": 1e5}, "max", 1e-3, id="power_to_inf"),
    pytest.param("softmax", {"temperature": 0.0}, "max", 0.0, id="softmax_0"),
    pytest.param("softmax", {"temperature": 1e-4}, "max", 1e-6, id="softmax_to_0"),
    pytest.param("softmax", {"temperature": INF}, "mean", 0.0, id="softmax_inf"),
    pytest.param("softmax", {"temperature": 1e8}, "mean", 1e-6, id="softmax_to_inf"),
    pytest.param("logsumexp", {"temperature": 0.0}, "max", 0.0, id="logsumexp_0"),
    pytest.param("logsumexp", {"temperature": 1e-4}, "max", 1e-3, id="logsumexp_to_0"),
    pytest.param("logsumexp", {"temperature": INF, "normalize": True}, "mean", 0.0, id="logsumexp_inf"),
    pytest.param("logsumexp", {"temperature": 1e6, "normalize": True}, "mean", 1e-5, id="logsumexp_to_inf"),
    pytest.param("size_law", {"beta": 0.0}, "mean", 0.0, id="size_law_0"),
    pytest.param("size_law", {"beta": 1.0}, "sum", 0.0, id="size_law_1"),
    pytest.param("size_law", {"law": "mixture", "beta": 0.0}, "mean", 0.0, id="mixture_0"),
    pytest.param("size_law", {"law": "mixture", "beta": 1.0}, "sum", 0.0, id="mixture_1"),
]


@pytest.mark.parametrize("layout", ["dense", "index"])
@pytest.mark.parametrize(("rule", "options", "limit", "within"), LIMITS)
def test_limits(rule, options, limit, within, layout):
    x = values(11, 4, positive=True)
    expected = torch.from_numpy({"mean": np.mean, "max": np.max, "sum": np.sum}[limit](x, axis=0))[None]
    x = torch.from_numpy(x)
    pool = Pool("b [t] c" if layout == "dense" else "[n] c", rule, **options)
    z = pool(x[None]) if layout == "dense" else pool(x, index=torch.zeros(11, dtype=torch.long))
    torch.testing.assert_close(z, expected, rtol=within + 1e-13, atol=within + 1e-13)


@pytest.mark.parametrize("temperature", [0.0, 1e-6, INF, 1e9])
def test_limits_of_attention(temperature):
    torch.manual_seed(0)
    pool = Pool("b [n] c", "attention", channels=4, heads=2, temperature=temperature).double()
    x = torch.from_numpy(values(3, 8, 4))
    scores = x @ pool.reduction.scores.content.weight.T  # (B, N, H)
    best = torch.nn.functional.one_hot(scores.argmax(1), 8).transpose(1, 2).double()
    expected = best if temperature < 1 else torch.full_like(scores, 1 / 8)
    z, w = pool(x, return_weights=True)
    exact = temperature in (0.0, INF)
    torch.testing.assert_close(w.expand_as(expected), expected, rtol=0, atol=1e-15 if exact else 1e-6)
    wanted = (expected.repeat_interleave(2, dim=2) * x).sum(1)
    torch.testing.assert_close(z, wanted, rtol=0, atol=1e-14 if exact else 1e-6)


@pytest.mark.parametrize("law", ["power", "mixture"])
@pytest.mark.parametrize("beta", [0.0, 0.5, 0.8, 1.0])
def test_the_size_law_and_its_correction(law, beta):
    x = torch.from_numpy(values(2, 3, 12))

    def k(n):
        return n**beta if law == "power" else (1 - beta) + beta * n

    for n in (1, 5, 12):
        z = Pool("b c [t]", "size_law", law=law, beta=beta)(x[..., :n])
        close(z, k(n) * x[..., :n].mean(-1), ulp=64)
        corrected = Pool("b c [t]", "size_law", law=law, beta=beta, reference_size=4)(x[..., :n])
        close(corrected, z * k(4) / k(n), ulp=64)


def test_the_root_law_keeps_the_variance_of_independent_elements():
    x = torch.from_numpy(np.random.default_rng(3).normal(size=(20_000, 1, 25)))
    spread = Pool("b c [t]", "size_law", beta=0.5)(x).std().item()
    assert abs(spread - 1) < 5 / math.sqrt(2 * 20_000)  # five standard errors


TILED = [
    pytest.param("mean", {}, 1.0, id="mean"),
    pytest.param("max", {}, 1.0, id="max"),
    pytest.param("std", {}, 1.0, id="std"),
    pytest.param("power", {}, 1.0, id="power"),
    pytest.param("softmax", {}, 1.0, id="softmax"),
    pytest.param("logsumexp", {"normalize": True}, 1.0, id="logsumexp_normalized"),
    pytest.param("attention", {}, 1.0, id="attention"),
    pytest.param("sum", {}, 9.0, id="sum"),
    pytest.param("size_law", {"beta": 0.5}, 3.0, id="root"),
    pytest.param("size_law", {"beta": 0.5, "reference_size": 20}, 1.0, id="root_corrected"),
    pytest.param("size_law", {"law": "mixture", "reference_size": 20}, 1.0, id="mixture_corrected"),
]


@pytest.mark.parametrize(("rule", "options", "factor"), TILED)
def test_tiling_an_input(rule, options, factor):
    torch.manual_seed(1)
    x = torch.from_numpy(values(2, 3, 4, 5, positive=True))
    pool = Pool("b c [h w]", rule, channels=3, **options).double()
    close(pool(x.repeat(1, 1, 3, 3)), factor * pool(x), ulp=256)


def test_log_n_scaling_keeps_the_weight_of_one_signal_among_many():
    options = {"channels": 1, "temperature_scaling": "log_n", "reference_size": 16.0}
    kept, lost = (Pool("b [n] c", "attention", **given).double() for given in (options, {"channels": 1}))
    shares = {}
    for pool in (kept, lost):
        with torch.no_grad():
            pool.reduction.scores.content.weight.fill_(2 * math.log(16))
        for n in (16, 65_536):
            x = torch.zeros(1, n, 1, dtype=torch.float64)
            x[0, 3] = 1
            shares[pool, n] = pool(x, return_weights=True)[1][0, 3, 0].item()
            growth = math.log(n) / math.log(16) if pool is kept else 1.0
            e = math.exp(2 * math.log(16) * growth)
            assert shares[pool, n] == pytest.approx(e / (e + n - 1), rel=1e-6)
    assert shares[kept, 65_536] > shares[kept, 16] > 0.9 > 0.1 > shares[lost, 65_536]


@pytest.mark.parametrize("rule", ["mean", "sum", "max", "std"])
def test_label_maps_as_in_scipy(rule):
    from scipy import ndimage

    x, labels = values(1, 1, 6, 7, 5), np.random.default_rng(4).integers(0, 4, size=(1, 6, 7, 5))
    judge = {"mean": ndimage.mean, "sum": ndimage.sum_labels, "max": ndimage.maximum, "std": ndimage.standard_deviation}
    expected = judge[rule](x[0, 0], labels[0], index=range(4))
    z = label_pool(torch.from_numpy(x), "b c [d h w]", torch.from_numpy(labels), regions=4, reduction=rule)
    close(z[0, :, 0], torch.from_numpy(np.asarray(expected)), ulp=256)


def test_statistics_of_many_sets_against_a_grouped_judge():
    x, index = values(500, 2, seed=5), np.random.default_rng(6).integers(0, 40, size=500)
    ours = Pool("[n] c", ["mean", "std", "max"])(torch.from_numpy(x), index=torch.from_numpy(index), dim_size=40)
    for s in range(40):
        rows = x[index == s]
        close(ours[s], torch.from_numpy(np.concatenate([rows.mean(0), rows.std(0), rows.max(0)])), ulp=64)
