"""What single reductions promise beyond the rules for all: limits, laws, textbooks, statistics of draws."""

import math

import pytest
import torch
from torch import nn

from modalpool import Pool
from modalpool.reductions import Attention, region_losses

X = torch.rand(2, 4, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1


@pytest.mark.parametrize(
    ("name", "options", "limit"),
    [
        ("power", {"p": 1.0}, "mean"),
        ("power", {"p": 400.0}, "max"),
        ("softmax", {"temperature": 0.0}, "max"),
        ("softmax", {"temperature": 1e-4}, "max"),
        ("softmax", {"temperature": math.inf}, "mean"),
        ("softmax", {"temperature": 1e7}, "mean"),
        ("logsumexp", {"temperature": 0.0}, "max"),
        ("logsumexp", {"temperature": 1e-4}, "max"),
        ("logsumexp", {"temperature": math.inf, "normalize": True}, "mean"),
        ("logsumexp", {"temperature": 1e7, "normalize": True}, "mean"),
        ("attention", {"temperature": math.inf}, "mean"),
        ("attention", {"temperature": 1e8}, "mean"),
        ("size_law", {"beta": 0.0}, "mean"),
        ("size_law", {"beta": 1.0}, "sum"),
        ("size_law", {"law": "mixture", "beta": 0.0}, "mean"),
        ("size_law", {"law": "mixture", "beta": 1.0}, "sum"),
    ],
)
def test_limits(name, options, limit):
    pool = Pool("b c [t]", name, channels=4, **options).double()
    torch.testing.assert_close(
        pool(X), Pool("b c [t]", limit)(X), rtol=1e-2 if options.get("p") == 400.0 else 1e-6, atol=1e-6
    )


def test_attention_at_temperature_zero_takes_the_best_element():
    pool = Pool("b c [t]", "attention", channels=4, temperature=0.0).double()
    best = (X.mT @ pool.reduction.scores.content.weight[0]).argmax(1)
    torch.testing.assert_close(pool(X), X[torch.arange(2), :, best])


@pytest.mark.parametrize("law", ["power", "mixture"])
@pytest.mark.parametrize("repeat", [2, 7])
def test_the_corrected_size_law_does_not_see_tiling(law, repeat):
    for layout, x, tiled in (
        ("b c [t]", X, X.repeat(1, 1, repeat)),
        ("[n] c", X[0].mT, X[0].mT.repeat(repeat, 1)),
    ):
        plain = Pool(layout, "size_law", law=law, learn_beta=True)
        corrected = Pool(layout, "size_law", law=law, learn_beta=True, reference_size=9)
        corrected.load_state_dict(plain.state_dict())
        torch.testing.assert_close(corrected(x), plain(x))
        torch.testing.assert_close(corrected(tiled), plain(x))
        assert not torch.allclose(plain(tiled), plain(x))


def test_the_square_root_law_keeps_the_variance():
    torch.manual_seed(0)
    x = torch.randn(4000, 1, 64)
    assert Pool("b c [t]", "size_law", beta=0.5)(x).var().item() == pytest.approx(1.0, rel=0.1)


def test_log_n_keeps_the_weight_of_one_signal_among_many():
    pool = Pool("b c [t]", "attention", channels=1, temperature_scaling="log_n", reference_size=16).double()
    with torch.no_grad():
        pool.reduction.scores.content.weight.fill_(2 * math.log(16))
    weights = []
    for n in (16, 4096, 65_536):
        x = torch.zeros(1, 1, n, dtype=torch.float64)
        x[..., 3] = 1
        weights.append(pool(x, return_weights=True)[1][0, 0, 3].item())
    assert min(weights) > 0.9
    assert weights[-1] >= weights[0]


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_a_textbook_attention_folded_through_its_key_matrix(queries, masked):
    """torch's own multi-head attention, with a learned query, gives the same numbers."""
    torch.manual_seed(0)
    textbook = nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    for bias in (textbook.in_proj_bias, textbook.out_proj.bias):
        nn.init.normal_(bias)
    query, x = torch.randn(queries, 8, dtype=torch.float64), torch.randn(3, 11, 8, dtype=torch.float64)
    q, k, v = textbook.in_proj_weight.chunk(3)
    bias_q, _, bias_v = textbook.in_proj_bias.chunk(3)
    reduction = Attention.from_textbook(
        heads=2, query=query @ q.T + bias_q, key=k, value=v, value_bias=bias_v,
        output=textbook.out_proj.weight, output_bias=textbook.out_proj.bias,
    )  # fmt: skip
    mask = torch.arange(11) < torch.tensor([11, 4, 1])[:, None] if masked else None
    expected, _ = textbook(query.expand(3, -1, -1), x, x, key_padding_mask=None if mask is None else ~mask)
    got = Pool("b [n] c", reduction)(x, mask=mask)
    torch.testing.assert_close(got, expected if queries > 1 else expected[:, 0])


@pytest.mark.parametrize(("grid", "sizes"), [([5], (12,)), ([4, 3], (7, 9)), ([2, 3, 4], (5, 6, 4))])
def test_a_position_grid_is_interpolated_to_any_size(grid, sizes):
    layout = "b c [" + " ".join("xyz"[: len(grid)]) + "]"
    pool = Pool(layout, "attention", channels=2, score="none", grid=grid).double()
    nn.init.normal_(pool.reduction.scores.position)
    x = torch.randn(1, 2, *sizes, dtype=torch.float64)
    mode = ["linear", "bilinear", "trilinear"][len(grid) - 1]
    scores = nn.functional.interpolate(pool.reduction.scores.position.movedim(-1, 0)[None], size=sizes, mode=mode)
    expected = scores.flatten().softmax(0).reshape(1, 1, *sizes)
    torch.testing.assert_close(pool(x, return_weights=True)[1], expected)


def test_pyramid_cells_tile_every_size():
    for size in range(1, 14):
        for cells in (1, 2, 3, 4, 7):
            pool = Pool("b c [t]", "pyramid", levels=[cells], empty_value=0.0)
            _, w = pool(torch.ones(1, 1, size), return_weights=True)
            assert ((w[0, :, 0] > 0).sum(0) == 1).all()  # every element in exactly one cell
            if size % cells == 0:
                x = torch.randn(1, 2, size)
                torch.testing.assert_close(pool(x), nn.functional.adaptive_avg_pool1d(x, cells).mT)


def test_pyramid_of_a_volume_is_adaptive_pooling_where_it_divides():
    x = torch.randn(2, 3, 4, 8, 12)
    expected = nn.functional.adaptive_avg_pool3d(x, (2, 4, 3)).flatten(2).mT
    torch.testing.assert_close(Pool("b c [d h w]", "pyramid", levels=[[2, 4, 3]])(x), expected)


def test_regions_sum_to_one_everywhere_and_their_losses_know_collapse():
    pool = Pool("b c [t]", "regions", channels=3, regions=3)
    content = pool.reduction.scores.content
    x = torch.eye(3).repeat(2, 1, 2)  # six elements, two of each kind
    arranged = pool.arrange(x)
    assignment = pool.reduction.assign(arranged.elements, arranged.sets)
    torch.testing.assert_close(assignment.sum(-1), torch.ones(2, 6))
    mask = torch.tensor([True, False, False, True, False, False]).expand(2, 6)
    most = math.log(3)
    for weight, bias, entropy, balance, alone in (
        (torch.zeros(3, 3), torch.zeros(3), most, 0.0, 0.0),  # undecided
        (torch.zeros(3, 3), torch.tensor([200.0, 0.0, 0.0]), 0.0, most, most),  # collapsed
        (200 * torch.eye(3), torch.zeros(3), 0.0, 0.0, most),  # one region each; under the mask only one kind is left
    ):
        with torch.no_grad():
            content.weight.copy_(weight)
            content.bias.copy_(bias)
        losses = region_losses(pool, x)
        assert losses.entropy.item() == pytest.approx(entropy, abs=1e-6)
        assert losses.balance.item() == pytest.approx(balance, abs=1e-6)
        assert region_losses(pool, x, mask=mask).balance.item() == pytest.approx(alone, abs=1e-6)
    with pytest.raises(TypeError, match="pool: expected the reduction 'regions', got Mean"):
        region_losses(Pool("b c [t]"), x)


@pytest.mark.parametrize("way", ["dense", "ragged", "parts"])
def test_stochastic_draws_in_proportion_and_expects_in_evaluation(way):
    torch.manual_seed(0)
    x = torch.tensor([1.0, 2.0, 0.0, 5.0])
    probabilities = x / x.sum()
    draws = 20_000
    pool = Pool("[n] c" if way == "ragged" else "b c [t]", "stochastic").train()
    if way == "ragged":
        z = pool(x.repeat(draws)[:, None], index=torch.arange(draws).repeat_interleave(4), dim_size=draws)
    elif way == "dense":
        z = pool(x.expand(draws, 1, 4))
    else:
        full = x.expand(draws, 1, 4)
        z = pool.finalize(pool.update(pool.update(None, full[..., :1]), full[..., 1:]))
    for value, probability in zip(x, probabilities, strict=True):
        assert (z == value).float().mean().item() == pytest.approx(probability.item(), abs=0.015)
    pool.eval()
    expected = (probabilities * x).sum()
    z = pool(x[:, None]) if way == "ragged" else pool(x.expand(1, 1, 4))
    torch.testing.assert_close(z.squeeze(), expected)


def test_learned_temperatures_are_one_per_channel_and_stay_positive():
    pool = Pool("b c [t]", "softmax", channels=4, learn_temperature=True, temperature=0.5)
    assert pool.reduction.temperature.log.shape == (4,)
    optimizer = torch.optim.SGD(pool.parameters(), lr=100.0)
    pool(X.float()).sum().backward()
    optimizer.step()
    assert (pool.reduction.temperature(X) > 0).all()


def test_weights_loaded_elsewhere_pool_the_same_in_every_layout():
    ragged = Pool("[n] c", "attention", channels=4, heads=2, score="gated")
    dense = Pool("b c [t]", "attention", channels=4, heads=2, score="gated")
    dense.load_state_dict(ragged.state_dict())
    x = torch.randn(1, 4, 7)
    torch.testing.assert_close(dense(x), ragged(x[0].mT))
