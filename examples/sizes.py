"""Train small, use large: which pool keeps its promise when graphs, recordings and volumes grow up to 64 times?

Two tasks on the same inputs: the *density* of a pattern (share of cells that hold it) and its *count*. Every pool is
trained on a range of small sizes and tested at 1 to 64 times the largest of them. Run it from the repository:

    python examples/sizes.py --modality volume        # or graph, audio

It trains for minutes on a CPU, prints a table, writes sizes_<modality>.csv and draws sizes_<modality>.png.
"""

import argparse
import csv
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from modalpool import Pool
from modalpool.reductions import SizeLaw

CELL = 4  # a pattern takes a cell of 4 elements along every axis
SMALL = {"graph": (8, 32), "audio": (4, 16), "volume": (1, 3)}  # training: nodes, cells in time, cells along each axis
FACTORS = {"graph": [1, 2, 4, 16, 64], "audio": [1, 2, 4, 16, 64], "volume": [1, 2, 3, 4]}  # per axis for volumes
BANDS = 4  # cells along the frequency axis


def pools(reference: float) -> dict[str, dict]:
    """The laws that are compared, as options of `Pool`; ``reference`` is a typical number of elements at training."""
    mixture = {"reduction": "size_law", "law": "mixture", "beta": 0.1}
    return {
        "mean": {"reduction": "mean"},
        "sum": {"reduction": "size_law", "beta": 1.0},
        "variance-preserving": {"reduction": "size_law", "beta": 0.5},
        "mixture": mixture,
        "mixture, corrected": mixture | {"reference_size": reference},
        "learned": {"reduction": "size_law", "beta": 0.5, "learn_beta": True},
    }


IN_USE = "mixture, corrected in use"  # trained as "mixture"; the correction is only switched on for the test


class Grids:
    """Noise with small patterns, one in each cell of a grid with the sample's own probability."""

    def __init__(self, modality: str):
        self.dims = 3 if modality == "volume" else 2
        axis = torch.arange(CELL) - (CELL - 1) / 2
        square = sum(a.square() for a in torch.meshgrid(*[axis] * self.dims, indexing="ij"))
        self.pattern = 2 * torch.exp(-square)

    def __call__(self, batch: int, size: int) -> tuple[tuple[Tensor, ...], Tensor, int]:
        """Inputs, (batch,) counts, and the number of cells, for ``size`` cells along an axis (audio: along time)."""
        cells = [size] * 3 if self.dims == 3 else [BANDS, size]
        share = torch.rand(batch, *[1] * self.dims)
        present = (torch.rand(batch, *cells) < share).float()
        x = torch.kron(present, self.pattern.unsqueeze(0)).unsqueeze(1)
        x = x + 0.3 * torch.randn_like(x)
        return (x,), present.flatten(1).sum(1), present[0].numel()


class Graphs:
    """Sparse random graphs with red and white nodes; the pattern is a red node with a red neighbour."""

    def __call__(self, batch: int, nodes: int) -> tuple[tuple[Tensor, ...], Tensor, int]:
        """Inputs, (batch,) counts, and the number of nodes."""
        red = torch.rand(batch, nodes) < 0.1 + 0.8 * torch.rand(batch, 1)
        start = torch.arange(batch).repeat_interleave(nodes) * nodes
        one, other = (start + torch.randint(nodes, (batch * nodes,)) for _ in range(2))
        edges = torch.cat([torch.stack([one, other]), torch.stack([other, one])], 1)[:, (one != other).repeat(2)]
        flat = red.flatten()
        beside = torch.zeros(batch * nodes, dtype=torch.bool)
        beside[edges[1][flat[edges[0]]]] = True
        index = torch.arange(batch).repeat_interleave(nodes)
        x = torch.stack([flat, ~flat], 1).float()
        return (x, edges, index), (flat & beside).reshape(batch, nodes).sum(1).float(), nodes


class Network(nn.Module):
    """A small encoder, a pool, a linear head."""

    def __init__(self, modality: str, reference: float, channels: int = 16, **options):
        super().__init__()
        if modality == "graph":
            from torch_geometric.nn import GIN

            self.encoder = GIN(2, channels, num_layers=2, act="relu")
        else:
            convolution = nn.Conv3d if modality == "volume" else nn.Conv2d
            layers = (convolution(1, channels, 3, padding=1), nn.ReLU(), convolution(channels, channels, 3, padding=1))
            self.encoder = nn.Sequential(*layers, nn.ReLU())
        self.pool = Pool("[n] c" if modality == "graph" else "b c [...]", channels=channels, **options)
        self.head = nn.Linear(channels, 1)
        self.register_buffer("reference", torch.tensor(float(reference)))

    def forward(self, x: Tensor, edges: Tensor | None = None, index: Tensor | None = None) -> Tensor:
        """Answers, (B,)."""
        if edges is None:
            z = self.pool(self.encoder(x))
        else:
            z = self.pool(self.encoder(x, edges), index=index, dim_size=int(index[-1]) + 1)
        # In units of k(N0): all laws have one scale, and a learned exponent does not move it while it is learned.
        law = self.pool.reduction
        unit = law.at(self.reference, z.dtype) if isinstance(law, SizeLaw) else 1.0
        return self.head(z / unit).squeeze(1)


def answer(count: Tensor, cells: int, unit: int, counting: bool) -> Tensor:
    """The density, or the count in units of the largest training size, so that both have one scale."""
    return count / (unit if counting else cells)


def train(data, network: Network, sizes: tuple[int, int], unit: int, counting: bool, steps: int) -> None:
    """Regress the answer; every batch has a size of its own."""
    law = list(network.pool.parameters())  # one number, which has a long way to go
    rest = [*network.encoder.parameters(), *network.head.parameters()]
    optimizer = torch.optim.AdamW([{"params": rest}, {"params": law, "weight_decay": 0.0}])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [6e-3, 6e-2], total_steps=steps)
    for _ in range(steps):
        inputs, count, cells = data(16, int(torch.randint(sizes[0], sizes[1] + 1, ())))
        loss = nn.functional.mse_loss(network(*inputs), answer(count, cells, unit, counting))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def error(data, network: Network, size: int, unit: int, counting: bool, batches: int = 8) -> float:
    """Mean absolute error in percent of the mean answer."""
    wrong = total = 0.0
    for _ in range(batches):
        inputs, count, cells = data(8, size)
        right = answer(count, cells, unit, counting)
        wrong += (network(*inputs) - right).abs().sum().item()
        total += right.sum().item()
    return 100 * wrong / total


def write(rows: list[dict], path: Path) -> None:
    """The rows as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def draw(rows: list[dict], path: Path) -> None:
    """One panel for each task: error against size, a line for each pool, the mean over the seeds in their range."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    sizes = sorted({row["times"] for row in rows})
    for panel, task in zip(figure.subplots(1, 2, sharey=True), ("density", "count"), strict=True):
        for number, name in enumerate(dict.fromkeys(row["pool"] for row in rows)):
            found = [errors(rows, name, task, times) for times in sizes]
            panel.plot(sizes, [sum(one) / len(one) for one in found], marker="osD^*vP"[number], label=name)
            panel.fill_between(sizes, [min(one) for one in found], [max(one) for one in found], alpha=0.15)
        panel.set(xscale="log", yscale="log", title=task, xlabel="elements, times the training size")
        panel.set_xticks(sizes, [str(n) for n in sizes])
        panel.minorticks_off()
    figure.axes[0].set_ylabel("mean absolute error / % of the mean answer")
    figure.axes[1].legend(fontsize="small")
    figure.savefig(path, dpi=90)


def errors(rows: list[dict], pool: str, task: str, times: int) -> list[float]:
    """One pool's errors at one size, one for each seed."""
    return [row["error"] for row in rows if (row["pool"], row["task"], row["times"]) == (pool, task, times)]


def main(modality: str = "volume", steps: int = 1600, seeds: int = 2, folder: Path = Path(".")) -> list[dict]:
    """Train every pool on both tasks with every seed, test at all sizes; returns and writes one row for each."""
    data, sizes = Graphs() if modality == "graph" else Grids(modality), SMALL[modality]
    largest, _, unit = data(1, sizes[1])
    elements = largest[0].shape[0] if modality == "graph" else largest[0][0, 0].numel()
    axes = 3 if modality == "volume" else 1
    reference = elements * ((1 + sizes[0] / sizes[1]) / 2) ** axes  # in the middle of the training sizes
    rows: list[dict] = []

    def test(name: str, network: Network, seed: int, counting: bool) -> None:
        beta = getattr(network.pool.reduction, "raw_beta", None)
        shared = {"pool": name, "task": "count" if counting else "density", "seed": seed}
        shared["beta"] = "" if beta is None else round(beta.item(), 2)
        for factor in FACTORS[modality]:
            found = error(data, network, sizes[1] * factor, unit, counting)
            rows.append({**shared, "times": factor**axes, "error": found})
        shown = "  ".join(f"{row['times']}x {row['error']:.1f}%" for row in rows[-len(FACTORS[modality]) :])
        print(
            f"{seed} {shared['task']:8}{name:27}{shown}{'' if beta is None else f'  (beta {beta.item():.2f})'}",
            flush=True,
        )

    for seed in range(seeds):
        for name, options in pools(reference).items():
            for counting in (False, True):
                torch.manual_seed(seed)
                network = Network(modality, reference, **options)
                train(data, network, sizes, unit, counting, steps)
                test(name, network, seed, counting)
                if name == "mixture":
                    network.pool.reduction.reference_size = reference
                    test(IN_USE, network, seed, counting)
        write(rows, folder / f"sizes_{modality}.csv")  # after every seed: what is there is there
        draw(rows, folder / f"sizes_{modality}.png")
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modality", choices=list(SMALL), default="volume")
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--seeds", type=int, default=2)
    main(**vars(parser.parse_args()))
