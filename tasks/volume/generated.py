"""Head phantoms with a known answer: smooth tissue, a bias field and noise, with or without one bright lesion.

All volumes hold exactly the same intensities, each in its own order, so no global statistic tells the classes apart;
and the scalp, as bright as a lesion, varies by far more voxels than a lesion has, so that it does not tell either. What
counts is where the bright voxels lie.
"""

from collections.abc import Sequence
from copy import copy
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from tasks.data.threads import side_by_side
from tasks.data.turns import take_turns
from tasks.volume.base import Volumes

VOXEL_MM = 5.0  # a head of 160 mm fills most of 32 voxels


def phantom(size: int, *, lesion: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw one head: scalp, fluid, folded grey matter, white matter, ventricles, and perhaps a lesion.

    Args:
        size: Voxels along each side.
        lesion: Put a bright blob of about 3 to 5 voxels radius (at ``size`` 32) into the white matter.
        generator: Where all randomness comes from.

    Returns:
        The image, ``(size, size, size)``, the same values 0 to 1 for every phantom of this size in another
        order, and the lesion's mask, a bool tensor of the same shape.

    Example:
        >>> image, mask = phantom(32, lesion=True, generator=torch.Generator().manual_seed(0))
        >>> image.shape, bool(mask.any())
        (torch.Size([32, 32, 32]), True)
    """
    axis = torch.linspace(-1, 1, size)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))  # (3, D, H, W)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    # Distance from the centre in units of the head's own half axes: 1 is its surface.
    half = torch.tensor([0.72, 0.88, 0.78]) * uniform(0.92, 1.05, 3)
    centre = uniform(-0.05, 0.05, 3)
    place = (grid - centre.view(3, 1, 1, 1)) / half.view(3, 1, 1, 1)
    radius = length(place) + 0.05 * smooth_noise(size, 4, generator)
    sharp = 1.2 * size  # boundaries are about a voxel wide

    def inside(r: Tensor, limit: float | Tensor) -> Tensor:
        return torch.sigmoid((limit - r) * sharp)

    scalp = uniform(0.85, 1.15, 1) + 0.12 * smooth_noise(size, 5, generator)
    thickness = uniform(0.08, 0.15, 1)
    head, skull, brain = inside(radius, 1.0), inside(radius, 1 - thickness), inside(radius, 0.78)
    white = inside(radius + 0.08 * smooth_noise(size, 8, generator), 0.60)
    image = scalp * head + (0.15 - scalp) * skull + 0.30 * brain + 0.15 * white  # skull .15, grey .45, white .60
    for side in (-1, 1):  # lateral ventricles
        spot = torch.tensor([side * 0.17, 0.0, 0.08]) + uniform(-0.03, 0.03, 3)
        stretch = torch.tensor([0.10, 0.34, 0.16]) * uniform(0.8, 1.25, 3)
        distance = length((place - spot.view(3, 1, 1, 1)) / stretch.view(3, 1, 1, 1))
        image = image - 0.45 * inside(distance, 1.0) * white

    mask = torch.zeros_like(image, dtype=torch.bool)
    if lesion:
        # Its centre is a random white-matter voxel; its outline is a ball with a wobble.
        candidates = ((radius < 0.55) & (image > 0.55)).nonzero()
        chosen = candidates[torch.randint(len(candidates), (1,), generator=generator)].squeeze(0)
        reach = uniform(3.0, 5.0, 1) * size / 32
        away = (torch.stack(torch.meshgrid(*[torch.arange(size)] * 3, indexing="ij")) - chosen.view(3, 1, 1, 1)).float()
        away = length(away) / reach + 0.25 * smooth_noise(size, 8, generator)
        blob = torch.sigmoid((1 - away) * 4)
        image = image + 0.35 * blob
        mask = blob > 0.5

    texture = 0.05 * smooth_noise(size, size // 2, generator)
    bias = torch.exp(0.12 * smooth_noise(size, 3, generator))
    noise = 0.03 * torch.randn(image.shape, generator=generator)
    return same_histogram((image + texture * head) * bias + noise), mask


def length(vectors: Tensor) -> Tensor:
    """Euclidean length along the first axis; torch's ``norm`` takes thirty times as long there."""
    return vectors.square().sum(0).sqrt()


def smooth_noise(size: int, knots: int, generator: torch.Generator) -> Tensor:
    """Random field of about unit spread that varies on the scale of ``size / knots`` voxels, ``(size, size, size)``."""
    coarse = torch.randn(knots, knots, knots, generator=generator)
    hats = _hats(size, knots)
    fine: Tensor = torch.tensordot(hats, hats @ (coarse @ hats.T), 1)
    return fine


@cache
def _hats(size: int, knots: int) -> Tensor:
    """How much of each knot is in each voxel along an axis, (size, knots); trilinear is linear three times."""
    return functional.interpolate(torch.eye(knots)[None], size=size, mode="linear", align_corners=True)[0].T


def same_histogram(image: Tensor) -> Tensor:
    """Replace each voxel's value by a function of its rank, the same for every image: 0 to 1, half of it dark."""
    rank = torch.linspace(0, 1, image.numel())
    values = 0.08 * rank + 0.92 * ((rank - 0.5).clamp(min=0) / 0.5) ** 1.2
    order = torch.from_numpy(image.flatten().numpy().argsort())  # in half of torch's time
    return torch.empty_like(values).scatter_(0, order, values).view(image.shape)


FAR = 100_000  # phantoms that a part may have before it meets the next one


class Phantoms(Dataset[dict[str, Any]]):
    """A list of phantoms, half of them with a lesion, as the samples that `VolumeTask` expects.

    Args:
        numbers: Which phantoms; number ``i`` is the same whatever else is asked for. Even numbers have a lesion.
        size: Voxels along each side; of several, the phantoms take turns.
        seed: Another seed gives another population.
        mirror: Mirror each phantom at random, along each axis, whenever it is asked for (training).
    """

    def __init__(self, numbers: range, *, size: int | Sequence[int] = 32, seed: int = 0, mirror: bool = False):
        self.mirror = mirror

        def sample(number: int) -> dict[str, Any]:
            side = take_turns(size, number, classes=2)
            # Centred on the world's origin, axes right, anterior, superior.
            affine = torch.diag(torch.tensor([VOXEL_MM * 32 / side] * 3 + [1.0], dtype=torch.float64))
            affine[:3, 3] = -affine[0, 0] * (side - 1) / 2
            generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
            image, mask = phantom(side, lesion=number % 2 == 0, generator=generator)
            return {
                "image": image[None],  # (1, D, H, W)
                "target": 1 - number % 2,
                "id": f"phantom-{number:04d}",
                "path": "",
                "affine": affine,
                "mask": mask[None],
            }

        self.samples = side_by_side(sample, numbers)

    def __len__(self) -> int:
        """Return the number of phantoms."""
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one sample."""
        sample = self.samples[index]
        axes = [axis for axis in (1, 2, 3) if self.mirror and torch.rand(()) < 0.5]
        return {**sample, "image": sample["image"].flip(axes), "mask": sample["mask"].flip(axes)} if axes else sample


class LesionData(Volumes):
    """Generated head scans: is there a lesion? The masks say where, and training never sees them.

    Args:
        train: Number of training volumes.
        val: Number of validation volumes.
        test: Number of test volumes.
        size: Voxels along each side; of several, the volumes take turns. The head fills all of them, so that a larger
            one has smaller voxels.
        base: Batch size, workers, seed, buckets.
    """

    def __init__(self, *, train: int = 256, val: int = 64, test: int = 128, size: int | list[int] = 32, **base: Any):
        super().__init__(**base)
        self.counts = {"train": train, "val": val, "test": test}
        self.size = size

    def load(self) -> None:
        """Generate all volumes; a few seconds for some hundred of 32³ voxels."""
        for place, (part, count) in enumerate(self.counts.items()):
            start = place * FAR  # however many a part has, it shares none with another part, nor changes it
            if not 2 <= count <= FAR:
                raise ValueError(
                    f"expected 2 (one of each class) to {FAR} {part} volumes, got {count}; change --data.{part}"
                )
            numbers = range(start, start + count)
            self.datasets[part] = Phantoms(numbers, size=self.size, seed=self.seed, mirror=part == "train")
        several = isinstance(self.size, list)
        geometry = {"size": None if several else (self.size,) * 3, "spacing": None, "fit": "crop", "intensity": "none"}
        lesions = sum(1 - number % 2 for number in range(self.counts["train"]))
        self._spec = {
            "kind": "binary",
            "classes": ["healthy", "lesion"],
            "channels": 1,
            "preprocessing": geometry,
            "class_counts": [self.counts["train"] - lesions, lesions],
        }

    def still(self, part: str) -> Dataset[Any]:
        """Leave the mirroring out."""
        phantoms: Any = copy(self.datasets[part])
        phantoms.mirror = False
        still: Dataset[Any] = phantoms
        return still
