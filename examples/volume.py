"""Is there a lesion in this head, and which voxels say so?

MONAI blocks as the network, a `modalpool.Pool` over space, a linear head, plain PyTorch around them. Run it from the
repository:

    python examples/volume.py

It trains for about a minute on a CPU, then leaves a picture, and the map as NIfTI beside its image for any viewer.
"""

from pathlib import Path

import torch
from monai.networks.blocks import Convolution, ResidualUnit
from torch import nn
from torch.utils.data import DataLoader

from modalpool import Pool, contributions
from tasks.maps.grids import upsample
from tasks.volume import draw_slices, write_map
from tasks.volume.generated import Phantoms


class Classifier(nn.Module):
    """Encoder, pool, head: exchange "max" for "mean", "attention" and nothing else changes."""

    def __init__(self, reduction: str = "max", width: int = 8):
        super().__init__()
        common = {"spatial_dims": 3, "act": "relu", "norm": "batch"}
        down = {"kernel_size": 2, "strides": 2, "padding": 0, **common}
        self.encoder = nn.Sequential(  # 32³ voxels become 8³ cells
            Convolution(in_channels=1, out_channels=width, **down),
            ResidualUnit(in_channels=width, out_channels=width, **common),
            nn.ReLU(),
            Convolution(in_channels=width, out_channels=2 * width, **down),
            ResidualUnit(in_channels=2 * width, out_channels=2 * width, **common),
            nn.ReLU(),
        )
        self.pool = Pool("b c [d h w]", reduction, channels=2 * width)
        self.head = nn.Linear(self.pool.out_channels, 1)

    def forward(self, image):
        """Logits of a lesion, (B, 1)."""
        return self.head(self.pool(self.encoder(image)))

    def explain(self, image):
        """The logits, (B, 1), and how much every cell added to them, (B, 1, 8, 8, 8)."""
        return contributions(self.pool, self.head, self.encoder(image))


def main(train: int = 256, test: int = 64, epochs: int = 20, folder: str = ".") -> tuple[float, float]:
    """Train, test, explain; returns the accuracy and the share of lesions that the strongest voxel lies in."""
    torch.manual_seed(0)
    training = Phantoms(range(train), mirror=True)  # half of them have a lesion; nobody tells the network where
    testing = Phantoms(range(train, train + test))
    model = Classifier()
    loader = DataLoader(training, batch_size=8, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=epochs * len(loader), pct_start=0.1)
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for batch in loader:
            logits = model(batch["image"])[:, 0]
            loss = nn.functional.binary_cross_entropy_with_logits(logits, batch["target"].float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() / len(loader)
        print(f"epoch {epoch + 1:2d}  loss {total:.3f}")

    model.eval()
    batch = next(iter(DataLoader(testing, batch_size=test)))
    with torch.no_grad():
        logits, maps = model.explain(batch["image"])
    accuracy = ((logits[:, 0] > 0) == batch["target"]).float().mean().item()

    # The map is exact: a volume's cells and the head's bias add up to its logit. So does it point at the lesion?
    # Two halvings by kernels of 2: cell j lies around voxel 1.5 + 4 j.
    # Shared out among its 4³ voxels, a cell keeps its part of the logit.
    fine = upsample(maps[:, 0], batch["image"].shape[2:], stride=4, first=1.5) / 4**3
    ill = batch["target"].nonzero()[:, 0].tolist()
    hits = sum(bool(batch["mask"][i].flatten()[fine[i].argmax()]) for i in ill) / len(ill)
    print(f"test accuracy {accuracy:.3f}; the strongest voxel lies in the lesion in {hits:.0%} of the ill heads")

    image, shown, affine = batch["image"][ill[0]], fine[ill[0]], batch["affine"][ill[0]]
    title = f"{batch['id'][ill[0]]}: p(lesion) = {logits[ill[0], 0].sigmoid():.2f}, outlined: the lesion"
    place = Path(folder)
    picture = draw_slices({"head": image[0]}, shown, place / "volume.png", title=title, unit="evidence for a lesion",
                          affine=affine, truth=batch["mask"][ill[0], 0])  # fmt: skip
    written = write_map(shown, place / "volume_map.nii.gz", affine=affine, image=image)
    print("look at", *(path.resolve() for path in (picture, *written)), sep="\n  ")
    return accuracy, hits


if __name__ == "__main__":
    main()
