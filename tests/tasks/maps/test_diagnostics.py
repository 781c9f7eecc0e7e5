"""Each diagnostic against its closed form at the pool, and against a case where it is not zero."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modalpool import Pool
from tasks.maps.diagnostics import (
    checkerboard,
    cutmix_gap,
    laplacian_modes,
    mixup_gap,
    occlusion_response,
    pooled_variance,
    response,
    shift_response,
    sinusoid,
)

VOLUME = Pool("b c [d h w]")


def rms(z):
    return z.double().flatten(1).square().mean(1).sqrt()


@pytest.mark.parametrize("correlation", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    ("options", "law"),
    [
        ({"reduction": "mean"}, lambda n, r: r + (1 - r) / n),
        ({"reduction": "sum"}, lambda n, r: n + n * (n - 1) * r),
        ({"reduction": "size_law", "beta": 0.5}, lambda n, r: (n + n * (n - 1) * r) / n),
    ],
)
def test_variance_follows_its_law(options, law, correlation):
    sizes = [1, 4, 64]
    measured = pooled_variance(
        Pool("b [n] c", **options),
        sizes,
        correlation=correlation,
        channels=32,
        samples=512,
        generator=torch.Generator().manual_seed(0),
    )
    # 512 x 32 independent draws: a variance is known to sqrt(2 / 16384) = 1.1 %
    torch.testing.assert_close(measured, torch.tensor([law(n, correlation) for n in sizes]), rtol=0.05, atol=0)


def test_a_correlation_beyond_one_is_refused():
    with pytest.raises(ValueError, match=r"correlation: expected a number from 0 to 1, got 1\.5"):
        pooled_variance(Pool("b [n] c"), [2], correlation=1.5)


@given(st.lists(st.integers(1, 7), min_size=1, max_size=3))
def test_a_checkerboard_averages_out_unless_all_sizes_are_odd(sizes):
    count = math.prod(sizes)
    expected = 1 / count if all(size % 2 for size in sizes) else 0.0
    assert checkerboard(sizes).double().mean().item() == pytest.approx(expected, abs=1e-12)
    x = torch.randn(2, 3, *sizes)
    assert response(Pool("b c [...]"), x, checkerboard(sizes)).tolist() == pytest.approx([expected] * 2, abs=1e-6)


@given(st.integers(2, 40), st.floats(0.1, 5))
def test_a_sinusoid_averages_to_the_dirichlet_kernel(size, cycles):
    bottom = 2 * size * math.sin(math.pi * cycles / size)
    expected = math.sin(2 * math.pi * cycles) / bottom if abs(bottom) > 1e-6 else 1.0
    if abs(bottom) > 1e-3:
        assert sinusoid([size], [cycles]).double().mean().item() == pytest.approx(expected, abs=1e-5)


def test_cycles_have_to_match_the_axes():
    with pytest.raises(ValueError, match="cycles: expected one for each of 2 axes, got 1"):
        sinusoid([4, 4], [1])


def test_only_the_smoothest_mode_of_a_graph_comes_through_a_mean():
    ring = torch.arange(9)
    edges = torch.stack([torch.cat([ring, (ring + 1) % 9]), torch.cat([(ring + 1) % 9, ring])])
    frequency, modes = laplacian_modes(edges, 9)
    # the spectrum of a ring is known: 2 - 2 cos(2 pi k / n)
    expected = sorted(2 - 2 * math.cos(2 * math.pi * k / 9) for k in range(9))
    torch.testing.assert_close(frequency, torch.tensor(expected), atol=1e-5, rtol=0)
    through = [response(Pool("b [n] c"), torch.randn(1, 9, 2), mode[:, None]).item() for mode in modes.T]
    assert through == pytest.approx([1 / 3] + [0.0] * 8, abs=1e-6)


def test_a_one_way_edge_is_refused():
    with pytest.raises(ValueError, match="expected every edge in both directions"):
        laplacian_modes(torch.tensor([[0], [1]]), 2)


def test_behind_a_relu_a_checkerboard_is_no_longer_harmless():
    x = torch.zeros(1, 2, 4, 4, 4)
    assert response(VOLUME, x, checkerboard([4, 4, 4])).item() == 0
    assert response(lambda x: VOLUME(x.relu()), x, checkerboard([4, 4, 4])).item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("reduction", "options", "linear"),
    [
        ("mean", {}, True),
        ("sum", {}, True),
        ("pyramid", {"levels": [1, 2]}, True),
        ("max", {}, False),
        ("attention", {"channels": 3}, False),
    ],
)
def test_mixup_is_linear_exactly_where_weights_ignore_the_elements(reduction, options, linear):
    torch.manual_seed(0)
    pool = Pool("b c [h w]", reduction, **options)
    if reduction == "attention":  # starts at zero scores, a mean
        torch.nn.init.normal_(next(iter(pool.parameters())))
    a, b = torch.randn(2, 2, 3, 6, 5)
    gap = mixup_gap(pool, a, b, share=0.3)
    mixed = 0.3 * pool(a) + 0.7 * pool(b)
    torch.testing.assert_close(gap.double(), rms(pool(0.3 * a + 0.7 * b) - mixed) / rms(mixed), rtol=1e-4, atol=1e-6)
    assert (gap.max() < 1e-5) == linear


def test_cutmix_of_a_mean_has_its_closed_form():
    torch.manual_seed(0)
    a, b = torch.randn(2, 4, 3, 6, 5).double()
    mask = torch.zeros(6, 5, dtype=torch.bool)
    mask[:3, 1:4] = True
    share = 9 / 30
    centred = (a - a.mean((2, 3), keepdim=True)) - (b - b.mean((2, 3), keepdim=True))
    expected = rms(centred[..., mask].sum(-1) / 30) / rms(share * a.mean((2, 3)) + (1 - share) * b.mean((2, 3)))
    torch.testing.assert_close(cutmix_gap(Pool("b c [h w]"), a, b, mask=mask), expected)


@pytest.mark.parametrize("reduction", ["mean", "max", "std", "logsumexp"])
def test_shifts_change_nothing_where_positions_are_not_looked_at(reduction):
    x = torch.randn(2, 3, 4, 5, 6)
    assert shift_response(Pool("b c [d h w]", reduction), x, axis=3, steps=2).max() < 1e-6


def test_shifts_move_what_a_pyramid_sees():
    x = torch.zeros(1, 1, 4)
    x[..., 0] = 4.0
    # cells [4 0 | 0 0] become [0 0 | 4 0]: both means change by 2
    assert shift_response(Pool("b c [t]", "pyramid", levels=[2]), x, axis=2, steps=2).item() == 2.0


@given(st.integers(0, 30), st.floats(-2, 2))
def test_occlusion_changes_a_mean_in_proportion(hidden, fill):
    x = torch.randn(2, 3, 30, generator=torch.Generator().manual_seed(hidden)).double()
    mask = torch.arange(30) < hidden
    expected = rms((fill - x[..., :hidden]).sum(-1) / 30)
    torch.testing.assert_close(occlusion_response(Pool("b c [t]"), x, mask=mask, fill=fill), expected)
