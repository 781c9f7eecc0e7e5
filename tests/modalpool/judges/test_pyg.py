"""PyG as the judge: its aggregations over index and ptr, with empty sets; and where it is wrong, that it is."""

import pytest
import torch
from every import close

pytest.importorskip("torch_geometric", reason="torch-geometric is not installed: pip install 'modalpool[graph]'")
from torch_geometric.nn import aggr as peer
from torch_geometric.nn.aggr.utils import PoolingByMultiheadAttention
from torch_geometric.utils import softmax as segment_softmax

from modalpool import Pool
from modalpool.reductions import Attention

SIZES = torch.tensor([4, 0, 1, 7, 2, 0])  # an empty set in the middle and at the end
SIZE, COUNT, CHANNELS = len(SIZES), int(SIZES.sum()), 4
SORTED = torch.repeat_interleave(torch.arange(SIZE), SIZES)
PTR = torch.nn.functional.pad(SIZES.cumsum(0), (1, 0))
ORDER = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))
FULL = SIZES > 0

RULES = [
    pytest.param(peer.SumAggregation(), "sum", {}, id="sum"),
    pytest.param(peer.MeanAggregation(), "mean", {}, id="mean"),
    pytest.param(peer.MaxAggregation(), "max", {}, id="max"),
    pytest.param(peer.MinAggregation(), "min", {}, id="min"),
    pytest.param(peer.VarAggregation(), "var", {}, id="var"),
    pytest.param(peer.StdAggregation(), "std", {}, id="std"),
    pytest.param(peer.SoftmaxAggregation(t=1.0), "softmax", {}, id="softmax"),
    pytest.param(peer.SoftmaxAggregation(t=4.0), "softmax", {"temperature": 0.25}, id="softmax_sharp"),
    pytest.param(peer.PowerMeanAggregation(p=3.0), "power", {"p": 3.0}, id="power_3"),
    pytest.param(peer.PowerMeanAggregation(p=0.5), "power", {"p": 0.5}, id="power_half"),
]
WAYS = pytest.mark.parametrize("way", ["sorted", "unsorted", "ptr"])


def elements(*shape, seed=1):
    """Between the power mean's clamps, 1e-4 and 100, after cubing too."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 + 0.1


def sets(way):
    """The order of the elements, our arguments and PyG's."""
    if way == "ptr":
        return torch.arange(COUNT), {"ptr": PTR}, {"ptr": PTR}
    order = torch.arange(COUNT) if way == "sorted" else ORDER
    index = SORTED[order]
    return order, {"index": index, "dim_size": SIZE}, {"index": index, "dim_size": SIZE}


def with_gradient(function, x, parameters, keep):
    z = function(x)[keep]
    slope = torch.linspace(-1, 2, z.numel(), dtype=z.dtype).reshape(z.shape)
    return [z, *torch.autograd.grad(z, [x, *parameters], slope)]


def agree(mine, theirs, x, parameters=(), keep=FULL, ulp=256.0):
    for got, expected in zip(
        with_gradient(mine, x, parameters, keep), with_gradient(theirs, x, parameters, keep), strict=True
    ):
        close(got, expected, ulp=ulp)


@pytest.mark.parametrize("kept", [False, True], ids=["plain", "kept_axis"])
@WAYS
@pytest.mark.parametrize(("theirs", "rule", "options"), RULES)
def test_aggregations_and_their_gradients(theirs, rule, options, way, kept):
    order, mine, call = sets(way)
    x = elements(COUNT, 3, CHANNELS) if kept else elements(COUNT, CHANNELS)
    x = x[order].requires_grad_()
    pool = Pool("[n] f c" if kept else "[n] c", rule, **options)
    keep = SIZES > 2 if rule == "std" else FULL  # PyG's is zero below sqrt(1e-5), see below
    if way == "ptr" and kept and rule == "softmax":
        pytest.skip("PyG's segment softmax takes a ptr with more than two axes only with torch-scatter (pyg 4902)")
    agree(lambda x: pool(x, **mine), lambda x: theirs(x, dim=0, **call), x, keep=keep, ulp=1e4)


@WAYS
@pytest.mark.parametrize("hidden", [None, 6], ids=["linear", "mlp"])
def test_attentional_aggregation(hidden, way):
    torch.manual_seed(2)
    pool = Pool(
        "[n] c", "attention", channels=CHANNELS, score="mlp" if hidden else "linear", score_channels=hidden or 1
    )
    pool = pool.double()
    scores = pool.reduction.scores
    gate = scores.content if hidden is None else torch.nn.Sequential(scores.hidden, torch.nn.Tanh(), scores.content)
    theirs = peer.AttentionalAggregation(gate)
    order, mine, call = sets(way)
    x = elements(COUNT, CHANNELS)[order].requires_grad_()
    agree(lambda x: pool(x, **mine), lambda x: theirs(x, **call), x, list(pool.parameters()))
    if way != "ptr":
        w = pool(x, **mine, return_weights=True)[1]
        close(w, segment_softmax(gate(x), call["index"], num_nodes=SIZE), ulp=64)


def pma(queries, heads):
    """PyG's PMA block and our attention with its weights; the block's feed-forward part follows in both."""
    torch.manual_seed(3)
    block = PoolingByMultiheadAttention(CHANNELS, queries, heads, layer_norm=False).double()
    attn = block.mab.attn
    q, k, v = attn.in_proj_weight.chunk(3)
    bias_q, _, bias_v = attn.in_proj_bias.chunk(3)
    pool = Attention.from_textbook(
        heads=heads,
        query=torch.nn.functional.linear(block.seed[0], q, bias_q).detach(),
        key=k,
        value=v,
        value_bias=bias_v,
        output=attn.out_proj.weight,
        output_bias=attn.out_proj.bias,
    )
    pool = Pool("[n] c", pool)

    def ours(x, **call):
        z = pool(block.lin(x).relu(), **call)
        z = (z if queries > 1 else z[:, None]) + block.seed
        return z + block.mab.lin(z).relu()

    return block, ours


@WAYS
@pytest.mark.parametrize(("queries", "heads"), [(1, 1), (3, 2)])
def test_the_pooling_of_the_set_transformer(queries, heads, way):
    block, ours = pma(queries, heads)
    order, mine, _ = sets(way)
    x = elements(COUNT, CHANNELS).requires_grad_()

    def theirs(x):
        """Set by set and without a mask, where PyG is right; empty sets are left out."""
        parts = [
            block(part[None])[0] if len(part) else x.new_zeros(queries, CHANNELS) for part in x.split(SIZES.tolist())
        ]
        return torch.stack(parts)

    agree(lambda x: ours(x[order], **mine), theirs, x, ulp=1024)


def test_empty_sets_are_not_empty_after_pygs_set_transformer():
    torch.manual_seed(4)
    x = elements(COUNT, CHANNELS)
    theirs = peer.SetTransformerAggregation(CHANNELS).double().eval()(x, SORTED, dim_size=SIZE)
    assert (theirs[~FULL].abs() > 1e-3).any()
    for rule in ("attention", "power", "mean", "logsumexp"):
        ours = Pool("[n] c", rule, channels=CHANNELS).double()(x, index=SORTED, dim_size=SIZE)
        assert (ours[~FULL] == 0).all()
        assert (ours[FULL] != 0).all()


def test_the_power_mean_of_an_empty_set_is_a_clamp_in_pyg():
    x = elements(COUNT, CHANNELS)
    z = peer.PowerMeanAggregation(p=3.0)(x, SORTED, dim_size=SIZE)
    close(z[~FULL], torch.full_like(z[~FULL], 1e-4 ** (1 / 3)))
    assert (Pool("[n] c", "power")(x, index=SORTED, dim_size=SIZE)[~FULL] == 0).all()


def test_the_power_mean_of_large_numbers_is_clamped_in_pyg():
    x = torch.full((5, 1), 10.0, dtype=torch.float64)
    assert peer.PowerMeanAggregation(p=3.0)(x).item() < 5
    close(Pool("[n] c", "power", p=3.0)(x), torch.full((1, 1), 10.0, dtype=torch.float64))


def test_pyg_loses_the_variance_of_numbers_far_from_zero():
    x = (torch.randn(10_000, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64) + 1000).float()
    index, exact = torch.zeros(10_000, dtype=torch.long), x.double().var(0, correction=0)
    assert (peer.VarAggregation()(x, index)[0] - exact).abs().max() > 0.1
    close(Pool("[n] c", "var")(x, index=index)[0], exact.float(), ulp=16)
    close(Pool("[n] c", "std")(x, index=index)[0], exact.sqrt().float(), ulp=16)


def test_pyg_takes_a_small_standard_deviation_for_zero():
    x = torch.tensor([[1.0], [1.004]], dtype=torch.float64)
    assert peer.StdAggregation()(x, torch.tensor([0, 0])).item() == 0
    close(Pool("[n] c", "std")(x), torch.tensor([[0.002]], dtype=torch.float64), ulp=64)


def test_pyg_replaces_infinities_on_the_ptr_path():
    x, ptr = torch.tensor([[torch.inf], [1.0], [-torch.inf], [-torch.inf]]), torch.tensor([0, 2, 4])
    theirs = peer.MaxAggregation()(x, ptr=ptr)
    assert theirs[0].item() == 0
    assert Pool("[n] c", "max")(x, ptr=ptr).flatten().tolist() == [torch.inf, -torch.inf]
    assert Pool("[n] c", "max")(x, index=torch.tensor([0, 0, 1, 1])).flatten().tolist() == [torch.inf, -torch.inf]


def test_half_precision_means_over_ptr_and_index():
    x = (torch.randn(3000, 8, generator=torch.Generator().manual_seed(0)) + 1).to(torch.bfloat16)
    exact = x.double().mean(0)
    assert (peer.MeanAggregation()(x, ptr=torch.tensor([0, 3000]))[0] - exact).abs().max() > 0.1
    assert (Pool("[n] c", "mean")(x, ptr=torch.tensor([0, 3000]))[0] - exact).abs().max() < 2 * 2**-8
    many = torch.ones(100_000, 1, dtype=torch.float16)
    index = torch.zeros(100_000, dtype=torch.long)
    assert not peer.MeanAggregation()(many, index, dim_size=1).isfinite().all()
    assert Pool("[n] c", "mean")(many, index=index, dim_size=1).item() == 1


@pytest.mark.parametrize(
    ("rule", "theirs"),
    [
        pytest.param("softmax", lambda: peer.SoftmaxAggregation(), id="softmax"),
        pytest.param(
            "attention", lambda: peer.AttentionalAggregation(torch.nn.Linear(1, 1).to(torch.float16)), id="attention"
        ),
    ],
)
def test_half_precision_attention_over_many_equal_nodes(rule, theirs):
    x, index = torch.ones(70_000, 1, dtype=torch.float16), torch.zeros(70_000, dtype=torch.long)
    assert theirs()(x, index, dim_size=1).item() != 1  # PyG: the denominator overflows
    assert abs(Pool("[n] c", rule, channels=1)(x, index=index, dim_size=1).item() - 1) <= 2 * 2**-11


def test_the_exponent_zero_is_an_error_of_ours_and_an_exception_of_pygs():
    with pytest.raises(ZeroDivisionError):
        peer.PowerMeanAggregation(p=0.0)(elements(3, 1))
    with pytest.raises(ValueError, match="p: expected a positive finite exponent, got 0"):
        Pool("[n] c", "power", p=0.0)
