"""Training on graphs with this project's batches, and the same PyG model with PyG's own loader, in one run.

    python tests/benchmarks/graph_loader.py ROOT [--name NCI1] [--device cpu] [--batch_size 128] [--rounds 5]

ROOT holds NAME/raw/NAME_A.txt and the other text files. PyG's ``DataLoader`` runs over an `InMemoryDataset`, which is
what its TU data sets are, and over a plain list of graphs. Loaders take turns; ratios are medians over the rounds.
CPU time of one thread on a CPU, wall time on a GPU.
"""

import argparse
import time
from statistics import median

import torch
from torch import nn
from torch_geometric.data import InMemoryDataset
from torch_geometric.loader import DataLoader

from tasks.graph import GraphTask, TUData

MODELS = {
    "no model": None,
    "GIN, 2 layers of 16": (16, 2),
    "GIN, 3 layers of 32": (32, 3),
    "GIN, 5 layers of 64": (64, 5),
}


class Stored(InMemoryDataset):
    """Graphs as PyG's TU data sets keep them."""

    def __init__(self, graphs):
        super().__init__()
        self.data, self.slices = self.collate(graphs)


def epoch(loader, task: nn.Module | None, optimizer: torch.optim.Optimizer | None, device: torch.device) -> None:
    """One pass over the training graphs; without a model only the batches are made and moved."""
    for batch in loader:
        batch = batch.to(device)
        if task is not None:
            optimizer.zero_grad()
            task.loss(task(batch), task.target(batch)).backward()
            optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("--name", default="NCI1")
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--batch_size", default=128, type=int)
    parser.add_argument("--rounds", default=5, type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)
    clock = time.perf_counter if given.device.type == "cuda" else time.process_time

    data = TUData(given.root, given.name, batch_size=given.batch_size)
    data.setup()
    graphs = list(data.datasets["train"])
    options = {"batch_size": given.batch_size, "shuffle": True}
    loaders = {
        "ours": data.train_dataloader(),
        "PyG, InMemoryDataset": DataLoader(Stored(graphs), **options),
        "PyG, list": DataLoader(graphs, **options),
    }
    print(
        f"{given.name}: {len(graphs)} graphs, batches of {given.batch_size}, {given.device}; graphs per second (ratio)"
    )
    print(f"{'':<22}" + "".join(f"{name:>24}" for name in loaders))
    for name, size in MODELS.items():
        task = optimizer = None
        if size is not None:
            task = GraphTask(data.spec, hidden=size[0], layers=size[1]).to(given.device).train()
            optimizer = torch.optim.AdamW(task.parameters())
        seconds: dict[str, list[float]] = {loader: [] for loader in loaders}
        for _ in range(given.rounds + 1):
            for loader, batches in loaders.items():
                start = clock()
                epoch(batches, task, optimizer, given.device)
                seconds[loader].append(clock() - start)
        cells = []
        for times in seconds.values():
            ratio = median(other / one for one, other in zip(seconds["ours"][1:], times[1:], strict=True))
            cells.append(f"{len(graphs) / median(times[1:]):>15.0f} ({ratio:.2f})")
        print(f"{name:<22}" + "".join(f"{cell:>24}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
