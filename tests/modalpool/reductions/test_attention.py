"""Attention against its textbook, its grid against torch, its limits."""

import math

import pytest
import torch
from torch import nn

from modalpool import Pool
from modalpool.reductions import Attention

X = torch.rand(2, 4, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1


def test_attention_at_temperature_zero_takes_the_best_element():
    pool = Pool("b c [t]", "attention", channels=4, temperature=0.0).double()
    best = (X.mT @ pool.reduction.scores.content.weight[0]).argmax(1)
    torch.testing.assert_close(pool(X), X[torch.arange(2), :, best])


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


def test_weights_loaded_elsewhere_pool_the_same_in_every_layout():
    ragged = Pool("[n] c", "attention", channels=4, heads=2, score="gated")
    dense = Pool("b c [t]", "attention", channels=4, heads=2, score="gated")
    dense.load_state_dict(ragged.state_dict())
    x = torch.randn(1, 4, 7)
    torch.testing.assert_close(dense(x), ragged(x[0].mT))


def efficient_probe(x, queries, value=None, bias=None):
    """Psomas et al. (2025): every query attends to the tokens themselves and reads its own share of their channels."""
    attention = torch.einsum("kc,bnc->bkn", queries * x.shape[-1] ** -0.5, x).softmax(-1)
    values = x if value is None else x @ value.mT + bias
    shares = values.reshape(*values.shape[:-1], len(queries), -1)  # (B, N, K, C / K)
    return torch.einsum("bkn,bnkd->bkd", attention, shares).flatten(1)


@pytest.mark.parametrize("project", [False, "values"])
@pytest.mark.parametrize("queries", [1, 4])
def test_efficient_probing_is_attention_with_a_query_a_head(queries, project):
    torch.manual_seed(0)
    x = torch.randn(3, 7, 8, dtype=torch.float64, requires_grad=True)
    pool = Pool("b [n] c", "attention", channels=8, heads=queries, temperature=8**0.5, project=project).double()
    rule = pool.reduction
    value = () if project is False else (rule.values.weight, rule.values.bias)
    expected = efficient_probe(x, rule.scores.content.weight, *value)
    torch.testing.assert_close(pool(x), expected)
    slope, leaves = torch.randn_like(expected), [x, *pool.parameters()]
    torch.testing.assert_close(*(torch.autograd.grad(z, leaves, slope) for z in (pool(x), expected)))
    assert "output" not in dict(rule.named_children()) or rule.output is None
    assert sum(p.numel() for p in pool.parameters()) == queries * 8 + (72 if project else 0)


def test_what_may_follow_the_sum():
    with pytest.raises(ValueError, match="project: expected True, False or 'values', got 'keys'"):
        Pool("b [n] c", "attention", channels=8, project="keys")
