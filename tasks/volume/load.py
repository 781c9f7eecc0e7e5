"""From files to one image: the sequences of a subject on one grid, each with an intensity scale of its own."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from monai import transforms as mt
from monai.data import MetaTensor
from scipy import ndimage
from torch import Tensor

from tasks.maps.thresholds import otsu
from tasks.volume.files import read_volume

BODIES = ("foreground", "otsu")  # rules of `find_body`
MISSING = ""  # a sequence that a subject does not have, among its files


class LoadSequences:
    """Load the sequences of a subject as the channels of one image, axes right, anterior, superior.

    The first that is there is resampled to the spacing, and the others to its grid; what they do not cover is 0. Each
    is scaled by itself, so that none drowns another; one that is missing is 0 afterwards.

    Args:
        scale: From one sequence, (D, H, W), to its scaled copy.
        spacing: Voxel size in mm; None keeps the first one's own.
        take: Which volumes of a file that holds several (4-D), as channels; None = all there are.
        body: Add the voxels of the body as ``pool_mask`` (`find_body`).
    """

    def __init__(
        self,
        scale: Callable[[Tensor], Tensor],
        *,
        spacing: Sequence[float] | None = None,
        take: Sequence[int] | None = None,
        body: str | None = None,
    ):
        self.scale, self.take, self.body = scale, None if take is None else list(take), body
        self.turn = mt.Orientation(axcodes="RAS", labels=None)
        self.space = None if spacing is None else mt.Spacing(pixdim=tuple(spacing), mode="bilinear")
        self.match = mt.ResampleToMatch(mode="bilinear", padding_mode="zeros")

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        """``{"image": path or paths}`` to ``{"image": (C, D, H, W)}``, and ``pool_mask`` (1, D, H, W) of the body."""
        files = [sample["image"]] if isinstance(sample["image"], str) else list(sample["image"])
        there: dict[int, Any] = {number: read_volume(file) for number, file in enumerate(files) if file != MISSING}
        there = {number: self.turn(image) for number, image in there.items()}
        first, *others = there
        if self.space is not None:
            there[first] = self.space(there[first])
        grid = there[first]
        for number in others:
            there[number] = there[number] if _same_grid(there[number], grid) else self.match(there[number], grid)
        if self.take is not None:
            there[first] = there[first][self.take]
        found = dict(sample)
        if self.body is not None:
            voxels = torch.cat([one.as_tensor() for one in there.values()])
            found["pool_mask"] = MetaTensor(find_body(voxels, self.body)[None].float(), affine=grid.affine)
        empty = torch.zeros_like(grid.as_tensor()[:1])
        channels = [
            torch.stack([self.scale(one) for one in there[number].as_tensor()]) if number in there else empty
            for number in range(len(files))
        ]
        found["image"] = MetaTensor(torch.cat(channels), affine=grid.affine)
        return found


def find_body(voxels: Tensor, rule: str) -> Tensor:
    """Which voxels belong to the body.

    Args:
        voxels: (C, D, H, W), before any scaling; the first channel decides, or all of them.
        rule: ``"foreground"``: not 0 in some channel, as in scans without skull. ``"otsu"``: the largest piece of what
            is brighter than Otsu's threshold (Otsu 1979) in the first channel, and the holes in it: a head without air.

    Returns:
        (D, H, W), bool.

    Example:
        >>> head = torch.zeros(1, 5, 5, 5)
        >>> head[:, 1:4, 1:4, 1:4] = 9.0
        >>> head[:, 2, 2, 2] = 0.0
        >>> int(find_body(head, "foreground").sum()), int(find_body(head, "otsu").sum())
        (26, 27)
    """
    if rule == "foreground":
        return (voxels != 0).any(0)
    pieces, _ = ndimage.label((voxels[0] > otsu(voxels[0])).numpy())
    largest = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
    return torch.from_numpy(ndimage.binary_fill_holes(largest))


def _same_grid(one: Any, other: Any) -> bool:
    return one.shape[1:] == other.shape[1:] and bool(torch.allclose(one.affine, other.affine, atol=1e-4))


class DropSequences(mt.RandomizableTransform):
    """Modality dropout (Neverova et al. 2016): leave sequences out at random, never all that are there.

    A network that has never seen a sequence missing makes much of the zeros in its place.

    Args:
        probability: Chance of each sequence.
    """

    def __init__(self, probability: float):
        super().__init__(prob=1.0)
        self.probability = probability

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        """A copy whose ``image`` has zeros for the channels that were drawn."""
        image = sample["image"]
        there = np.flatnonzero([bool(channel.any()) for channel in image])
        kept = self.R.random(len(image)) >= self.probability
        if len(there) and not kept[there].any():
            kept[self.R.choice(there)] = True
        return {**sample, "image": image * torch.as_tensor(kept).to(image).view(-1, 1, 1, 1)}
