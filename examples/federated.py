"""Many sites, one network: each trains on its own volumes; weights and counts leave it, volumes do not.

Three sites have volumes of 16, 24 and 32 voxels a side, not equally many, and not equally full of blobs; what is asked
for is how full. Every pool is trained by rounds of federated averaging, in this process, so that sites are simulated,
and tested at each site and at two sizes that none has. Run it from the repository:

    python examples/federated.py    # --mu 0.1 (FedProx), --norm batch --own-norms (FedBN), --equal, --rounds 32

It takes half a minute on a CPU and prints a table. `examples/flower` runs the same client over a network.
"""

import argparse
from copy import copy, deepcopy
from typing import Any

import torch
from torch.utils.data import ConcatDataset

from tasks.federate import agree, federate, score
from tasks.volume import VolumeTask
from tasks.volume.base import Volumes

SITES = [  # voxels a side, training volumes, and how full they are: u ** power of a uniform u
    {"side": 16, "train": 192, "power": 1.0},
    {"side": 24, "train": 128, "power": 2.0},  # mostly with few blobs
    {"side": 32, "train": 96, "power": 0.5},  # mostly with many
]
UNSEEN = (64, 96)
TYPICAL = 12**3  # the network's cells in a volume of 24 voxels a side
MIXTURE = {"reduction": "size_law", "law": "mixture", "beta": 0.1}
POOLS: dict[str, dict[str, Any]] = {
    "mean": {"reduction": "mean"},
    "sum": {"reduction": "size_law", "beta": 1.0},
    "mixture": MIXTURE,
    "mixture, corrected": MIXTURE | {"reference_size": TYPICAL},
}


class Fields(Volumes):
    """Noise with blobs, bright or dark, in cells of 4 voxels a side; the target is the share of cells that have one."""

    def __init__(self, *, side: int = 16, train: int = 128, test: int = 32, power: float = 1.0, batch_size: int = 16):
        super().__init__(batch_size=batch_size)
        self.side, self.power, self.counts = side, power, {"train": train, "test": test}

    def load(self) -> None:
        """Draw them; volumes of another side or part are others."""
        axis = torch.arange(4) - 1.5
        blob = 2 * torch.exp(-sum(a.square() for a in torch.meshgrid(axis, axis, axis, indexing="ij")))
        for place, (part, count) in enumerate(self.counts.items()):
            generator = torch.Generator().manual_seed(10 * self.side + place)
            full = torch.rand(count, 1, 1, 1, generator=generator) ** self.power
            cells = torch.rand(2, count, *[self.side // 4] * 3, generator=generator)
            blobs = (cells[0] < full) * (cells[1] - 0.5).sign()
            images = torch.kron(blobs, blob[None])
            images += 0.3 * torch.randn(images.shape, generator=generator)
            y = blobs.abs().flatten(1).mean(1, keepdim=True)
            self.datasets[part] = [{"image": images[i, None], "target": y[i], "id": f"{i}"} for i in range(count)]
            if part == "train":
                targets = {"target_mean": y.mean(0).tolist(), "target_std": y.std(0, correction=0).tolist()}
                self._spec = {"kind": "regression", "classes": ["full"], "channels": 1, "train_size": count, **targets}


class FieldTask(VolumeTask):
    """A `VolumeTask` whose head sees vectors in units of k(TYPICAL): every law trains at the same learning rate."""

    def readout(self, sets: dict[str, Any]) -> Any:
        """The head behind the division."""
        law: Any = self.pool.reduction
        return lambda z: self.head(z / (law.at(TYPICAL, z.dtype) if hasattr(law, "at") else 1.0))


def joined(sites: list[Volumes]) -> Volumes:
    """All sites' training samples in one place, where they may not lie."""
    together = copy(sites[0])
    together.datasets = {"train": ConcatDataset([site.datasets["train"] for site in sites])}
    return together


def main(rounds: int = 16, norm: str = "group", sites: list[dict[str, Any]] = SITES, unseen: tuple[int, ...] = UNSEEN,
         **options: Any) -> dict[str, list[float]]:  # fmt: skip
    """Train every pool, and the mean without federation too; returns R² at each site and at each unseen size."""
    data: list[Volumes] = [Fields(**site) for site in sites]
    spec = agree([one.spec for one in data])
    larger: list[Volumes] = [Fields(side=side, train=2, test=12, batch_size=4) for side in unseen]
    print(f"{'R² at voxels a side':24}", *(f"{one.side:9}" for one in [*data, *larger]), "  worst site")
    rows: dict[str, list[float]] = {}

    def row(name: str, pool: str, groups: list[list[Volumes]]) -> None:
        """Train each group of sites together, all from one start, and test each site's network."""
        tasks: list[FieldTask] = []
        for group in groups:
            torch.manual_seed(0)
            first = FieldTask(spec, width=12, levels=1, depth=0, norm=norm, lr=0.05, **POOLS[pool])
            tasks += (own := [deepcopy(first) for _ in group])
            federate(own, group, rounds=rounds, **options)
        tasks *= len(data) // len(tasks)  # one for every site
        here = [score(task, one)["test/r2"] for task, one in zip(tasks, data, strict=True)]
        rows[name] = here + [min(score(task, one)["test/r2"] for task in tasks) for one in larger]  # the worst network
        print(f"{name:24}", *(f"{r2:9.3f}" for r2 in rows[name]), f"{data[here.index(min(here))].side:12}", flush=True)

    for pool in POOLS:
        row(pool, pool, [data])
    row("mean, each site alone", "mean", [[one] for one in data])
    row("mean, all in one place", "mean", [[joined(data)]])
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)  # the same numbers each time
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--norm", choices=["group", "batch", "instance"], default="group")
    parser.add_argument("--mu", type=float, default=0.0, help="FedProx")
    parser.add_argument("--equal", action="store_true", help="every site counts the same")
    parser.add_argument("--own-norms", action="store_true", help="FedBN")
    main(**vars(parser.parse_args()))
