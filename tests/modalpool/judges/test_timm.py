"""timm as the judge: its latent attention pool with loaded weights, its masked pools, its smooth maximum."""

import pytest
import torch
from every import close
from torch import nn

pytest.importorskip("timm", reason="timm is not installed: pip install timm")
from timm.layers import AttentionPoolLatent, LsePlus2d

from modalpool import Pool
from modalpool.reductions import Attention

naflex = pytest.importorskip("timm.models.naflexvit", reason="this timm has no NaFlex: pip install -U timm")


def latent(heads=2, queries=1, **options):
    """timm's pool without what follows the attention, every parameter away from its start."""
    torch.manual_seed(0)
    module = AttentionPoolLatent(16, num_heads=heads, latent_len=queries, pool_type="", mlp_ratio=1.0, **options)
    module.mlp = None
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.double().eval()


def ours(module):
    """The same attention from its matrices, written down here and not by the library."""
    key, value = module.kv.weight.chunk(2)
    return Attention.from_textbook(
        heads=module.num_heads,
        query=module.q(module.latent[0]).detach(),
        key=key,
        value=value,
        value_bias=None if module.kv.bias is None else module.kv.bias.chunk(2)[1],
        output=module.proj.weight,
        output_bias=module.proj.bias,
    )


@pytest.mark.parametrize("layout", ["b [n] c", "b c [h w]", "b c [d h w]", "index", "ptr"])
@pytest.mark.parametrize(("heads", "queries"), [(1, 1), (4, 1), (2, 3)])
def test_the_latent_attention_pool_with_loaded_weights(heads, queries, layout):
    module = latent(heads, queries)
    reduction = ours(module)
    tokens = torch.randn(3, 12, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mine, theirs = tokens.clone().requires_grad_(), tokens.clone().requires_grad_()
    if layout == "b [n] c":
        z = Pool(layout, reduction)(mine)
    elif layout == "index":
        order = torch.randperm(36, generator=torch.Generator().manual_seed(2))
        z = Pool("[n] c", reduction)(mine.flatten(0, 1)[order], index=(torch.arange(36) // 12)[order])
    elif layout == "ptr":
        z = Pool("[n] c", reduction)(mine.flatten(0, 1), ptr=torch.tensor([0, 12, 24, 36]))
    else:
        sizes = (3, 4) if layout == "b c [h w]" else (2, 3, 2)
        z = Pool(layout, reduction)(mine.transpose(1, 2).unflatten(2, sizes))
    expected = module(theirs)
    expected = expected if queries > 1 else expected[:, 0]
    close(z, expected, ulp=512)
    slope = torch.randn_like(z)
    z.backward(slope)
    expected.backward(slope)
    close(mine.grad, theirs.grad, ulp=4096)


@pytest.mark.parametrize("options", [{"qkv_bias": False}, {"norm_layer": nn.LayerNorm}], ids=["no_bias", "norm"])
def test_masked_and_with_other_options(options):
    module = latent(2, 1, **options)
    x = torch.randn(3, 7, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    mask = torch.arange(7) < torch.tensor([7, 2, 5])[:, None]
    expected = module(x, mask[:, None, None])[:, 0]
    close(Pool("b [n] c", ours(module))(x, mask=mask), expected, ulp=512)
    assert not torch.allclose(expected, module(x)[:, 0])  # the mask is felt


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize("kind", ["avg", "max", "avgmax"])
def test_masked_tokens_of_naflex(kind, prefix):
    x = torch.randn(4, 9 + prefix, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    mask = torch.arange(9) < torch.tensor([9, 1, 4, 6])[:, None]
    expected = naflex.global_pool_naflex(x, mask, pool_type=kind, num_prefix_tokens=prefix)
    mean, top = (Pool("b [n] c", rule)(x[:, prefix:], mask=mask) for rule in ("mean", "max"))
    close({"avg": mean, "max": top, "avgmax": 0.5 * (mean + top)}[kind], expected)


def test_naflex_overflows_in_half_precision_and_lets_nan_in_and_ours_does_not():
    x, mask = torch.full((1, 1024, 1), 100.0, dtype=torch.float16), torch.ones(1, 1024, dtype=torch.bool)
    assert naflex.global_pool_naflex(x, mask, pool_type="avg", num_prefix_tokens=0).isinf().all()
    assert Pool("b [n] c", "mean")(x, mask=mask).item() == 100
    x, mask = torch.tensor([[[1.0], [torch.nan]]]), torch.tensor([[True, False]])
    assert naflex.global_pool_naflex(x, mask, pool_type="avg", num_prefix_tokens=0).isnan().all()
    assert Pool("b [n] c", "mean")(x, mask=mask).item() == 1


@pytest.mark.parametrize("r", [0.5, 1.0, 10.0])
def test_the_smooth_maximum(r):
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    theirs = LsePlus2d(r, r_learnable=False).double()
    close(Pool("b c [h w]", "logsumexp", temperature=1 / r, normalize=True)(x), theirs(x), ulp=1024)


def test_the_smooth_maximum_has_a_limit_in_ours_and_none_in_timm():
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(5))
    assert LsePlus2d(0.0, r_learnable=False)(x).isnan().all()
    pool = Pool("b c [h w]", "logsumexp", temperature=float("inf"), normalize=True)
    assert torch.equal(pool(x), x.mean((2, 3)))
