"""Views of volumes: a box, mirrored where it may be, brighter or darker, with noise, blurred."""

from typing import Any

import torch
from monai import transforms as mt
from torch import Tensor

from tasks.data.crops import Crops, uniform
from tasks.volume.batches import stack_padded, unpadded


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
        steps: list[mt.RandomizableTransform] = [mt.RandFlip(prob=0.5, spatial_axis=axis) for axis in self.flip]
        if gain:
            steps += [mt.RandScaleIntensity(gain, prob=probability), mt.RandShiftIntensity(gain, prob=probability)]
        if noise:
            steps.append(mt.RandGaussianNoise(std=noise, prob=probability))
        if blur:
            steps.append(mt.RandGaussianSmooth((0.0, blur), (0.0, blur), (0.0, blur), prob=probability))
        self.steps = mt.Compose(steps)

    def crop(self, batch: dict[str, Any], low: float, high: float) -> dict[str, Any]:
        """A box of each volume, whose share of the voxels is drawn once a batch, so that boxes stack; its affine."""
        share = float(uniform(low, high)) ** (1 / 3)
        images, affines = [], []
        for image, affine in zip(unpadded(batch), batch["affine"], strict=True):
            sides = [
                min(whole, max(self.multiple, round(share * whole / self.multiple) * self.multiple))
                for whole in image.shape[1:]
            ]
            room = [whole - side + 1 for whole, side in zip(image.shape[1:], sides, strict=True)]
            start = [int(torch.randint(one, ())) for one in room]
            d, h, w = (slice(first, first + side) for first, side in zip(start, sides, strict=True))
            images.append(image[:, d, h, w])
            moved = affine.clone()
            moved[:3, 3] += moved[:3, :3] @ torch.tensor(start).to(moved)
            affines.append(moved)
        return _with_images({**batch, "affine": torch.stack(affines)}, images)

    def change(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Mirror, gain, noise, blur; MONAI's generator is seeded by torch's."""
        self.steps.set_random_state(seed=int(torch.randint(2**31, ())))
        changed = [torch.as_tensor(self.steps(image)) for image in unpadded(batch)]
        return _with_images(batch, [one.as_tensor() if hasattr(one, "as_tensor") else one for one in changed])


def _with_images(batch: dict[str, Any], images: list[Tensor]) -> dict[str, Any]:
    """The batch with other images, padded where they differ in size; masks of the old ones are left out."""
    rest = {name: value for name, value in batch.items() if name not in ("shape", "mask", "tissue")}
    shapes = [tuple(image.shape[1:]) for image in images]
    if len(set(shapes)) > 1:
        rest["shape"] = torch.tensor(shapes, device=batch["image"].device)
    return {**rest, "image": stack_padded(images)}
