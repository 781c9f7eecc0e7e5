"""Train on sets that no process has whole: each holds a slab of every volume, or some hours of every recording.

A process encodes its part with as much around it as the network sees, pools what it has into a state, and `all_merge`
joins the states: all get the vector of the whole, go on to the same loss, and gradients flow back to every part. At the
end one process trains alike with whole inputs, and the weights are compared. Run it from the repository:

    python examples/spread.py                                # volumes in two slabs, by two processes
    python examples/spread.py --kind recording --processes 3

What is to be learned: how many blobs, or clicks, there are in noise. The inputs are made here by every process from the
same seed and cut; who reads files would read its part alone. Gloo on one machine; nothing in it is bound to that.
"""

import argparse
import os
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from modalpool import Pool
from tasks.tiles import cut, field_of_view

SIDES = {"volume": (24, 24, 96), "recording": (6000,)}  # the last axis is cut
CONVOLUTIONS = {"volume": nn.Conv3d, "recording": nn.Conv1d}


class Network(nn.Module):
    """Two convolutions, a pool over mean and maximum, and a linear head."""

    def __init__(self, kind: str, channels: int = 8):
        super().__init__()
        convolution = CONVOLUTIONS[kind]
        self.encoder = nn.Sequential(
            convolution(1, channels, 5, stride=2, padding=2),
            nn.ReLU(),
            convolution(channels, channels, 3, padding=1),
            nn.ReLU(),
        )
        self.pool = Pool("b c [d h w]" if kind == "volume" else "b c [t]", ["mean", "max"], channels=channels)
        self.head = nn.Linear(2 * channels, 1)


def make_inputs(kind: str, seed: int, count: int = 4) -> tuple[Tensor, Tensor]:
    """Noise with 0 to 9 bright spots, (count, 1, ...), and how many there are, (count, 1)."""
    generator = torch.Generator().manual_seed(seed)
    x = 0.3 * torch.randn(count, 1, *SIDES[kind], generator=generator)
    spots = torch.randint(0, 10, (count,), generator=generator)
    for one, number in zip(x, spots.tolist(), strict=True):
        places = torch.rand(number, len(SIDES[kind]), generator=generator)
        for place in (places * (torch.tensor(SIDES[kind]) - 6)).long().tolist():
            one[(0, *(slice(start, start + 6) for start in place))] += 2
    return x, spots[:, None].to(x)


def pooled(network: Network, x: Tensor, part: int, parts: int) -> Tensor:
    """The pooled vectors of whole inputs, of which this process looks at one part."""
    sides = tuple(x.shape[2:])
    view = field_of_view(network.encoder, lambda encoder, y: encoder(y), (1, 1, *sides[:-1], 32), -1, largest=4096)
    cells = -(-sides[-1] // view.period) * view.cells
    tile = cut([sides[-1]], [cells], [-(-sides[-1] // parts)], [view])[part]
    features = network.encoder(x[..., tile.read[0]])[..., tile.keep[0]]
    state = network.pool.update(None, features)
    if parts > 1:  # "sum", as the processes' gradients are averaged below
        state = network.pool.all_merge(state, objective="sum")
    return network.pool.finalize(state)


def train(kind: str, steps: int, part: int, parts: int) -> tuple[dict[str, Tensor], list[float]]:
    """Train a network; returns its weights and the losses."""
    torch.set_default_dtype(torch.float64)  # so that training does not magnify rounding to what could be an error
    torch.manual_seed(0)
    network, losses = Network(kind), []
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    for step in range(steps):
        x, number = make_inputs(kind, step)
        loss = nn.functional.smooth_l1_loss(network.head(pooled(network, x, part, parts)), number)
        optimizer.zero_grad()
        loss.backward()
        for weight in network.parameters() if parts > 1 else ():
            dist.all_reduce(weight.grad)
            weight.grad /= parts
        optimizer.step()
        losses.append(loss.item())
    return {name: value.detach() for name, value in network.state_dict().items()}, losses


def process(rank: int, port: int, kind: str, steps: int, parts: int) -> None:
    """One of the processes; the first compares with a training of its own on whole inputs."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=parts)
    weights, losses = train(kind, steps, rank, parts)
    dist.destroy_process_group()
    if rank == 0:
        whole, alone = train(kind, steps, 0, 1)
        apart = max(float((weights[name] - value).abs().max()) for name, value in whole.items())
        print(f"{'step':>6}{f'{parts} processes':>16}{'one process':>16}   loss")
        for step in range(0, steps, max(steps // 6, 1)):
            print(f"{step:6}{losses[step]:16.6f}{alone[step]:16.6f}")
        print(f"weights differ by at most {apart:.1e}")
        assert apart < 1e-9, "the parts do not train what the whole trains"


def main(kind: str = "volume", processes: int = 2, steps: int = 60) -> None:
    """Start the processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(process, args=(port, kind, steps, processes), nprocs=processes, start_method="spawn")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=list(SIDES), default="volume")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60)
    main(**vars(parser.parse_args()))
