"""What a network knows of a sample besides its answer: a vector of the whole, and one of each element and its place."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from modalpool import Pool


class Placed(Protocol):
    """What is pooled, and where it is: the part of a task that is embedded."""

    pool: Pool

    def encode(self, batch: Any) -> tuple[Tensor, dict[str, Any]]:
        """Features, and the pool's keyword arguments."""

    def places(self, batch: Any, x: Tensor) -> Tensor:
        """Where the features' elements are in the input."""


class Embedding(NamedTuple):
    """The dual features of a batch: of whole samples, and of their elements."""

    vectors: Tensor
    """What the pool gives: (B, C), with the axes that the layout keeps, or with K vectors (B, K, C)."""
    features: list[Tensor]
    """Of each sample the features of its n elements, (n, C); elements that the pool does not count are not there."""
    places: list[Tensor]
    """Of each sample where these elements are, (n, P), in the units of `PoolingTask.place_names`."""


def embed_batch(task: Placed, batch: Any) -> Embedding:
    """Encode and pool a batch, and divide its elements among the samples.

    Raises:
        ValueError: If an element that the pool counts has no place: then it is none of the input's, and the vectors are
            not of the input alone.
    """
    x, sets = task.encode(batch)
    vectors = task.pool(x, **sets)
    axes = task.pool.layout.axes(x.ndim)
    arranged = task.pool.arrange(x, **sets)
    there = x.new_ones(x.shape, dtype=torch.bool).select(axes.channel, 0)
    if arranged.sets.mask is not None:
        there = arranged.restore_elements(arranged.sets.mask[..., None], vectors=False).select(axes.channel, 0)
    places = task.places(batch, x)
    places = places.expand(*there.shape, places.shape[-1])
    lost = int((there & places.isnan().any(-1)).sum())
    if lost:
        raise ValueError(
            f"expected every element that is pooled to have a place, got {lost} without (a class token, a register); "
            "return a mask in `encode` that leaves them out"
        )
    x = x.movedim(axes.channel, -1)
    if axes.batch is None:
        own = [sets["index"] == number for number in range(sets["dim_size"])]
        parts = [(x[of], there[of], places[of]) for of in own]
    else:
        batch_axis = axes.batch - (axes.channel < axes.batch)
        parts = list(zip(*(one.unbind(batch_axis) for one in (x, there, places)), strict=True))
    features, located = zip(*((one[mask], place[mask]) for one, mask, place in parts), strict=True)
    return Embedding(vectors, list(features), list(located))


def stack_vectors(vectors: Sequence[Tensor]) -> Tensor:
    """Stack pooled vectors whose kept axes may differ in length, zeros behind short ones.

    Example:
        >>> stack_vectors([torch.ones(2), torch.ones(3)]).tolist()
        [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]
    """
    longest = [max(sizes) for sizes in zip(*(vector.shape for vector in vectors), strict=True)]
    out = vectors[0].new_zeros(len(vectors), *longest)
    for row, vector in zip(out, vectors, strict=True):
        row[tuple(slice(size) for size in vector.shape)] = vector
    return out


def grid_numbers(pool: Pool, x: Tensor) -> Tensor:
    """Number the elements of dense features along each axis of the layout but b and c, (1, axes…, P).

    Example:
        >>> grid_numbers(Pool("b c [h w]"), torch.zeros(7, 3, 2, 4)).shape
        torch.Size([1, 2, 4, 2])
    """
    axes = pool.layout.axes(x.ndim)
    lines = [
        torch.arange(1 if axis == axes.batch else size, device=x.device, dtype=torch.float)
        for axis, size in enumerate(x.shape)
        if axis != axes.channel
    ]
    numbers = torch.meshgrid(*lines, indexing="ij")
    at = (axes.batch or 0) - (axes.channel < (axes.batch or 0))
    return torch.stack([*numbers[:at], *numbers[at + 1 :]], -1)
