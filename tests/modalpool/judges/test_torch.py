"""Torch as the judge: its OpInfo samples and their numpy references, `torch.masked`, scaled_dot_product_attention."""

import itertools
import math

import numpy as np
import pytest
import scipy.special
import torch
from every import close
from torch import nn

from modalpool import Pool
from modalpool.reductions import Attention

OURS = {"sum": "sum", "mean": "mean", "amax": "max", "amin": "min", "var": "var", "std": "std"}
OURS |= {"logsumexp": "logsumexp", "softmax": "softmax"}
ALL = pytest.mark.parametrize("name", OURS)
WAYS = ["channels_last", "channels_first", "ragged"]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")


@pytest.fixture(scope="module")
def op_infos():
    reason = "torch's OpInfo samples cannot be imported (internal; they need expecttest: pip install expecttest)"
    masked = pytest.importorskip(
        "torch.testing._internal.opinfo.definitions._masked", reason=reason, exc_type=ImportError
    )
    return {op.name.removeprefix("masked."): op for op in masked.op_db}


def samples(op):
    """Each sample as (x, dims, keepdim, mask), copied at once: the generator writes into what it has given out."""
    torch.manual_seed(0)
    for sample in op.sample_inputs("cpu", torch.float64, requires_grad=False):
        x, kwargs = sample.input.detach().clone(), dict(sample.kwargs)
        dim = sample.args[0] if sample.args else kwargs.get("dim")
        dims = (dim,) if isinstance(dim, int) else dim or tuple(range(max(x.ndim, 1)))
        mask = kwargs.get("mask")
        mask = None if mask is None else mask.clone()
        if x.numel():  # what an empty set gives is ours to choose, and tested with the empty sets
            yield x, tuple(d % max(x.ndim, 1) for d in dims), kwargs.get("keepdim", False), mask


def reference(name, op, x, dims, keepdim, mask):
    """The numpy reference of the OpInfo, or numpy's words for the two that have none; with population variance."""
    x, axis = x.numpy(), dims
    if name == "logsumexp":
        there = np.ones_like(x) if mask is None else np.broadcast_to(mask.numpy(), x.shape)
        return scipy.special.logsumexp(np.where(there, x, -np.inf), axis=axis, keepdims=keepdim)
    if name == "softmax":
        there = np.ones(x.shape, bool) if mask is None else np.broadcast_to(mask.numpy(), x.shape)
        w = scipy.special.softmax(np.where(there, x, -np.inf), axis=axis)
        return np.where(w == 0, 0, w * x).sum(axis=axis, keepdims=keepdim)
    options = {"correction": 0} if name in ("var", "std") else {}
    if name in ("amax", "amin"):
        options["identity"] = torch.tensor(-torch.inf if name == "amax" else torch.inf, dtype=torch.float64)
    return op.ref(x, dim=dims, keepdim=keepdim, mask=mask, **options)


def pooled(name, way, x, dims, keepdim, mask, **options):
    """Say the sample in a layout: one set of sets, two channels that both carry the sample."""
    names = [f"[a{d}]" if d in dims else f"a{d}" for d in range(x.ndim)]
    x = torch.stack([x, 2 * x] if name in ("sum", "mean", "amax", "amin") else [x, x], dim=-1)
    if way == "ragged":
        z = Pool(" ".join([*names, "c"]), OURS[name], **options)(x, mask=mask)[0, ..., 0]
        for dim in sorted(dims) if keepdim else ():
            z = z.unsqueeze(dim)
        return z
    text = ["b", *names, "c"] if way == "channels_last" else ["b", "c", *names]
    x = x[None] if way == "channels_last" else x.movedim(-1, 0)[None]
    z = Pool(" ".join(text), OURS[name], keepdim=keepdim, **options)(x, mask=None if mask is None else mask[None])
    return z[0, ..., 0] if way == "channels_last" else z[0, 0]


@ALL
def test_samples_of_op_info(op_infos, name):
    """Each sample in one way here, in all of them in the slow suite."""
    compare_samples(op_infos, name, itertools.cycle(WAYS))


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@ALL
def test_samples_of_op_info_in_every_way(op_infos, name, way):
    compare_samples(op_infos, name, itertools.repeat(way))


def compare_samples(op_infos, name, ways):
    compared = empty = 0
    for (x, dims, keepdim, mask), way in zip(samples(op_infos[name]), ways, strict=False):
        x, mask = x.reshape(x.shape or (1,)), None if mask is None else mask.reshape(mask.shape or (1,))
        full = None if mask is None else mask.broadcast_to(x.shape)
        expected = torch.as_tensor(np.asarray(reference(name, op_infos[name], x, dims, keepdim, mask)))
        got = pooled(name, way, x, dims, keepdim, full)
        there = torch.ones(x.shape) if full is None else full
        there = there.sum(dims, keepdim=keepdim) > 0
        expected = torch.where(there, expected, 0.0)  # numpy gives nan or the identity where a set is empty
        said = f"{tuple(x.shape)}, dim {dims}, keepdim {keepdim}, mask {None if mask is None else tuple(mask.shape)}"
        torch.testing.assert_close(
            got, expected, rtol=1e-12, atol=1e-12, equal_nan=True, msg=lambda m, s=said: f"{s}: {m}"
        )
        compared, empty = compared + 1, empty + int((~there).sum())
    assert compared >= 15
    assert empty > 0 or name in ("var", "std")  # torch leaves such samples out of these two


@ALL
def test_samples_with_nan_or_infinity_are_among_them(op_infos, name):
    kinds = {str(v.item()) for x, *_ in samples(op_infos[name]) for v in x.flatten() if not v.isfinite()}
    assert kinds == (set() if name in ("softmax", "var", "std") else {"inf", "-inf", "nan"})


def masked_torch(name, x, mask, dim):
    """`torch.masked`, with the population's variance; its softmax gives weights."""
    function = getattr(torch.masked, name)
    if name == "softmax":
        weights = function(x, dim, mask=mask)
        return (weights * torch.where(mask, x, 0.0)).sum(dim)
    options = {"correction": 0} if name in ("var", "std") else {}
    return function(x, dim, mask=mask, **options)


@pytest.mark.parametrize("poison", [0.0, torch.nan, torch.inf, -torch.inf])
@ALL
def test_torch_masked_and_its_gradient(name, poison):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 4, 6, 5, generator=generator, dtype=torch.float64)
    mask = torch.rand(3, 6, 5, generator=generator) < 0.6
    mask[1, 2] = False
    x = torch.where(mask[:, None], x, poison)
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    z = Pool("b c f [t]", OURS[name], empty_value="nan")(mine, mask=mask)
    expected = masked_torch(name, theirs, mask[:, None].expand_as(x), 3)
    there = mask.any(-1)[:, None].expand_as(z)
    assert not there.all()
    close(z[there], expected[there], ulp=64)
    slope = torch.linspace(-1, 2, int(there.sum()), dtype=torch.float64)
    z[there].backward(slope)
    expected[there].backward(slope)
    inside = mask[:, None].expand_as(x)
    assert (mine.grad[~inside] == 0).all()
    assert mine.grad.isfinite().all()
    if name in ("var", "std") and not math.isfinite(poison):
        assert theirs.grad[inside].isnan().any()  # torch's mean is safe, its variance is not
        inside = torch.zeros_like(inside)
    elif name == "std":
        alone = inside & (inside.sum(-1, keepdim=True) == 1)
        assert theirs.grad[alone].isnan().all()  # pytorch issue 4320; ours is zero
        assert (mine.grad[alone] == 0).all()
        inside = inside & ~alone
    close(mine.grad[inside], theirs.grad[inside], ulp=512)


def test_torch_masked_gives_each_reduction_its_own_empty_value_and_we_give_one():
    x, mask = torch.randn(1, 2, 3, generator=torch.Generator().manual_seed(2)), torch.zeros(1, 3, dtype=torch.bool)
    for name in ("mean", "amax", "var"):
        theirs = masked_torch(name, x, mask[:, None].expand_as(x), 2)
        assert not theirs.isfinite().any()  # pytorch issue 69359: no way to choose
        assert (Pool("b c [t]", OURS[name], empty_value=-5.0)(x, mask=mask) == -5).all()


def test_torch_masked_mean_overflows_in_half_precision_and_ours_does_not():
    x, mask = torch.full((1, 1, 1024), 100.0, dtype=torch.float16), torch.ones(1, 1, 1024, dtype=torch.bool)
    assert torch.masked.mean(x, 2, mask=mask).isinf().all()
    assert Pool("b c [t]", "mean")(x, mask=mask[:, 0]).item() == 100


def test_segment_reduce_is_off_in_bfloat16_and_ours_is_not():
    x = (torch.randn(3000, 8, generator=torch.Generator().manual_seed(0)) + 1).to(torch.bfloat16)
    ptr, exact = torch.tensor([0, 3000]), x.double().mean(0)
    theirs = torch.segment_reduce(x, "mean", offsets=ptr)[0]
    assert (theirs.double() - exact).abs().max() > 0.1
    assert (Pool("[n] c", "mean")(x, ptr=ptr)[0].double() - exact).abs().max() < 2 * 2**-8


LENGTHS = torch.tensor([7, 0, 1, 4])


def attention(heads, queries, **options):
    torch.manual_seed(3)
    return Pool("b [n] c", "attention", channels=8, heads=heads, queries=queries, **options).double()


def with_gradient(function, x, parameters):
    z = function(x)
    slope = torch.linspace(-1, 2, z.numel(), dtype=z.dtype).reshape(z.shape)
    return [z, *torch.autograd.grad(z, [x, *parameters], slope)]


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
@pytest.mark.parametrize(("heads", "queries"), [(1, 1), (4, 1), (2, 3)])
def test_scaled_dot_product_attention(heads, queries, temperature):
    pool = attention(heads, queries, temperature=temperature)
    x = torch.randn(4, 7, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64, requires_grad=True)
    mask = torch.arange(7) < LENGTHS[:, None]
    matrix = pool.reduction.scores.content.weight

    def theirs(x):
        q = matrix.reshape(queries, heads, 8).transpose(0, 1).expand(4, -1, -1, -1)  # (B, H, K, C)
        k = x[:, None].expand(-1, heads, -1, -1)
        v = x.reshape(4, 7, heads, -1).transpose(1, 2)
        z = nn.functional.scaled_dot_product_attention(q, k, v, mask[:, None, None], scale=1 / temperature)
        z = z.transpose(1, 2).flatten(2)  # (B, K, C)
        return z if queries > 1 else z[:, 0]

    for got, expected in zip(
        with_gradient(lambda x: pool(x, mask=mask), x, [matrix]), with_gradient(theirs, x, [matrix]), strict=True
    ):
        close(got, expected, ulp=256)


@pytest.mark.parametrize("ragged", ["dense", "index", "ptr"])
@pytest.mark.parametrize(("heads", "queries", "bias"), [(1, 1, True), (4, 1, False), (2, 3, True)])
def test_multihead_attention_with_a_learned_query(heads, queries, bias, ragged):
    torch.manual_seed(5)
    peer = nn.MultiheadAttention(8, heads, bias=bias, batch_first=True, dtype=torch.float64)
    for parameter in peer.parameters():
        nn.init.normal_(parameter, std=0.5)
    query = torch.randn(queries, 8, dtype=torch.float64)
    matrices, biases = peer.in_proj_weight.chunk(3), peer.in_proj_bias.chunk(3) if bias else (None,) * 3
    reduction = Attention.from_textbook(
        heads=heads,
        query=nn.functional.linear(query, matrices[0], biases[0]),
        key=matrices[1],
        value=matrices[2],
        value_bias=biases[2],
        output=peer.out_proj.weight,
        output_bias=peer.out_proj.bias,
    )
    x = torch.randn(4, 7, 8, dtype=torch.float64)
    mask = torch.arange(7) < LENGTHS[:, None]
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    if ragged == "dense":
        z = Pool("b [n] c", reduction)(mine, mask=mask)
    elif ragged == "ptr":
        z = Pool("[n] c", reduction)(mine[mask], ptr=nn.functional.pad(LENGTHS.cumsum(0), (1, 0)))
    else:
        order = torch.randperm(int(LENGTHS.sum()))
        index = torch.repeat_interleave(torch.arange(4), LENGTHS)
        z = Pool("[n] c", reduction)(mine[mask][order], index=index[order], dim_size=4)
    full = LENGTHS > 0
    expected, weights = peer(
        query.expand(4, -1, -1), theirs, theirs, key_padding_mask=~mask, average_attn_weights=False
    )
    assert expected[~full].isnan().all()  # the peer's empty set poisons its gradients too, so it is left out below
    assert (z[~full] == 0).all()
    expected, _ = peer(query.expand(3, -1, -1), theirs[full], theirs[full], key_padding_mask=~mask[full])
    expected = expected if queries > 1 else expected[:, 0]
    close(z[full], expected, ulp=512)
    slope = torch.randn_like(expected)
    z[full].backward(slope)
    expected.backward(slope)
    close(mine.grad, theirs.grad, ulp=4096)
    if ragged == "dense":
        w = Pool("b [n] c", reduction)(x, mask=mask, return_weights=True)[1]  # (B, [K], N, H)
        w = w if queries > 1 else w[:, None]
        close(w[full].movedim(-1, 1), weights[full], ulp=512)


@pytest.mark.parametrize(("size", "levels"), [(12, [1, 2, 3]), (7, [1, 7])])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_adaptive_average_pooling_where_sizes_divide(rank, size, levels):
    x = torch.randn(2, 3, *[size] * rank, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    adaptive = (nn.functional.adaptive_avg_pool1d, nn.functional.adaptive_avg_pool2d, nn.functional.adaptive_avg_pool3d)
    expected = torch.cat([adaptive[rank - 1](x, level).flatten(2) for level in levels], dim=2)
    close(Pool("b c [...]", "pyramid", levels=[[n] * rank for n in levels])(x), expected.transpose(1, 2), ulp=64)


def test_adaptive_windows_overlap_where_sizes_do_not_divide_and_our_cells_tile():
    x = torch.arange(11.0, dtype=torch.float64).reshape(1, 1, 11)
    z, w = Pool("b c [t]", "pyramid", levels=[4])(x, return_weights=True)
    theirs = nn.functional.adaptive_avg_pool1d(x, 4)[0, 0]
    cells = (w[0, :, 0] > 0).long()  # (4, 11)
    assert (cells.sum(0) == 1).all()
    windows = torch.stack([nn.functional.adaptive_avg_pool1d(row[None, None], 4)[0, 0] for row in torch.eye(11)])
    assert (windows > 0).sum(1).max() == 2  # some of torch's elements are in two windows
    assert not torch.allclose(z[0, :, 0], theirs)
    sizes = cells.sum(1)
    close((sizes * z[0, :, 0]).sum(), x.sum())  # of our cells the whole can be put together again


@pytest.mark.parametrize(("channels", "kept", "pooled"), list(itertools.product([1, 3], [1, 4], [1, 9])))
def test_a_dense_mean_is_torchs_own_to_the_bit(channels, kept, pooled):
    x = torch.randn(5, channels, kept, pooled, generator=torch.Generator().manual_seed(7))
    assert torch.equal(Pool("b c f [t]", "mean")(x), x.mean(-1))
