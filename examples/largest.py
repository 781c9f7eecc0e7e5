"""Segment the largest blob only: an answer at every pixel that needs the whole image.

Images hold several blobs, and every image has a scale of its own, so that a blob's size alone says nothing: whether it
is the largest depends on the others, anywhere in the image. A small network ends in ASPP, whose image-pooling branch
gives the pooled vector of the whole image back to every pixel: without that branch, with a mean in it, and with a max.
All are given the same images. Run it from the repository:

    python examples/largest.py

It trains for a few minutes on a CPU, prints a table and draws some test images into largest.png.
"""

import argparse

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics.aggregation import MeanMetric
from torchmetrics.functional.classification import binary_jaccard_index

from modalpool import Pool
from modalpool.blocks import ASPP

SIDE = 96  # pixels
BLOBS = 5
VALIDATION, TEST = 1_000_000, 2_000_000  # their images' seeds begin here
BRANCHES = {"none": "no image pooling", "mean": "image mean", "max": "image max"}


def make_images(seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Noisy images with bright blobs, (count, 1, SIDE, SIDE), and the largest one's mask, (count, SIDE, SIDE).

    The radii are an image's scale times 1 for the largest, 0.5 to 0.85 for the others; blobs do not touch.
    """
    generator = torch.Generator().manual_seed(seed)
    line = torch.arange(SIDE) + 0.5
    images, masks = 0.3 * torch.randn(count, 1, SIDE, SIDE, generator=generator), []
    for image in images:
        scale = 4 * 2.5 ** torch.rand((), generator=generator)  # 4 to 10 pixels
        radii = scale * torch.cat([torch.ones(1), 0.5 + 0.35 * torch.rand(BLOBS - 1, generator=generator)])
        centres: list[Tensor] = []
        while len(centres) < BLOBS:  # place it where it touches none that is there
            radius = radii[len(centres)]
            centre = radius + (SIDE - 2 * radius) * torch.rand(2, generator=generator)
            if all((centre - other).norm() > radius + r + 2 for other, r in zip(centres, radii, strict=False)):
                centres.append(centre)
        far = torch.stack([(line[:, None] - y).hypot(line - x) for y, x in centres])  # (BLOBS, SIDE, SIDE)
        inside = far < radii[:, None, None]
        image[0] += inside.sum(0)
        masks.append(inside[0])
    return images, torch.stack(masks)


class Network(nn.Module):
    """Convolutions that see 23 pixels, ASPP that sees 39, and a linear layer: a logit for every pixel.

    ``branch`` is the pool of the image-pooling branch, or "none".
    """

    def __init__(self, branch: str, channels: int = 24):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, stride in ((1, 2), (channels, 2), (channels, 1), (channels, 1)):
            convolution = nn.Conv2d(inputs, channels, 3, stride=stride, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(channels), nn.ReLU()]
        self.encoder = nn.Sequential(*layers)
        pool = Pool("b c [h w]", "mean" if branch == "none" else branch)
        sizes = {"channels": channels, "out_channels": channels}
        self.aspp = ASPP(pool, **sizes, rates=(1, 2), image_pooling=branch != "none")
        self.head = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, SIDE, SIDE)."""
        logits = self.head(self.aspp(self.encoder(x)))
        return nn.functional.interpolate(logits, x.shape[2:], mode="bilinear").squeeze(1)


def train(networks: dict[str, Network], seed: int, steps: int) -> None:
    """Fit every network to the same images, new ones in every step."""
    optimizers = {name: torch.optim.AdamW(network.parameters(), lr=5e-3) for name, network in networks.items()}
    for step in range(steps):
        images, masks = make_images(seed * steps + step, 16)
        for name, network in networks.items():
            for group in optimizers[name].param_groups:
                group["lr"] = 5e-3 * (1 - step / steps)
            loss = nn.functional.binary_cross_entropy_with_logits(network(images), masks.float())
            optimizers[name].zero_grad()
            loss.backward()
            optimizers[name].step()


def mean_iou(found: Tensor, masks: Tensor) -> float:
    """Intersection over union, the mean over images."""
    mean = MeanMetric()
    for one, mask in zip(found, masks, strict=True):
        mean.update(binary_jaccard_index(one, mask))
    return mean.compute().item()


@torch.no_grad()
def best_threshold(network: Network, images: Tensor, masks: Tensor) -> float:
    """The logit above which a pixel is best taken for the blob's: one half is no fair one for a network in doubt."""
    logits = network.eval()(images)
    return max(torch.linspace(-4, 1, 11).tolist(), key=lambda threshold: mean_iou(logits > threshold, masks))


@torch.no_grad()
def test(network: Network, images: Tensor, masks: Tensor, threshold: float) -> tuple[float, Tensor]:
    """The mean intersection over union, and the predicted masks."""
    found = network.eval()(images) > threshold
    return mean_iou(found, masks), found


def draw(columns: dict[str, Tensor], path: str) -> None:
    """One row for each of the first six images, one column for each way to see it."""
    figure = Figure(figsize=(1.5 * len(columns), 9), layout="constrained")
    for number, row in enumerate(figure.subplots(6, len(columns))):
        for panel, (name, pictures) in zip(row, columns.items(), strict=True):
            panel.imshow(pictures[number].numpy(), cmap="gray")
            panel.set(xticks=[], yticks=[], title=name if number == 0 else "")
    figure.savefig(path, dpi=60)


def main(steps: int = 300, seeds: int = 3, tested: int = 300, picture: str = "largest.png") -> dict[str, list[float]]:
    """Train and test every network with every seed; returns their mean intersections over union."""
    validation, (images, masks) = make_images(VALIDATION, tested // 2), make_images(TEST, tested)
    scores: dict[str, list[float]] = {branch: [] for branch in BRANCHES}
    for seed in range(seeds):
        torch.manual_seed(seed)
        networks = {branch: Network(branch) for branch in BRANCHES}
        train(networks, seed, steps)
        columns = {"image": images[:, 0], "truth": masks}
        for branch, network in networks.items():
            threshold = best_threshold(network, *validation)
            score, columns[BRANCHES[branch]] = test(network, images, masks, threshold)
            scores[branch].append(score)
            print(f"seed {seed}  {BRANCHES[branch]:18}{score:.3f}, logits above {threshold:g}", flush=True)
    print(f"mean IoU on {tested} test images, mean and sd of {seeds} seeds")
    for branch, values in scores.items():
        found = torch.tensor(values)
        print(f"{BRANCHES[branch]:18}{found.mean():.3f} ± {found.std():.3f}")
    draw(columns, picture)
    print(f"look at: {picture}")
    return scores


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    main(**vars(parser.parse_args()))
