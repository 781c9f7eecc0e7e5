"""Batches of volumes that need not have one size: padded at their ends, with each one's own shape beside them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def collate_volumes(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join samples to a batch.

    Returns:
        What torch's own rule gives; where the images differ in shape, all that lies on their grids is padded with zeros
        to the largest, and ``shape`` (B, 3) says how many voxels each one has.
    """
    shapes = [sample["image"].shape[1:] for sample in samples]
    if len(set(shapes)) == 1:
        batch: dict[str, Any] = torch.utils.data.default_collate(list(samples))
        return batch
    on_grid = [key for key, value in samples[0].items() if isinstance(value, Tensor) and value.shape[1:] == shapes[0]]
    rest = [{key: value for key, value in sample.items() if key not in on_grid} for sample in samples]
    batch = torch.utils.data.default_collate(rest)
    batch |= {key: stack_padded([sample[key] for sample in samples]) for key in on_grid}
    return {**batch, "shape": torch.tensor(shapes)}


def stack_padded(volumes: Sequence[Tensor]) -> Tensor:
    """Stack volumes (C, D, H, W) to (B, C, D', H', W'), zeros put at their ends up to the largest side along each axis.

    Example:
        >>> stack_padded([torch.ones(1, 2, 3, 1), torch.ones(1, 4, 1, 1)]).shape
        torch.Size([2, 1, 4, 3, 1])
    """
    largest = [max(sides) for sides in zip(*(one.shape[1:] for one in volumes), strict=True)]
    missing = [[whole - side for whole, side in zip(largest, one.shape[1:], strict=True)] for one in volumes]
    return torch.stack(
        [functional.pad(one, [0, w, 0, h, 0, d]) for one, (d, h, w) in zip(volumes, missing, strict=True)]
    )


def unpadded(batch: dict[str, Any], key: str = "image") -> list[Tensor]:
    """Each sample's own volume (C, D, H, W), without the padding."""
    if "shape" not in batch:
        return list(batch[key])
    return [one[:, :d, :h, :w] for one, (d, h, w) in zip(batch[key], batch["shape"].tolist(), strict=True)]
