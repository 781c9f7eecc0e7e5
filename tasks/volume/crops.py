"""Views of volumes: a box, mirrored where it may be, brighter or darker, with noise, blurred."""

from typing import Any

import torch
from monai import transforms as mt
from torch import Tensor

from tasks.data.crops import Crops, uniform
from tasks.volume.batches import stack_padded, unpadded

_MOVED = ("image", "pool_mask")  # what lies on a volume's voxels and is cut and mirrored with it


class VolumeCrops(Crops):
    """Crop volumes to boxes and change their voxels by MONAI's random transforms.

    Args:
        probability: Chance of each change of the voxels.
        flip: Axes that may be mirrored: 0 left-right, 1 posterior-anterior, 2 inferior-superior. None unless given:
            the side may matter.
        gain: Largest relative change of contrast, and largest shift of brightness.
        noise: Largest standard deviation of added noise, in units of the normalised intensity.
        blur: Largest standard deviation of a Gaussian blur, in voxels.
        multiple: Sides of boxes are multiples of this, as the network may ask for.
    """

    def __init__(
        self,
        *,
        probability: float = 0.5,
        flip: tuple[int, ...] = (),
        gain: float = 0.2,
        noise: float = 0.1,
        blur: float = 1.0,
        multiple: int = 4,
    ):
        self.probability, self.flip, self.multiple = probability, tuple(flip), multiple
        steps: list[mt.RandomizableTransform] = [
            mt.RandFlipd(_MOVED, prob=0.5, spatial_axis=axis, allow_missing_keys=True) for axis in self.flip
        ]
        if gain:
            steps.append(mt.RandScaleIntensityd("image", gain, prob=probability))
            steps.append(mt.RandShiftIntensityd("image", gain, prob=probability))
        if noise:
            steps.append(mt.RandGaussianNoised("image", std=noise, prob=probability))
        if blur:
            wide = (0.0, blur)
            steps.append(mt.RandGaussianSmoothd("image", wide, wide, wide, prob=probability))
        self.steps = mt.Compose(steps)

    def crop(self, batch: dict[str, Any], low: float, high: float) -> dict[str, Any]:
        """A box of each volume, whose share of the voxels is drawn once a batch, so that boxes stack; its affine."""
        share = float(uniform(low, high)) ** (1 / 3)
        samples = _samples(batch)
        for sample, affine in zip(samples, batch["affine"], strict=True):
            sides = [
                min(whole, max(self.multiple, round(share * whole / self.multiple) * self.multiple))
                for whole in sample["image"].shape[1:]
            ]
            room = [whole - side + 1 for whole, side in zip(sample["image"].shape[1:], sides, strict=True)]
            start = [int(torch.randint(one, ())) for one in room]
            d, h, w = (slice(first, first + side) for first, side in zip(start, sides, strict=True))
            sample |= {name: sample[name][:, d, h, w] for name in sample}
            sample["affine"] = affine.clone()
            sample["affine"][:3, 3] += affine[:3, :3] @ torch.tensor(start).to(affine)
        return _joined(batch, samples)

    def change(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Mirror, gain, noise, blur; MONAI's generator is seeded by torch's."""
        self.steps.set_random_state(seed=int(torch.randint(2**31, ())))
        return _joined(batch, [self.steps(sample) for sample in _samples(batch)])


def _samples(batch: dict[str, Any]) -> list[dict[str, Tensor]]:
    """What moves together of each sample, without padding."""
    parts = {name: unpadded(batch, name) for name in _MOVED if name in batch}
    return [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]


def _joined(batch: dict[str, Any], samples: list[dict[str, Any]]) -> dict[str, Any]:
    """The batch with other samples, padded where they differ in size; what tells truth of the old ones is left out."""
    found = {name: value for name, value in batch.items() if name not in ("shape", "mask", "tissue")}
    shapes = [tuple(sample["image"].shape[1:]) for sample in samples]
    if len(set(shapes)) > 1:
        found["shape"] = torch.tensor(shapes, device=batch["image"].device)
    for name in samples[0]:
        values = [_plain(sample[name]) for sample in samples]
        found[name] = torch.stack(values) if name == "affine" else stack_padded(values)
    return found


def _plain(value: Any) -> Tensor:
    tensor: Tensor = value.as_tensor() if hasattr(value, "as_tensor") else value
    return tensor
