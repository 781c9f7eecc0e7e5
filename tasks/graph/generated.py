"""Graphs with a known answer: a motif is hidden in a random graph, and its nodes are known.

Both motifs have five nodes, six edges and the degrees 3, 3, 2, 2, 2. They are put into the same kind of random graph in
the same way, so a graph's size, its number of edges and its degrees say nothing about its class: only how the motif's
nodes are connected does. It is the check that Ying et al., "GNNExplainer", 2019, https://arxiv.org/abs/1903.03894 made
popular ("house" motifs), with a decoy that leaves no shortcut.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from tasks.data.problems import Problems
from tasks.graph.data import GraphData

BONDS = ["apart", "together"]

# Nodes 0 and 1 have three neighbours, nodes 2, 3 and 4 have two.
MOTIFS = {
    "square": [(0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4)],  # K2,3: squares side by side, no triangle
    "house": [(0, 1), (0, 2), (1, 3), (2, 3), (0, 4), (1, 4)],  # a square with a roof
}


def motif_graph(motif: str, *, nodes: int, extra: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Make a random graph with one motif in it.

    The rest of the graph is a random recursive tree with ``extra`` more edges. A motif node is joined to a node of the
    rest by one edge. With equal arguments and an equal generator, graphs of both motifs have equal degrees.

    Args:
        motif: ``"square"`` or ``"house"``.
        nodes: Nodes of the rest, at least 3.
        extra: Edges of the rest beyond those of the tree.
        rng: Source of randomness.

    Returns:
        edge_index, (2, E) with both directions of each edge, and truth, (N,) bool: the motif's nodes, which stand at
        random places.

    Example:
        >>> edge_index, truth = motif_graph("house", nodes=20, extra=3, rng=np.random.default_rng(0))
        >>> edge_index.shape, int(truth.sum())
        (torch.Size([2, 58]), 5)
    """
    if motif not in MOTIFS:
        raise ValueError(f"expected motif {' or '.join(MOTIFS)}, got '{motif}'; choose one of them")
    free = (nodes - 1) * (nodes - 2) // 2
    if nodes < 3 or not 0 <= extra <= free:
        raise ValueError(f"expected nodes >= 3 and 0 <= extra <= {max(free, 0)}, got {nodes} and {extra}; change them")
    edges = {(int(rng.integers(node)), node) for node in range(1, nodes)}
    while len(edges) < nodes - 1 + extra:
        a, b = sorted(rng.choice(nodes, 2, replace=False).tolist())
        edges.add((a, b))
    edges |= {(a + nodes, b + nodes) for a, b in MOTIFS[motif]}
    edges.add((int(rng.integers(nodes)), nodes + int(rng.integers(5))))
    shuffled = rng.permutation(nodes + 5)
    ends = shuffled[np.array(sorted(edges)).T]  # (2, E / 2)
    truth = np.zeros(nodes + 5, dtype=bool)
    truth[shuffled[nodes:]] = True
    return torch.from_numpy(np.concatenate([ends, ends[::-1]], axis=1)), torch.from_numpy(truth)


def bond_graph(together: bool, *, nodes: int, extra: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Make a random graph with two double bonds, which meet at a node or do not.

    Args:
        together: Whether they meet.
        nodes: Nodes, at least 5.
        extra: Edges beyond those of a random recursive tree.
        rng: Source of randomness.

    Returns:
        edge_index, (2, E) with both directions of each edge; edge_attr, (E, 2), single or double, one-hot; and truth,
        (N,) bool: the nodes of the double bonds.
    """
    while True:
        edges = {(int(rng.integers(node)), node) for node in range(1, nodes)}
        while len(edges) < nodes - 1 + extra:
            a, b = sorted(rng.choice(nodes, 2, replace=False).tolist())
            edges.add((a, b))
        ends = np.array(sorted(edges))  # (E / 2, 2)
        meet = np.triu((ends[:, None, :, None] == ends[None, :, None, :]).any((2, 3)) == together, 1)
        if meet.any():  # not in a star, whose edges all meet
            break
    double = np.zeros(len(ends), dtype=bool)
    double[rng.choice(np.argwhere(meet))] = True
    truth = np.isin(np.arange(nodes), ends[double])
    kinds = np.tile(np.stack([~double, double], 1), (2, 1)).astype(np.float32)
    return torch.from_numpy(np.concatenate([ends.T, ends.T[::-1]], 1)), torch.from_numpy(kinds), torch.from_numpy(truth)


class MotifData(GraphData):
    """Graphs with a hidden motif, "square" or "house", made on the spot: which one is it?

    The split is fixed, the classes are equally frequent, and `truth` of each
    graph marks the motif's nodes.

    Args:
        train: Training graphs.
        val: Validation graphs.
        test: Test graphs.
        min_nodes: Fewest nodes beside the motif's.
        max_nodes: Most nodes beside the motif's.
        cycles: Edges beyond a tree's, per node beside the motif's: distracting cycles.
        degrees: Highest degree of the one-hot degrees, the graphs' only features; 0 leaves them without.
        kwargs: Options of `GraphData` and `tasks.data.base.PoolingData`; `seed` fixes the graphs.
    """

    drawn = False

    def __init__(
        self,
        *,
        train: int = 800,
        val: int = 200,
        test: int = 400,
        min_nodes: int = 15,
        max_nodes: int = 30,
        cycles: float = 0.15,
        degrees: int = 8,
        **kwargs: Any,
    ):
        super().__init__(num_folds=1, val=0.0, degrees=degrees, **kwargs)  # the split is fixed
        self.sizes = {"train": train, "val": val, "test": test}
        self.nodes = (min_nodes, max_nodes)
        self.cycles = cycles

    def read(self, problems: Problems) -> list[Data]:
        """Make the graphs; every graph has its own generator, so a longer set begins with the shorter one's graphs."""
        self.classes = list(MOTIFS)
        graphs = []
        for part, (name, size) in enumerate(self.sizes.items()):
            for number in range(size):
                rng = np.random.default_rng([self.seed, part, number])
                nodes = int(rng.integers(self.nodes[0], self.nodes[1] + 1))
                label = number % 2
                edge_index, truth = motif_graph(
                    self.classes[label], nodes=nodes, extra=round(self.cycles * nodes), rng=rng
                )
                graph = Data(edge_index=edge_index, y=torch.tensor([label]), num_nodes=nodes + 5)
                graph.truth, graph.id = truth, f"{name}-{number + 1}"
                graphs.append(graph)
        return graphs

    def parts(self, targets: list[float], stratify: bool, problems: Problems) -> dict[str, list[int]]:
        """The parts follow one another."""
        numbers = iter(range(len(targets)))
        return {name: [next(numbers) for _ in range(size)] for name, size in self.sizes.items()}


class BondData(MotifData):
    """Graphs with two double bonds among single ones: do they meet at a node? Nothing but the bonds tells.

    The split is fixed, the classes are equally frequent, and `truth` of each graph marks the nodes of the double bonds.
    """

    def read(self, problems: Problems) -> list[Data]:
        """Make the graphs, each by a generator of its own."""
        self.classes, self.reading = BONDS, {"edge_names": ["single", "double"]}
        graphs = []
        for part, (name, size) in enumerate(self.sizes.items()):
            for number in range(size):
                rng = np.random.default_rng([self.seed, part, number])
                nodes = int(rng.integers(self.nodes[0], self.nodes[1] + 1))
                edge_index, kinds, truth = bond_graph(
                    number % 2 == 1, nodes=nodes, extra=round(self.cycles * nodes), rng=rng
                )
                graph = Data(edge_index=edge_index, edge_attr=kinds, y=torch.tensor([number % 2]), num_nodes=nodes)
                graph.truth, graph.id = truth, f"{name}-{number + 1}"
                graphs.append(graph)
        return graphs
