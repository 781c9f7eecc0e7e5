"""Which elements a student does not see: boxes on a grid, balls in a graph."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from tasks.data.neighbours import nearest_first


def boxes(samples: int, grid: Sequence[int], share: float, device: torch.device | str = "cpu") -> Tensor:
    """Cover about a share of each sample's grid with boxes of random sizes at random places.

    Blocks as in BEiT (Bao et al. 2022, arXiv 2106.08254, algorithm 1), of any rank: a box takes half of what is still
    missing, its sides stretched at random, and is moved so that it lies inside.

    Args:
        samples: B.
        grid: Cells along each axis.
        share: Between 0 and 1; half a box more or less is covered, at least one cell and never all.
        device: Of the result.

    Returns:
        bool, (B, *grid).

    Example:
        >>> boxes(2, (4, 8, 8), 0.5).shape
        torch.Size([2, 4, 8, 8])
    """
    masks = torch.zeros(samples, *grid, dtype=torch.bool)
    cells = math.prod(grid)
    wanted = min(max(1, round(share * cells)), max(1, cells - 1))
    for mask in masks:
        for _ in range(4 * len(grid)):  # each takes half of the rest
            missing = wanted - int(mask.sum())
            if missing <= 0:
                break
            fraction = max(1, missing / 2) / cells
            stretch = torch.empty(len(grid)).uniform_(-0.5, 0.5)
            stretch -= stretch.mean()
            sides = [
                min(side, max(1, round(side * fraction ** (1 / len(grid)) * math.exp(float(one)))))
                for side, one in zip(grid, stretch, strict=True)
            ]
            starts = [int(torch.randint(whole - side + 1, ())) for whole, side in zip(grid, sides, strict=True)]
            where = tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))
            mask[where] = True
        if mask.all() and cells > 1:  # something has to be seen
            mask.view(-1)[torch.randint(cells, ())] = False
    return masks.to(device)


def balls(edges: Tensor, index: Tensor, sets: int, share: float) -> Tensor:
    """Cover about a share of each graph with balls around random nodes: the nodes fewer than so many edges away.

    Args:
        edges: Neighbours, both ways, (2, E).
        index: The graph of each node, (N,).
        sets: Number of graphs.
        share: Between 0 and 1. A graph of one node has none covered; others at least one and never all.

    Returns:
        bool, (N,).

    Example:
        >>> ring = torch.stack([torch.arange(8), torch.arange(8).roll(1)])
        >>> covered = balls(torch.cat([ring, ring.flip(0)], 1), torch.zeros(8, dtype=torch.long), 1, 0.4)
        >>> int(covered.sum())
        3
    """
    sizes = torch.bincount(index, minlength=sets)
    wanted = (share * sizes).round().clamp(min=1).minimum(sizes - 1)
    covered = nearest_first(edges, index, sets) < wanted[index]
    return covered


def onto(mask: Tensor, size: Sequence[int], cell: Sequence[int]) -> Tensor:
    """A mask of a coarse grid, (B, *cells), on the finer one, each fine element as the cell that it lies in.

    Args:
        mask: The coarse one.
        size: Elements of the fine one along each axis.
        cell: Of a cell.

    Example:
        >>> onto(torch.tensor([[True, False]]), [3], [2])
        tensor([[ True,  True, False]])
    """
    for axis, (fine, side) in enumerate(zip(size, cell, strict=True), start=1):
        place = torch.arange(fine, device=mask.device) // side
        mask = mask.index_select(axis, place.clamp(max=mask.shape[axis] - 1))
    return mask


def patches(x: Tensor, grid: Sequence[int], cell: Sequence[int]) -> Tensor:
    """What of an input lies in each cell of a coarser grid, laid end to end, (B, *grid, C · elements of a cell).

    Args:
        x: (B, C, *size); what is missing in the last cells is filled up with zeros, what is beyond them cut off.
        grid: Cells along each axis.
        cell: Elements of the input in a cell, along each axis.

    Example:
        >>> patches(torch.arange(8.0).view(1, 1, 2, 4), (1, 2), (2, 2))
        tensor([[[[0., 1., 4., 5.],
                  [2., 3., 6., 7.]]]])
    """
    room = [cells * side - size for size, cells, side in zip(x.shape[2:], grid, cell, strict=True)]
    x = functional.pad(x, [part for one in reversed(room) for part in (0, one)])
    cut = [number for pair in zip(grid, cell, strict=True) for number in pair]
    x = x.reshape(*x.shape[:2], *cut)
    rank = len(grid)
    order = [0, *range(2, 2 + 2 * rank, 2), 1, *range(3, 3 + 2 * rank, 2)]
    return x.permute(order).flatten(1 + rank)
