"""How much of a card's copy bandwidth each pool reaches on a gigabyte, and what its peers take there.

    python tests/benchmarks --device cuda       everything, this at the end
    python tests/benchmarks/gpu.py              this alone

A share is the least that has to be moved (forward x, backward x and its gradient, or only the gradient where that does
not depend on x), over the time it took, over what copying a tensor of that size moves in the same time.
"""

import argparse
import csv
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch_geometric.nn.aggr as pyg
from measure import forward, race, seconds
from timm.layers import AttentionPoolLatent
from torch import Tensor, nn

from modalpool import Pool
from modalpool.compat.timm import attention_from_latent

Function = Callable[[Tensor], Tensor]
FORWARD, BACKWARD = 0.8, 0.7
"""Least share of the copy bandwidth."""
COLUMNS = ("work", "sets", "dtype", "pass", "milliseconds", "share", "bar", "met")
ROUNDS = 7


class Work(NamedTuple):
    """One pool on one input."""

    name: str
    sets: str
    x: Tensor
    pool: Function
    reads: bool  # whether the backward needs x
    peers: dict[str, tuple[Function, float]]  # and how many times our time they should take, at least


def bounds_around(count: int, mean: int, device: str) -> Tensor:
    """Bounds of sets of sizes around a mean, ``(S + 1,)``."""
    sets = max(count // mean, 1)
    inside = torch.randperm(max(count - 1, sets), generator=torch.Generator().manual_seed(0))[: sets - 1] + 1
    return torch.cat([torch.tensor([0]), inside.sort().values, torch.tensor([count])]).to(device)


def ragged(nbytes: int, dtype: torch.dtype, device: str) -> Iterator[Work]:
    channels = 64
    count = nbytes // dtype.itemsize // channels
    x = torch.randn(count, channels, device=device, dtype=dtype)
    means = {"around 30": 30, "around 1000": 1000, "one": count}
    for sets, mean in means.items():
        ptr = bounds_around(count, mean, device)
        size = len(ptr) - 1
        index = torch.repeat_interleave(torch.arange(size, device=device), ptr.diff(), output_size=count)
        for name, aggregation, bar, reads in (
            ("mean", pyg.MeanAggregation(), 1.0, False),
            ("max", pyg.MaxAggregation(), 1.0, True),
            ("softmax", pyg.SoftmaxAggregation(), 4.0, True),
        ):
            pool = Pool("[n] c", name)
            theirs = {
                "PyG index": (lambda x, a=aggregation, i=index, n=size: a(x, index=i, dim_size=n), bar),
                "PyG ptr": (lambda x, a=aggregation, p=ptr: a(x, ptr=p), bar),
            }
            yield Work(f"ragged {name}", sets, x, lambda x, pool=pool, ptr=ptr: pool(x, ptr=ptr), reads, theirs)
        attention = Pool("[n] c", "attention", channels=channels).to(device)
        gate = pyg.AttentionalAggregation(nn.Linear(channels, 1, bias=False).to(device, dtype))
        peer = {"PyG index": (lambda x, g=gate, i=index, n=size: g(x, index=i, dim_size=n), 1.0)}
        yield Work("ragged attention", sets, x, lambda x, p=attention, ptr=ptr: p(x, ptr=ptr), True, peer)
    mixed = torch.randint(count // 1000 + 1, (count,), device=device)
    pool = Pool("[n] c", "softmax")
    shuffled = {"PyG index": (lambda x: pyg.SoftmaxAggregation()(x, index=mixed, dim_size=count // 1000 + 1), 4.0)}
    order = "any order, around 1000"
    yield Work("ragged softmax", order, x, lambda x: pool(x, index=mixed, dim_size=count // 1000 + 1), True, shuffled)


def dense(nbytes: int, dtype: torch.dtype, device: str) -> Iterator[Work]:
    side = max(round((nbytes / dtype.itemsize / 64) ** (1 / 3)) // 8 * 8, 8)
    volume = torch.randn(2, 32, side, side, side, device=device, dtype=dtype)
    mask = torch.rand(2, side, side, side, device=device) < 0.7
    last = volume.contiguous(memory_format=torch.channels_last_3d)
    mean, top = Pool("b c [d h w]"), Pool("b c [d h w]", "max")
    filled = {
        "torch.where": (
            lambda x: torch.where(mask[:, None], x, 0).sum((2, 3, 4)) / mask.sum((1, 2, 3))[:, None],
            1.0,
        )
    }
    shape = "volumes"
    yield Work("masked mean", shape, volume, lambda x: mean(x, mask=mask), False, filled)
    yield Work("masked mean", f"{shape}, channels last", last, lambda x: mean(x, mask=mask), False, filled)
    theirs: dict[str, tuple[Function, float]] = {"x.mean": (lambda x: x.mean((2, 3, 4)), 0.95)}
    yield Work("mean", shape, volume, mean, False, theirs)
    yield Work("mean", f"{shape}, channels last", last, mean, False, theirs)
    yield Work("max", shape, volume, top, True, {"amax": (lambda x: x.amax((2, 3, 4)), 1.0)})
    tokens, channels, heads = 1024, 256, 4
    batch = max(nbytes // dtype.itemsize // tokens // channels, 1)
    x = torch.randn(batch, tokens, channels, device=device, dtype=dtype)
    latent = AttentionPoolLatent(channels, num_heads=heads, pool_type="token", mlp_ratio=1.0).to(device, dtype)
    latent.mlp = None
    ours = Pool("b [n] c", attention_from_latent(latent)).to(device)
    yield Work("attention, 4 heads", "tokens", x, ours, True, {"timm": (latent, 5.0)})
    one = Pool("b [n] c", "attention", channels=channels).to(device)
    yield Work("attention", "tokens", x, one, True, {})


def backward(pool: Function, x: Tensor) -> Callable[[], object]:
    """The backward pass alone, for all that has a gradient."""
    leaf = x.detach().requires_grad_()
    z = pool(leaf)
    slope = torch.ones_like(z)
    return lambda: torch.autograd.grad(z, leaf, slope, retain_graph=True)


def time(function: Callable[[], object], device: str) -> float:
    for _ in range(3):
        function()
    return statistics.median(seconds(function, device, 5) for _ in range(ROUNDS))


def copy_speed(nbytes: int, device: str) -> float:
    """Bytes a second that copying reads and writes."""
    x = torch.empty(nbytes, dtype=torch.uint8, device=device)
    y = torch.empty_like(x)
    return 2 * nbytes / time(lambda: y.copy_(x), device)


def measure(work: Work, speed: float, device: str) -> list[dict[str, object]]:
    """Shares of both passes, and the race against the peers."""
    rows: list[dict[str, object]] = []

    def add(which: str, spent: float, share: float, bar: float) -> None:
        dtype = str(work.x.dtype).removeprefix("torch.")
        values = (work.name, work.sets, dtype, which, round(spent * 1e3, 4), round(share, 3), bar, share >= bar)
        rows.append(dict(zip(COLUMNS, values, strict=True)))
        met = "met" if share >= bar else "MISSED"
        print(f"{work.name:<22}{work.sets:<26}{dtype:<10}{which:<26}{spent * 1e3:>10.3f} ms {share:>8.2f}  {bar} {met}")

    moved = work.x.nbytes
    ahead = time(forward(work.pool, [work.x]), device)
    add("forward, share", ahead, moved / ahead / speed, FORWARD)
    back = time(backward(work.pool, work.x), device)
    add("backward, share", back, moved * (1 + work.reads) / back / speed, BACKWARD)
    for peer, (function, bar) in work.peers.items():
        passes = (forward(work.pool, [work.x]), forward(function, [work.x]))
        timing = race(list(passes), device, 3)
        add(f"forward / {peer}", timing.seconds, timing.ratios[0], bar)
        timing = race([backward(work.pool, work.x), backward(function, work.x)], device, 3)
        add(f"backward / {peer}", timing.seconds, timing.ratios[0], bar)
    return rows


def half_means(device: str) -> None:
    """What PyG's mean of n ones is in bfloat16, whose integers end at 256."""
    print("Mean of n ones in bfloat16:        n   PyG index    PyG ptr       ours")
    pool, theirs = Pool("[n] c"), pyg.MeanAggregation()
    for n in (100, 256, 257, 512, 1000, 100_000):
        x = torch.ones(n, 8, device=device, dtype=torch.bfloat16)
        index, ptr = torch.zeros(n, dtype=torch.long, device=device), torch.tensor([0, n], device=device)
        means = (theirs(x, index=index, dim_size=1), theirs(x, ptr=ptr), pool(x, ptr=ptr))
        print(f"{n:>36}" + "".join(f"{mean[0, 0].item():>11.4f}" for mean in means))


def bandwidth(output: Path, *, device: str = "cuda", megabytes: int = 1024) -> bool:
    """Measure everything, write bandwidth.csv and say whether all bars are met."""
    nbytes = megabytes * 2**20
    speed = copy_speed(nbytes, device)
    print(f"Copying {megabytes} MB reads and writes {speed / 1e9:.0f} GB/s")
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        for works in (ragged, dense):
            for work in works(nbytes, dtype, device):
                rows += measure(work, speed, device)
    half_means(device)
    output.mkdir(parents=True, exist_ok=True)
    with open(output / "bandwidth.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    print(f"{sum(bool(row['met']) for row in rows)} of {len(rows)} bars met; table in {output / 'bandwidth.csv'}")
    return all(bool(row["met"]) for row in rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"))
    given = parser.parse_args()
    bandwidth(given.output, device=given.device, megabytes=given.megabytes)
