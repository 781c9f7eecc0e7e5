"""What is raced: each pool against what people use today, with the bar it has to clear."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import einops
import torch
import torch_geometric.nn.aggr as pyg
from monai.visualize import CAM
from timm.layers import AttentionPoolLatent
from torch import Tensor, nn
from torch_geometric.utils import scatter, softmax

from modalpool import Pool, contributions
from modalpool.compat.timm import attention_from_latent
from modalpool.kernels import Segments
from modalpool.sets import RaggedSets

Function = Callable[..., Tensor]
Bars = dict[str, tuple[float | None, float | None]]
"""Least ratio to a peer, forward and forward with backward; None = reported only."""


class Case(NamedTuple):
    """One race. All functions take the same inputs; the exact values come from ours in float64."""

    work: str
    size: str
    inputs: list[Tensor]
    ours: Function
    peers: dict[str, Function]
    bars: Bars
    backward: bool = True


def randn(*shape: int, device: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def lengths_around(sets: int, mean: int) -> Tensor:
    return torch.randint(mean // 2, mean + mean // 2 + 1, (sets,), generator=torch.Generator().manual_seed(1))


SIZES = {"s": (4096, 30, 64), "m": (256, 500, 128), "l": (1024, 950, 64)}


class Graphs(NamedTuple):
    """A batch of ragged sets in all forms."""

    x: Tensor
    index: Tensor
    ptr: Tensor
    size: int

    @classmethod
    def make(cls, size: str, device: str, *, ordered: bool = True) -> "Graphs":
        sets, mean, channels = SIZES[size]
        lengths = lengths_around(sets, mean)
        ptr = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
        index = torch.repeat_interleave(torch.arange(sets), lengths)
        if not ordered:
            index = index[torch.randperm(len(index), generator=torch.Generator().manual_seed(2))]
        x = randn(len(index), channels, device=device)
        return cls(x, index.to(device), ptr.to(device), sets)


def fold_bars(bars: dict[str, tuple[float, float]], *, factor: float = 1.0) -> Bars:
    return {name: (a * factor, b * factor) for name, (a, b) in bars.items()}


RAGGED: dict[str, tuple[Callable[[], nn.Module], dict[str, tuple[float, float]]]] = {
    "mean": (pyg.MeanAggregation, {"PyG index": (1.15, 0.9), "PyG ptr": (4.0, 3.0)}),
    "max": (pyg.MaxAggregation, {"PyG index": (0.75, 4.0)}),
    "softmax": (pyg.SoftmaxAggregation, {"PyG index": (2.4, 2.4)}),
    "std": (pyg.StdAggregation, {"PyG index": (0.9, 1.3)}),
    "sum": (pyg.SumAggregation, {}),
    "min": (pyg.MinAggregation, {}),
    "var": (pyg.VarAggregation, {}),
    "power": (lambda: pyg.PowerMeanAggregation(3.0), {}),
}


def ragged(device: str, sizes: str) -> Iterator[Case]:
    for name, (aggregation, bars) in RAGGED.items():
        for size in sizes if bars else sizes[:1]:
            for ordered in (True, False) if size == "m" and bars else (True,):
                yield ragged_case(name, aggregation(), Graphs.make(size, device, ordered=ordered), size, ordered, bars)
    for size in sizes:
        for ordered in (True, False) if size == "m" else (True,):
            graphs = Graphs.make(size, device, ordered=ordered)
            yield linear_gate(graphs, size, ordered)
            yield scores_given(graphs, size, ordered)


def _label(size: str, ordered: bool) -> str:
    return size if ordered else f"{size}, any order"


def ragged_case(
    name: str, aggregation: nn.Module, graphs: Graphs, size: str, ordered: bool, bars: dict[str, tuple[float, float]]
) -> Case:
    pool = Pool("[n] c", name)
    x, index, ptr, sets = graphs
    x = x.abs() + 0.1 if name == "power" else x
    how = {"ptr": ptr} if ordered else {"index": index, "dim_size": sets}
    peers: dict[str, Function] = {"PyG index": lambda x: aggregation(x, index=index, dim_size=sets)}
    if ordered:
        peers["PyG ptr"] = lambda x: aggregation(x, ptr=ptr)
    factor = 1.0 if ordered else 0.7
    bars = {peer: bar for peer, bar in bars.items() if peer in peers}
    return Case(
        f"ragged {name}", _label(size, ordered), [x], lambda x: pool(x, **how), peers, fold_bars(bars, factor=factor)
    )


def linear_gate(graphs: Graphs, size: str, ordered: bool) -> Case:
    x, index, ptr, sets = graphs
    torch.manual_seed(0)
    gate = nn.Linear(x.shape[1], 1, bias=False).to(x)
    pool = Pool("[n] c", "attention", channels=x.shape[1]).to(x)
    how = {"ptr": ptr} if ordered else {"index": index, "dim_size": sets}
    names = [name for name, _ in pool.named_parameters()]
    theirs = pyg.AttentionalAggregation(gate)

    def ours(x: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(pool, {names[0]: weight}, (x,), how)

    def peer(x: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(theirs, {"gate_nn.weight": weight}, (x,), {"index": index, "dim_size": sets})

    bars = fold_bars({"PyG index": (1.1, 1.35)}, factor=1.0 if ordered else 0.7)
    inputs = [x, gate.weight.detach()]
    return Case("ragged attention, linear gate", _label(size, ordered), inputs, ours, {"PyG index": peer}, bars)


def scores_given(graphs: Graphs, size: str, ordered: bool) -> Case:
    x, index, ptr, sets = graphs
    scores = randn(len(x), 1, device=x.device.type, seed=3)

    def ours(x: Tensor, scores: Tensor) -> Tensor:
        given = {"ptr": ptr} if ordered else {"index": index}
        here = RaggedSets(Segments(sets, len(x), **given))
        weight, _ = here.softmax(scores)
        return here.weighted_sum(weight[..., None], x).squeeze(1)

    def peer(x: Tensor, scores: Tensor) -> Tensor:
        return scatter(softmax(scores, index, num_nodes=sets) * x, index, dim_size=sets, reduce="sum")

    bars = fold_bars({"PyG index": (1.8, 1.55)}, factor=1.0 if ordered else 0.7)
    return Case("ragged attention, scores given", _label(size, ordered), [x, scores], ours, {"PyG index": peer}, bars)


LATENT = {
    "(32, 196, 768), 12 heads": (32, 196, 768, 12, 1),
    "(2, 4096, 384), 6 heads": (2, 4096, 384, 6, 1),
    "(8, 1024, 256), 4 heads": (8, 1024, 256, 4, 1),
    "(8, 1024, 256), 4 heads, 8 queries": (8, 1024, 256, 4, 8),
}


def latent(device: str, quick: bool) -> Iterator[Case]:
    """Attention pooling of tokens as vision transformers do it."""
    names = list(LATENT)
    for name in [names[2], names[3]] if quick else names:
        batch, tokens, channels, heads, queries = LATENT[name]
        for masked in (False, True) if queries == 1 else (False,):
            torch.manual_seed(0)
            theirs = AttentionPoolLatent(channels, num_heads=heads, latent_len=queries, pool_type="", mlp_ratio=1.0)
            theirs.mlp = None
            theirs = theirs.to(device)
            pool = Pool("b [n] c", attention_from_latent(theirs)).to(device)
            mask = torch.arange(tokens) < lengths_around(batch, tokens * 2 // 3)[:, None].clamp(max=tokens)
            mask = mask.to(device) if masked else None
            attend = None if mask is None else mask[:, None, None]
            bar = (10.0, 10.0) if queries == 1 else (2.8, 2.8)
            yield Case(
                "dense attention" + (", masked" if masked else ""),
                name,
                [randn(batch, tokens, channels, device=device)],
                lambda x, pool=pool, mask=mask: pool(x, mask=mask),
                {
                    "timm": lambda x, theirs=theirs, attend=attend, queries=queries: (
                        theirs(x, attend) if queries > 1 else theirs(x, attend)[:, 0]
                    )
                },
                {"timm": bar},
            )


def masked_mean(device: str, quick: bool) -> Iterator[Case]:
    shapes = [((16, 256, 32, 64), "b c [f t]")] + ([] if quick else [((2, 32, 64, 64, 64), "b c [d h w]")])
    for shape, layout in shapes:
        mask = torch.rand(shape[0], *shape[2:], generator=torch.Generator().manual_seed(4)).to(device) < 0.7
        dims = tuple(range(2, len(shape)))
        count = mask.sum(tuple(d - 1 for d in dims))[:, None]
        pool = Pool(layout)
        yield Case(
            "masked dense mean",
            str(shape),
            [randn(*shape, device=device)],
            lambda x, pool=pool, mask=mask: pool(x, mask=mask),
            {
                "torch.where": lambda x, mask=mask, dims=dims: torch.where(mask[:, None], x, 0).sum(dims)
                / mask.sum(tuple(d - 1 for d in dims))[:, None],
                "(x * m), leaky": lambda x, mask=mask, dims=dims, count=count: (x * mask[:, None]).sum(dims) / count,
            },
            {"torch.where": (1.8, 1.8)},
        )


def dense_max(device: str, quick: bool) -> Iterator[Case]:
    shapes = [((16, 256, 32, 64), "b c [f t]")] + ([] if quick else [((2, 32, 64, 64, 64), "b c [d h w]")])
    for shape, layout in shapes:
        dims = tuple(range(2, len(shape)))
        pool = Pool(layout, "max")
        adaptive = nn.functional.adaptive_max_pool2d if len(dims) == 2 else nn.functional.adaptive_max_pool3d
        ours = " ".join(["b", "c", "d", "h", "w"][: len(shape)])
        yield Case(
            "dense max",
            str(shape),
            [randn(*shape, device=device)],
            lambda x, pool=pool: pool(x),
            {
                "amax": lambda x, dims=dims: x.amax(dims),
                "einops": lambda x, ours=ours: einops.reduce(x, f"{ours} -> b c", "max"),
                "adaptive pool": lambda x, adaptive=adaptive: adaptive(x, 1).flatten(1),
            },
            {"amax": (0.9, 2.4)},
        )


def means(device: str, quick: bool) -> Iterator[Case]:
    """Means without a mask: nothing to win but the backward and half precision, and nothing to lose."""
    plain = [
        ("b c [t]", (64, 256, 400), torch.float32, None),
        ("b c f [t]", (16, 32, 64, 400), torch.float32, None),
        ("b c [f] t", (16, 32, 64, 400), torch.float32, None),
        ("b [n] c", (32, 512, 384), torch.float32, None),
        ("b c [d h w]", (4, 64, 48, 48, 48), torch.float32, None),
        ("b c [d h w]", (4, 64, 48, 48, 48), torch.bfloat16, None),
        ("b c [d h w]", (4, 64, 48, 48, 48), torch.float32, torch.channels_last_3d),
        ("b c [d h w]", (4, 64, 48, 48, 48), torch.bfloat16, torch.channels_last_3d),
    ]
    for layout, shape, dtype, memory in plain[-3::2] if quick else plain:
        names = layout.split()
        inside, dims = False, []
        for i, name in enumerate(names):
            inside |= name.startswith("[")
            if inside:
                dims.append(i)
            inside &= not name.endswith("]")
        x = randn(*shape, device=device, dtype=dtype)
        x = x if memory is None else x.contiguous(memory_format=memory)
        pool = Pool(layout)
        whole = layout.replace("[", "").replace("]", "")
        kept = " ".join(name for i, name in enumerate(whole.split()) if i not in dims)
        bf16, last = dtype == torch.bfloat16, memory is not None
        bar = (2.8, 3.5) if bf16 and last else (0.95, 0.95) if bf16 else (0.9, 0.9)
        yield Case(
            "mean" + (", bfloat16" if bf16 else "") + (", channels last" if last else ""),
            f"{layout!r} {shape}",
            [x],
            lambda x, pool=pool: pool(x),
            {
                "x.mean": lambda x, dims=dims: x.mean(dims),
                "einops": lambda x, whole=whole, kept=kept: einops.reduce(x, f"{whole} -> {kept}", "mean"),
            },
            {"x.mean": bar},
        )


def tiny(device: str) -> Iterator[Case]:
    """What a call costs where there is nothing to compute: 8 sets of 20 elements, 32 channels."""
    index = torch.arange(8).repeat_interleave(20).to(device)
    ptr = torch.arange(0, 161, 20).to(device)
    x = randn(160, 32, device=device)
    for name, (aggregation, _) in RAGGED.items():
        pool, theirs = Pool("[n] c", name), aggregation()
        given = x.abs() + 0.1 if name == "power" else x
        yield Case(
            f"overhead, ragged {name}",
            "8 x 20 x 32",
            [given],
            lambda x, pool=pool: pool(x, index=index, dim_size=8),
            {"PyG index": lambda x, theirs=theirs: theirs(x, index=index, dim_size=8)},
            {"PyG index": (1.0, 1.0)},
        )
    pool, mean = Pool("[n] c"), pyg.MeanAggregation()
    yield Case(
        "overhead, ragged mean by ptr",
        "8 x 20 x 32",
        [x],
        lambda x: pool(x, ptr=ptr),
        {"PyG ptr": lambda x: mean(x, ptr=ptr)},
        {"PyG ptr": (1.0, 1.0)},
    )
    graphs = Graphs(x, index, ptr, 8)
    case = linear_gate(graphs, "8 x 20 x 32", True)
    yield case._replace(work="overhead, ragged attention", bars={"PyG index": (1.0, 1.0)})
    dense = Pool("b [n] c")
    yield Case(
        "overhead, dense mean",
        "8 x 20 x 32",
        [x.reshape(8, 20, 32)],
        lambda x: dense(x),
        {"x.mean": lambda x: x.mean(1), "PyG index": lambda x: mean(x.flatten(0, 1), index=index, dim_size=8)},
        {"PyG index": (1.0, 1.0)},
    )


def others(device: str, quick: bool) -> Iterator[Case]:
    """The rest of the reductions, against the formula as one would type it; no bars."""
    shape = (16, 64, 32, 32)
    x = randn(*shape, device=device).abs() + 0.1
    channels = shape[1]

    def typed(name: str) -> Function:
        return {
            "sum": lambda x: x.sum((2, 3)),
            "std": lambda x: x.std((2, 3), correction=0),
            "var": lambda x: x.var((2, 3), correction=0),
            "min": lambda x: x.amin((2, 3)),
            "power": lambda x: x.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3),
            "logsumexp": lambda x: x.logsumexp((2, 3)),
            "softmax": lambda x: (x.flatten(2).softmax(2) * x.flatten(2)).sum(2),
            "size_law": lambda x: x.mean((2, 3)) * 32,
            "stochastic": lambda x: x.square().sum((2, 3)) / x.sum((2, 3)),
        }[name]

    for name in (
        ["power", "softmax"]
        if quick
        else ["sum", "std", "var", "min", "power", "logsumexp", "softmax", "size_law", "stochastic"]
    ):
        pool = Pool("b c [h w]", name).eval()
        yield Case(f"dense {name}", str(shape), [x], lambda x, pool=pool: pool(x), {"as typed": typed(name)}, {})

    def adaptive(x: Tensor) -> Tensor:
        cells = [nn.functional.adaptive_avg_pool2d(x, n).flatten(2) for n in (1, 2, 4)]
        return torch.cat(cells, dim=2).mT

    pyramid = Pool("b c [h w]", "pyramid", levels=[1, 2, 4])
    yield Case("dense pyramid", str(shape), [x], lambda x: pyramid(x), {"adaptive pools": adaptive}, {})
    torch.manual_seed(0)
    regions = Pool("b c [h w]", "regions", channels=channels, regions=4).to(device)
    scores = regions.reduction.scores.content

    def soft_regions(x: Tensor) -> Tensor:
        share = nn.functional.conv2d(x, scores.weight[:, :, None, None], scores.bias).softmax(1).flatten(2)
        return share @ x.flatten(2).mT / share.sum(2, keepdim=True)

    yield Case("dense regions", str(shape), [x], lambda x: regions(x), {"as typed": soft_regions}, {})
    yield cam_case(device)


def cam_case(device: str) -> Case:
    """A class activation map of a volume; MONAI's upsampling is switched off."""
    torch.manual_seed(0)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.head = nn.Identity(), nn.Linear(64, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.features(x).mean((2, 3, 4)))

    network, pool = Network().to(device), Pool("b c [d h w]")
    cam = CAM(
        network,
        target_layers="features",
        fc_layers="head",
        upsampler=lambda size: nn.Identity(),
        postprocessing=lambda x: x,
    )
    x = randn(1, 64, 24, 24, 24, device=device)
    count = 24**3

    def ours(x: Tensor) -> Tensor:
        return contributions(pool, network.head.to(x.dtype), x)[1][:, :1]

    return Case(
        "class maps",
        "(1, 64, 24, 24, 24)",
        [x],
        ours,
        {"MONAI CAM": lambda x: cam(x, class_idx=[0]) / count},
        {},
        False,
    )


def all_cases(device: str, *, quick: bool) -> Iterator[Case]:
    yield from ragged(device, "m" if quick else "sml")
    yield from latent(device, quick)
    yield from masked_mean(device, quick)
    yield from dense_max(device, quick)
    yield from means(device, quick)
    yield from others(device, quick)
    yield from tiny(device)
