"""Our reductions in PyG's shape: PyG's numbers where PyG is right, its words, its message passing, its resolver."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from every import close
from torch import nn

pytest.importorskip("torch_geometric", reason="torch-geometric is not installed: pip install 'modalpool[graph]'")
from torch_geometric.nn import GCNConv, GENConv, GINConv, SAGEConv
from torch_geometric.nn import aggr as peer
from torch_geometric.nn import pool as peer_readouts
from torch_geometric.nn.resolver import aggregation_resolver

import modalpool.compat.pyg as ours
from modalpool import Pool

INDEX = torch.tensor([2, 0, 1, 1, 0, 3, 3, 2, 2, 5])  # set 4 is empty
SIZE = 6
SAME = [
    pytest.param("SumAggregation", {}, id="sum"),
    pytest.param("MeanAggregation", {}, id="mean"),
    pytest.param("MaxAggregation", {}, id="max"),
    pytest.param("MinAggregation", {}, id="min"),
    pytest.param("MulAggregation", {}, id="mul"),
    pytest.param("VariancePreservingAggregation", {}, id="variance_preserving"),
    pytest.param("VarAggregation", {}, id="var"),
    pytest.param("StdAggregation", {}, id="std"),
    pytest.param("SoftmaxAggregation", {"t": 0.7}, id="softmax"),
    pytest.param("SoftmaxAggregation", {"t": -2.0, "learn": True}, id="softmin_learned"),
    pytest.param("SoftmaxAggregation", {"t": 2.0, "semi_grad": True}, id="softmax_semi_grad"),
    pytest.param("PowerMeanAggregation", {}, id="power_1"),
    pytest.param("PowerMeanAggregation", {"p": 3.0, "learn": True}, id="power_learned"),
]


def elements(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 + 0.1


@pytest.mark.parametrize(
    ("shape", "dim"), [((10, 4), -2), ((10, 4), 0), ((3, 10, 4), 1), ((10, 3, 4), 0), ((3, 4, 10), -1)]
)
@pytest.mark.parametrize(("name", "options"), SAME)
def test_the_same_numbers_and_gradients(name, options, shape, dim):
    mine, theirs = getattr(ours, name)(**options), getattr(peer, name)(**options)
    x = elements(*shape).requires_grad_()
    full = torch.bincount(INDEX, minlength=SIZE) > (1 if "Std" in name else 0)  # sets that PyG has no constant for
    z, expected = (aggr(x, INDEX, dim_size=SIZE, dim=dim).movedim(dim, 0)[full] for aggr in (mine, theirs))
    ulp = {"Po": 1e9, "Va": 1e6, "St": 1e6}.get(name[:2], 64)  # ours keeps log p in float32; PyG: E[x²] - E[x]²
    close(z, expected, ulp=ulp)
    slope = torch.linspace(-1, 1, z.numel(), dtype=torch.float64).reshape(z.shape)
    inputs = [[x, *aggr.parameters()] for aggr in (mine, theirs)]
    gradients = [torch.autograd.grad(out, given, slope) for out, given in zip((z, expected), inputs, strict=True)]
    for i, (got, wanted) in enumerate(zip(*gradients, strict=True)):
        close(got, wanted * (options["p"] if "Power" in name and i else 1), ulp=ulp)  # d/d log p = p d/dp


@pytest.mark.parametrize(("name", "options"), SAME)
def test_the_same_words(name, options):
    mine, theirs = getattr(ours, name)(**options), getattr(peer, name)(**options)
    assert repr(mine) == repr(theirs)
    x = elements(10, 4)
    for wrong in ({"dim": 7}, {"dim_size": 3}, {"ptr": torch.tensor([0, 10]), "dim_size": 3}):
        messages = []
        for aggr in (mine, theirs):
            with pytest.raises(ValueError, match="Encountered invalid") as raised:
                aggr(x, **{"index": None if "ptr" in wrong else INDEX, **wrong})
            messages.append(str(raised.value))
        assert messages[0] == messages[1]


@pytest.mark.parametrize("learn", [False, True])
@pytest.mark.parametrize("index", [INDEX, torch.arange(10) // 5], ids=["empty set", "full"])
def test_power_means_cut_their_elements_above(learn, index):
    x = elements(10, 4) * 100
    aggr = ours.PowerMeanAggregation(p=3.0, learn=learn)
    close(aggr(x, index), aggr(x.clamp(max=100), index))
    close(aggr(x, index)[0], x.clamp(max=100)[index == 0].pow(3).mean(0).pow(1 / 3), ulp=1e9)  # log p is float32
    assert (ours.PowerMeanAggregation(p=3.0, clamp_max=None)(x, index) > 100).any()


@pytest.mark.parametrize(("name", "options"), SAME)
def test_index_ptr_and_no_sets_agree(name, options):
    aggr = getattr(ours, name)(**options)
    x, index = elements(10, 4), INDEX.sort().values
    ptr = torch.cat([torch.zeros(1, dtype=torch.long), torch.bincount(index, minlength=SIZE).cumsum(0)])
    expected = aggr(x, index, dim_size=SIZE)
    close(aggr(x, index, ptr=ptr), expected)
    if name == "MulAggregation":
        with pytest.raises(NotImplementedError, match="requires 'index' to be specified"):
            aggr(x, ptr=ptr)
        return
    close(aggr(x, ptr=ptr), expected)
    close(aggr(x), aggr(x, torch.zeros(10, dtype=torch.long)))
    empty = 1 if name == "MulAggregation" else 0  # PyG's power mean gives 1e-4^(1/p)
    assert (expected[4] == empty).all()


def test_an_empty_set_is_zero_whatever_a_pool_gives_by_default(monkeypatch):
    monkeypatch.setitem(Pool.__init__.__kwdefaults__, "empty_value", "nan")
    x, call = elements(10, 4), {"index": INDEX, "dim_size": SIZE}
    assert Pool("[n] c")(x, **call)[4].isnan().all()
    for name in ("Sum", "Mean", "Max", "Min", "Var", "Std", "Softmax", "PowerMean"):
        assert (getattr(ours, f"{name}Aggregation")()(x, **call)[4] == 0).all()
    for pool in (ours.global_add_pool, ours.global_mean_pool, ours.global_max_pool):
        assert (pool(x, INDEX, SIZE)[4] == 0).all()
    assert (ours.PoolAggregation("max", empty_value=-1.0)(x, **call)[4] == -1).all()


def test_an_attention_of_any_networks():
    torch.manual_seed(0)
    x = elements(10, 4)
    for gate in (nn.Linear(4, 1), nn.Linear(4, 3)):
        parts = gate.double(), nn.Sequential(nn.Linear(4, 3), nn.ReLU()).double()
        mine, theirs = ours.AttentionalAggregation(*parts), peer.AttentionalAggregation(*parts)
        close(mine(x, INDEX, dim_size=SIZE), theirs(x, INDEX, dim_size=SIZE), ulp=64)
        assert repr(mine) == repr(theirs)
    before = parts[0].weight.clone()
    mine.reset_parameters()
    assert not torch.equal(before, parts[0].weight)


def test_the_power_mean_of_tens_is_ten():
    x = torch.full((5, 1), 10.0)
    close(ours.PowerMeanAggregation(p=3.0)(x), torch.tensor([[10.0]]))
    assert peer.PowerMeanAggregation(p=3.0)(x).item() < 5  # PyG clamps the mean of cubes at 100 as well


def test_half_precision_means_are_right_where_pyg_is_not():
    x = (torch.randn(3000, 8, generator=torch.Generator().manual_seed(0)) + 1).to(torch.bfloat16)
    ptr, exact = torch.tensor([0, 3000]), x.double().mean(0, keepdim=True)
    assert (peer.MeanAggregation()(x, ptr=ptr) - exact).abs().max() > 0.1
    assert (ours.MeanAggregation()(x, ptr=ptr) - exact).abs().max() < 0.01


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ours.SoftmaxAggregation(learn=True, semi_grad=True),
            "Cannot enable 'semi_grad' in 'SoftmaxAggregation'",
        ),
        (lambda: ours.SoftmaxAggregation(channels=4), "Cannot set 'channels' greater than '1' in case 'SoftmaxAgg"),
        (lambda: ours.PowerMeanAggregation(channels=4), "Cannot set 'channels' greater than '1' in case 'PowerMeanAgg"),
        (lambda: ours.VarAggregation(semi_grad=True), "'VarAggregation' has no 'semi_grad'.*leave it out"),
        (lambda: ours.StdAggregation(semi_grad=True), "'StdAggregation' has no 'semi_grad'.*leave it out"),
    ],
)
def test_wrong_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()


EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2], [1, 0, 1, 2, 2, 1, 4, 4]])


@pytest.mark.parametrize("rule", ["Mean", "Max", "Std", "Softmax"])
@pytest.mark.parametrize("conv", ["gin", "sage", "gcn"])
def test_in_message_passing(conv, rule):
    x = elements(6, 4).float()

    def build(library):
        torch.manual_seed(0)
        aggr = getattr(library, f"{rule}Aggregation")()
        if conv == "gin":
            return GINConv(nn.Linear(4, 4), aggr=aggr)
        return SAGEConv(4, 4, aggr=aggr) if conv == "sage" else GCNConv(4, 4, aggr=aggr)

    close(build(ours)(x, EDGES), build(peer)(x, EDGES), ulp=1000 if rule == "Std" else 16)


def test_in_lists_and_through_the_resolver():
    x = elements(10, 4)
    ours.register()
    both = aggregation_resolver(["mean", ours.StdAggregation(), ours.PoolAggregation("attention", channels=4)])
    both.double()
    assert both(x, INDEX, dim_size=SIZE).shape == (SIZE, 12)
    pool = aggregation_resolver("pool", "logsumexp", normalize=True)
    assert isinstance(pool, ours.PoolAggregation)
    assert repr(pool) == "PoolAggregation('logsumexp', normalize=True)"
    conv = SAGEConv(4, 4, aggr="pool", aggr_kwargs={"reduction": "attention", "channels": 4, "heads": 2})
    assert repr(conv.aggr_module) == "PoolAggregation('attention', channels=4, heads=2)"
    assert conv(x.float()[:6], EDGES).shape == (6, 4)
    assert GENConv(4, 4, aggr=ours.SoftmaxAggregation(learn=True))(x.float()[:6], EDGES).shape == (6, 4)


def test_several_vectors_lie_side_by_side():
    x = elements(2, 10, 4).float()
    aggr = ours.PoolAggregation("attention", channels=4, queries=3)
    z = aggr(x, INDEX, dim_size=SIZE)
    assert z.shape == (2, SIZE, 12)
    expected = aggr.pool(x[0], index=INDEX, dim_size=SIZE)
    close(z[0], expected.flatten(1))


def test_parameters_are_drawn_anew_and_travel():
    aggr = ours.PoolAggregation("attention", channels=4, grid=[3], learn_temperature=True)
    start = copy.deepcopy(aggr.state_dict())
    aggr.reset_parameters()
    assert not torch.equal(start["pool.reduction.scores.content.weight"], aggr.pool.reduction.scores.content.weight)
    assert torch.equal(start["pool.reduction.scores.position"], aggr.pool.reduction.scores.position)
    soft = ours.SoftmaxAggregation(t=2.0, learn=True, channels=4)
    soft.pool.reduction.t.data.zero_()
    soft.reset_parameters()
    assert soft.pool.reduction.t.tolist() == [2.0] * 4
    power = ours.PowerMeanAggregation(p=2.0, learn=True, channels=4)
    power.pool.reduction.log_p.data.zero_()
    power.reset_parameters()
    close(power.pool.reduction.log_p.exp().detach(), torch.full((4,), 2.0))
    x = elements(10, 4).float()
    for module in (soft, power, ours.MeanAggregation()):
        copied = pickle.loads(pickle.dumps(copy.deepcopy(module)))
        assert torch.equal(copied(x, INDEX), module(x, INDEX))


@pytest.mark.parametrize("kind", [torch.float64, torch.int64, torch.int32])
@pytest.mark.parametrize("shape", [(10,), (10, 4), (3, 10, 4), (2, 3, 10, 4)])
@pytest.mark.parametrize("name", ["global_add_pool", "global_mean_pool", "global_max_pool"])
def test_readouts_are_pygs_in_every_shape(name, shape, kind):
    mine, theirs = getattr(ours, name), getattr(peer_readouts, name)
    x = (10 * elements(*shape)).to(kind)
    for given in ((INDEX, SIZE), (INDEX,), *([] if "mean" in name and kind != torch.float64 else [(None,)])):
        torch.testing.assert_close(mine(x, *given), theirs(x, *given))
    with pytest.raises(ValueError, match="batch: expected values from 0 to 2"):
        mine(elements(10, 4), INDEX, 3)


def test_the_library_imports_neither_peer():
    code = "import sys, modalpool; print([m for m in ('torch_geometric', 'timm') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    "name", ["Mean", "Std", *(pytest.param(name, marks=pytest.mark.slow) for name in ("Sum", "Max", "Softmax"))]
)
def test_a_convolution_compiles_whole_for_any_graph(name):
    """As `aggr=` of message passing, in one graph and with dynamic sizes."""
    torch._dynamo.reset()
    conv = SAGEConv(4, 3, aggr=getattr(ours, f"{name}Aggregation")()).double()
    compiled = torch.compile(conv, fullgraph=True, dynamic=True, backend="aot_eager")
    for nodes, seed in ((6, 0), (9, 1)):
        torch.manual_seed(seed)
        x, edges = torch.rand(nodes, 4, dtype=torch.float64), torch.randint(0, nodes, (2, 3 * nodes))
        close(compiled(x, edges), conv(x, edges), ulp=64)
