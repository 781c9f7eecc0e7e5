"""How far the nodes of graphs are from one of them."""

import torch
from torch import Tensor


def nearest_first(edges: Tensor, index: Tensor, sets: int, centres: Tensor | None = None) -> Tensor:
    """The rank of each node in its graph, by its distance in edges from one node; what is not reached comes last.

    Args:
        edges: Neighbours, both ways, (2, E).
        index: The graph of each node, (N,), in any order.
        sets: Number of graphs.
        centres: One node of each graph that has any; drawn at random unless given.

    Returns:
        0 for the centre, (N,); equal distances in random order.
    """
    nodes, device = len(index), index.device
    if centres is None:
        order = torch.rand(nodes, device=device)
        centres = _in_order(order, index, sets)[0]
    distance = torch.full((nodes,), float(nodes), device=device)
    distance[centres] = 0.0
    reached = torch.zeros(nodes, dtype=torch.bool, device=device).index_fill(0, centres, True)
    for step in range(1, nodes):
        to = edges[1][reached[edges[0]]]
        new = torch.zeros_like(reached).index_fill(0, to, True) & ~reached
        if not bool(new.any()):
            break
        distance[new] = float(step)
        reached |= new
    return _in_order(distance + torch.rand(nodes, device=device) * 0.5 * (distance > 0), index, sets)[1]


def _in_order(values: Tensor, index: Tensor, sets: int) -> tuple[Tensor, Tensor]:
    """The node with the smallest value of each graph, and each node's rank in its graph."""
    order = values.argsort(stable=True)
    order = order[index[order].argsort(stable=True)]
    sizes = torch.bincount(index, minlength=sets)
    starts = sizes.cumsum(0) - sizes
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order), device=index.device) - starts[index[order]]
    return order[starts[sizes > 0]], ranks
