"""A mean over a large volume in half precision: which gradients reach the voxels, and does the network still learn?

A mean over N voxels hands each of them g / N. In float16 what is below 3e-8 becomes exactly zero, and then the layers
before the pool learn nothing. `grad_scale` changes the gradient, not the result. Run it from the repository:

    python examples/grad_scale.py

Here convolution, features, pool and the gradients between them are float16, without loss scaling; weights are kept in
float32 and rounded for the convolution, as in mixed precision; head, loss and AdamW are float32. The task is to tell
stripes along one axis from stripes along another. The filters start out isotropic, so that nothing can be told before
they change: a loss that stays at log 2 = 0.69 is one whose filters stand still. It writes grad_scale.csv (loss, share
of exactly zero gradients at the pool's input, share of filter gradients that are not finite) and draws grad_scale.png.
"""

import argparse
import csv
import math
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from modalpool import Pool

CHANNELS = 4
RULES: dict[str, dict] = {
    "mean": {"grad_scale": "mean"},
    "sqrt": {"grad_scale": "sqrt"},
    "sum": {"grad_scale": "sum"},
    "4096": {"grad_scale": 4096.0},  # as if a volume had 16 x 16 x 16 voxels
    "mean, float32": {"grad_scale": "mean"},  # for comparison
}


def stripes(size: int) -> tuple[Tensor, Tensor]:
    """Two volumes of noisy stripes (2, 1, size, size, size), across the first axis and across the second; classes."""
    wave = torch.sin(2 * math.pi * (torch.arange(size) / 4 + torch.rand(())))
    both = torch.stack([wave.view(-1, 1, 1).expand(size, size, size), wave.view(1, -1, 1).expand(size, size, size)])
    return (both + 0.5 * torch.randn(2, size, size, size))[:, None], torch.tensor([0.0, 1.0])


class Network(nn.Module):
    """One convolution in ``dtype``, the pool, a linear head in float32."""

    def __init__(self, dtype: torch.dtype, **options):
        super().__init__()
        self.dtype = dtype
        distance = torch.stack(torch.meshgrid(*[torch.arange(-1.0, 2.0)] * 3, indexing="ij")).square().sum(0)
        ball = torch.exp(-distance) - torch.exp(-distance).mean()  # the same along every axis
        self.weight = nn.Parameter(ball.expand(CHANNELS, 1, 3, 3, 3).clone())
        self.pool = Pool("b c [d h w]", "mean", **options)
        self.head = nn.Linear(CHANNELS, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B,), and the features that are pooled, whose gradient is kept."""
        features = nn.functional.conv3d(x.to(self.dtype), self.weight.to(self.dtype), padding=1).relu()
        features.retain_grad()
        return self.head(self.pool(features).float()).squeeze(1), features


def train(rule: str, size: int, steps: int, seed: int = 0) -> list[dict]:
    """Train one network; one row for each step."""
    torch.manual_seed(seed)
    network = Network(torch.float32 if "float32" in rule else torch.float16, **RULES[rule])
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.04, weight_decay=0.0)
    rows = []
    for step in range(steps):
        x, target = stripes(size)
        logits, features = network(x)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, target)
        optimizer.zero_grad()
        loss.backward()
        row = {"rule": rule, "size": size, "step": step, "loss": loss.item()}
        row["zero"] = (features.grad == 0).float().mean().item()
        row["not finite"] = (~network.weight.grad.isfinite()).float().mean().item()
        rows.append(row)
        if row["not finite"]:
            break  # the next step would make the weights NaN
        optimizer.step()
    return rows


def draw(rows: list[dict], path: Path) -> None:
    """One panel for each size: the loss of each rule, whose share of zero gradients is in the legend."""
    sizes = sorted({row["size"] for row in rows})
    figure = Figure(figsize=(4 * len(sizes), 3.6), layout="constrained")
    for panel, size in zip(figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0], sizes, strict=True):
        for number, rule in enumerate(RULES):
            line = [row for row in rows if (row["rule"], row["size"]) == (rule, size)]
            end = ", then overflow" if line[-1]["not finite"] else ""
            label = f"{rule}: {100 * line[0]['zero']:.0f} %{end}"
            panel.plot(
                [row["step"] for row in line], [row["loss"] for row in line], marker="osD^v"[number], label=label
            )
        panel.set(title=f"{size}³ voxels", xlabel="step")
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.legend(fontsize="x-small", title="zero gradients, first step", title_fontsize="x-small")
    figure.axes[0].set_ylabel("loss")
    figure.savefig(path, dpi=90)


def main(sizes: tuple[int, ...] = (64, 128, 192), steps: int = 12, folder: Path = Path(".")) -> list[dict]:
    """Train every rule at every size; returns and writes the rows."""
    rows = []
    for size in sizes:
        for rule in RULES:
            found = train(rule, size, -(-steps * 128**3 // max(size, 128) ** 3))  # fewer where one takes long
            shares = "  ".join(f"{name} {100 * found[-1][name]:.1f}%" for name in ("zero", "not finite"))
            print(f"{size}³ {rule:14} loss {found[0]['loss']:.3f} -> {found[-1]['loss']:.3f}  {shares}", flush=True)
            rows += found
    with open(folder / "grad_scale.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, folder / "grad_scale.png")
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=(64, 128, 192))
    parser.add_argument("--steps", type=int, default=12)
    main(**vars(parser.parse_args()))
