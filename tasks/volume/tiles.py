"""A whole scan by tiles: what a 3-D network's cells see, and the parts of an image."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tasks.data.problems import BadInput
from tasks.tiles import Parts, View, cut, field_of_view

_ACROSS = (8, 16, 32, 64)  # voxels beside the axis that is measured: the fewest that a network takes
_LARGEST = 512  # voxels: who looks farther looks at the whole


def views_of(network: nn.Module, channels: int, *, same: bool) -> tuple[View, ...]:
    """What a network sees along each axis.

    Args:
        network: From (B, C, D, H, W) to features on a grid.
        channels: C.
        same: Whether it is the same along all axes, which is then measured once.
    """
    across = next((size for size in _ACROSS if _takes(network, channels, size)), 96)
    found = []
    for axis in (-1,) if same else (-3, -2, -1):
        shape = [1, channels, across, across, across]
        shape[axis] = 64
        found.append(field_of_view(network, _call, shape, axis, largest=_LARGEST))
    return tuple(found * 3) if same else tuple(found)


def image_parts(
    network: nn.Module,
    image: Tensor,
    cells: Sequence[int],
    views: Sequence[View],
    size: int,
    name: str,
    sets: Mapping[str, Tensor],
) -> Parts:
    """The tiles of an image.

    Args:
        network: From images to features.
        image: (1, C, D, H, W).
        cells: Of the whole along each axis.
        views: What the network sees (`views_of`).
        size: Voxels of a tile's side.
        name: Of the image, for what is said of a network that sees the whole.
        sets: The pool's ``weight`` of the cells, if any.

    Raises:
        BadInput: If the network treats no two places alike, or a tile is smaller than a cell.
    """
    if any(view.whole for view in views):
        print(
            f"{name}: the network looks at the whole of what it is given (a norm with the image's own statistics, "
            f"attention, or very many layers), so that tiles of {size} voxels do not give quite the logit of one pass; "
            "a larger --tile comes nearer"
        )
    if any(size < view.period for view in views):
        least = max(view.period for view in views)
        raise BadInput(f"{name}: expected a --tile of at least {least} voxels, what this network repeats, got {size}")
    sizes = image.shape[2:]

    def encode(read: tuple[slice, ...]) -> Tensor:
        at: Any = (..., *read)
        features: Tensor = network(image[at])
        return features

    seen = [view.within(size) for view in views]
    return Parts(cut(sizes, cells, [size] * 3, seen), encode, tuple(cells), sets)


def _call(network: nn.Module, image: Tensor) -> Tensor:
    features: Tensor = network(image)
    return features


def _takes(network: nn.Module, channels: int, size: int) -> bool:
    """Whether images may be so small across."""
    take: Callable[[Tensor], Tensor] = network
    weight = next(network.parameters(), torch.zeros(()))
    try:
        with torch.no_grad():
            return min(take(weight.new_zeros(1, channels, size, size, 64)).shape[2:]) > 0
    except (RuntimeError, ValueError):
        return False
