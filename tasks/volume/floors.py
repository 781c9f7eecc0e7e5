"""What a volume says without a network: how large its file is, how bright it is, and what it looks like from afar."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
CELLS = (8, 12, 8)  # right, anterior, superior


def volume_floors(images: Sequence[Tensor], affines: Tensor, paths: Sequence[str]) -> dict[str, Sequence[Any]]:
    """Describe each volume of a batch by a few numbers.

    Args:
        images: The network's inputs, (C, D, H, W) each.
        affines: From their voxels to mm, (B, 4, 4).
        paths: Their files; empty for images that no file holds.

    Returns:
        By name a vector of each volume: ``size``, the sides of its file (of the image where there is none) in mm and
        their product, which may give an answer away that no voxel holds; ``brightness``, mean, standard deviation and
        `PERCENTILES`; ``brightest spot``, the largest and the smallest voxel, and mean of 3³ voxels; ``coarse grid``,
        the means of `CELLS` equal parts. Each channel has its own, the size apart.

    Example:
        >>> found = volume_floors([torch.rand(1, 9, 9, 9)], torch.eye(4)[None], [""])
        >>> {name: len(vectors[0]) for name, vectors in found.items()}
        {'size': 4, 'brightness': 9, 'brightest spot': 4, 'coarse grid': 768}
    """
    return {
        "size": [_size(*each) for each in zip(images, affines, paths, strict=True)],
        "brightness": [_brightness(image.flatten(1)) for image in images],
        "brightest spot": [_extremes(image) for image in images],
        "coarse grid": [functional.adaptive_avg_pool3d(image, CELLS).flatten() for image in images],
    }


def _size(image: Tensor, affine: Tensor, path: str) -> Tensor:
    if Path(path).is_file():
        header = nibabel.load(path).header
        sides = np.multiply(header.get_data_shape()[:3], header.get_zooms()[:3])
    else:
        sides = np.array(image.shape[1:]) * affine[:3, :3].norm(dim=0).cpu().numpy()
    return torch.tensor([*sides, np.prod(sides)])


def _brightness(x: Tensor) -> Tensor:
    percentiles = torch.from_numpy(np.percentile(x.cpu().numpy(), PERCENTILES, axis=1)).to(x)  # (percentiles, C)
    return torch.cat([x.mean(1), x.std(1, correction=0), percentiles.flatten()])


def _extremes(image: Tensor) -> Tensor:
    around = functional.avg_pool3d(image, 3, stride=1, padding=1, count_include_pad=False)
    return torch.cat([one.flatten(1).aminmax(dim=1)[side] for one in (image, around) for side in (1, 0)])
