"""timm's shapes and numbers, and its attention pool with loaded weights."""

import pytest
import torch
from every import close
from torch import nn

from modalpool.compat.timm import (
    AttentionPoolLatent,
    SelectAdaptivePool,
    SelectAdaptivePool1d,
    SelectAdaptivePool2d,
    SelectAdaptivePool3d,
    attention_from_latent,
)
from modalpool.pool import Pool

timm = pytest.importorskip("timm", reason="timm is not installed: pip install timm")
TYPES = ["", "avg", "max", "avgmax", "catavgmax", "fast", "fastavg", "fastmax", "fastavgmax", "fastcatavgmax"]


@pytest.mark.parametrize("flatten", [True, False])
@pytest.mark.parametrize("input_fmt", ["NCHW", "NHWC"])
@pytest.mark.parametrize("pool_type", TYPES)
def test_images_are_pooled_as_by_timm(pool_type, input_fmt, flatten):
    x = torch.randn(2, 3, 4, 5)
    mine = SelectAdaptivePool2d(pool_type=pool_type, flatten=flatten, input_fmt=input_fmt)
    theirs = timm.layers.SelectAdaptivePool2d(pool_type=pool_type, flatten=flatten, input_fmt=input_fmt)
    z = mine(x)
    close(z, theirs(x))
    assert mine.feat_mult() == theirs.feat_mult()
    assert mine.is_identity() == theirs.is_identity()
    if flatten and pool_type:
        assert z.shape[1] == mine.feat_mult() * (3 if input_fmt == "NCHW" else 5)


@pytest.mark.parametrize("pool_type", ["avg", "max", "avgmax", "catavgmax"])
@pytest.mark.parametrize(
    ("pool", "shape", "input_fmt"),
    [
        (SelectAdaptivePool1d, (2, 3, 7), "NCL"),
        (SelectAdaptivePool1d, (2, 7, 3), "NLC"),
        (SelectAdaptivePool3d, (2, 3, 4, 5, 6), "NCDHW"),
        (SelectAdaptivePool3d, (2, 4, 5, 6, 3), "NDHWC"),
    ],
)
def test_signals_and_volumes(pool, shape, input_fmt, pool_type):
    x = torch.randn(shape)
    channel = input_fmt.index("C")
    flat = x.movedim(channel, 1).flatten(2)
    parts = {"avg": [flat.mean(-1)], "max": [flat.amax(-1)], "catavgmax": [flat.mean(-1), flat.amax(-1)]}
    expected = torch.cat(parts.get(pool_type, [0.5 * (flat.mean(-1) + flat.amax(-1))]), dim=1)
    close(pool(pool_type=pool_type, flatten=True, input_fmt=input_fmt)(x), expected)
    kept = pool(pool_type=pool_type, input_fmt=input_fmt)(x)
    assert kept.ndim == x.ndim
    close(kept.flatten(1), expected)


def test_rules_of_our_own_and_masks():
    x, mask = torch.randn(2, 8, 4, 5), torch.rand(2, 4, 5) < 0.5
    pool = SelectAdaptivePool2d(pool_type="attention", flatten=True, channels=8, heads=2, queries=3)
    z = pool(x, mask=mask)
    close(z, pool.pool(x, mask=mask).flatten(1))
    assert z.shape[1] == 8 * pool.feat_mult()
    assert SelectAdaptivePool2d(pool_type="std").feat_mult() == 1
    assert repr(pool) == "SelectAdaptivePool2d(pool_type=attention, flatten=True)"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SelectAdaptivePool2d(output_size=2), "output_size: expected 1, the whole input, got 2; for windows"),
        (lambda: SelectAdaptivePool2d(input_fmt="NCDHW"), "SelectAdaptivePool2d pools 2 axes, got 'NCDHW'"),
        (lambda: SelectAdaptivePool(input_fmt="HWC"), "input_fmt: expected N, C and letters.*got 'HWC'"),
        (lambda: SelectAdaptivePool2d(pool_type="median"), "reduction: expected one of mean, .*got 'median'"),
        (lambda: SelectAdaptivePool2d()(torch.ones(1, 2, 3, 4, 5)), "describes 4 axes, got a tensor with 5"),
    ],
)
def test_wrong_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()


LATENT = [
    pytest.param({}, id="siglip"),
    pytest.param({"out_features": 0}, id="no_head"),
    pytest.param({"out_features": 10, "mlp_ratio": 2.0}, id="other_width"),
    pytest.param({"latent_len": 3, "pool_type": "avg", "norm_layer": nn.LayerNorm}, id="three_latents"),
    pytest.param({"latent_len": 2, "pool_type": ""}, id="all_latents"),
    pytest.param({"pool_type": "", "qkv_bias": False}, id="one_latent_kept"),
    pytest.param({"q_proj": False, "num_heads": 4}, id="no_query_matrix"),
    pytest.param({"pos_embed": "abs", "feat_size": 7}, id="positions"),
    pytest.param({"latent_dim": 12}, id="narrow_latent"),
]


def latent(**options) -> nn.Module:
    torch.manual_seed(0)
    module = timm.layers.AttentionPoolLatent(16, **{"num_heads": 2, **options}).double().eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module


@pytest.mark.parametrize("options", LATENT)
def test_the_latent_attention_pool_is_taken_over(options):
    theirs = latent(**options)
    mine = AttentionPoolLatent(theirs).eval()
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[1, 2:] = False
    for masked in (None, mask[:, None, None]):
        x = torch.randn(3, 7, 16, dtype=torch.float64, requires_grad=True)
        z, expected = mine(x, masked), theirs(x, masked)
        close(z, expected, ulp=512)
        slope = torch.randn_like(z)
        close(*(torch.autograd.grad(out, x, slope)[0] for out in (z, expected)), ulp=4096)
    assert mine.out_features == theirs.out_features


def test_the_attention_alone_works_in_any_layout_and_gives_weights():
    theirs = latent(out_features=0)
    pool = Pool("b c [h w]", attention_from_latent(theirs))
    x = torch.randn(3, 16, 4, 5, dtype=torch.float64)
    z, w = pool(x, return_weights=True)
    close(z, theirs(x.flatten(2).transpose(1, 2)), ulp=512)
    tokens = x.flatten(2).transpose(1, 2)
    query = theirs.q(theirs.latent).reshape(1, 1, 2, 8).transpose(1, 2)
    key = theirs.kv(tokens).chunk(2, dim=-1)[0].reshape(3, 20, 2, 8).transpose(1, 2)
    textbook = (query @ key.transpose(-1, -2) * theirs.scale).softmax(-1)[:, :, 0]
    close(w.flatten(2), textbook, ulp=512)


def test_what_cannot_be_taken_over_says_so():
    with pytest.raises(ValueError, match="normalised keys cannot be folded into the query"):
        AttentionPoolLatent(latent(qk_norm=True))
    with pytest.raises(ValueError, match=r"attn_mask: expected bool.*got torch.float64 with shape \(3, 7\)"):
        AttentionPoolLatent(latent())(torch.randn(3, 7, 16), torch.zeros(3, 7, dtype=torch.float64))
