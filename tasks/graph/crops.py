"""Views of graphs: a ball around a node, with nodes, edges and features left out."""

import torch
from torch import Tensor
from torch_geometric.data import Batch
from torch_geometric.utils import subgraph

from tasks.data.crops import Crops, uniform
from tasks.data.neighbours import nearest_first


class GraphCrops(Crops):
    """Crop graphs to balls, the nodes nearest to a random one, and change them (You et al. 2020, GraphCL, 2010.13902).

    Args:
        drop_nodes: Share of the nodes that are left out, with their edges; one stays.
        drop_edges: Share of the edges that are left out, both ways.
        mask_features: Share of the nodes whose features are set to 0.
    """

    def __init__(self, drop_nodes: float = 0.1, drop_edges: float = 0.1, mask_features: float = 0.1):
        for name, share in (("drop_nodes", drop_nodes), ("drop_edges", drop_edges), ("mask_features", mask_features)):
            if not 0 <= share < 1:
                raise ValueError(f"expected a share of {name} from 0 and below 1, got {share}; change it")
        self.drop_nodes, self.drop_edges, self.mask_features = drop_nodes, drop_edges, mask_features

    def crop(self, batch: Batch, low: float, high: float) -> Batch:
        """Balls that hold a random share of each graph's nodes, at least one; the same balls for low = high = 1."""
        if low == high == 1:
            return batch
        sizes = batch.ptr.diff()
        wanted = (uniform(low, high, len(sizes), device=sizes.device) * sizes).round().clamp(min=1)
        both = torch.cat([batch.edge_index, batch.edge_index.flip(0)], 1)
        rank = nearest_first(both, batch.batch, len(sizes))
        return keep_nodes(batch, rank < wanted[batch.batch])

    def change(self, batch: Batch) -> Batch:
        """Leave out nodes, edges and features."""
        if self.drop_nodes:
            draws = torch.rand(batch.num_nodes, device=batch.batch.device)
            best = torch.zeros(batch.num_graphs, device=draws.device).scatter_reduce(0, batch.batch, draws, "amax")
            batch = keep_nodes(batch, (draws >= self.drop_nodes) | (draws == best[batch.batch]))
        else:
            batch = batch.clone()
        if self.drop_edges:
            kept = keep_pairs(batch.edge_index, batch.num_nodes, self.drop_edges)
            batch.edge_index = batch.edge_index[:, kept]
            if batch.edge_attr is not None:
                batch.edge_attr = batch.edge_attr[kept]
        if self.mask_features:
            hidden = torch.rand(batch.num_nodes, 1, device=batch.x.device) < self.mask_features
            batch.x = batch.x.masked_fill(hidden, 0.0)
        return batch


def keep_nodes(batch: Batch, kept: Tensor) -> Batch:
    """The batch's graphs with these nodes alone, bool (N,), and the edges between them.

    Example:
        >>> from torch_geometric.data import Data
        >>> path = Data(x=torch.arange(3.0)[:, None], edge_index=torch.tensor([[0, 1], [1, 2]]))
        >>> small = keep_nodes(Batch.from_data_list([path, path]), torch.tensor([0, 1, 1, 1, 0, 1]).bool())
        >>> small.x.flatten().tolist(), small.edge_index.tolist(), small.ptr.tolist()
        ([1.0, 2.0, 0.0, 2.0], [[0], [1]], [0, 2, 4])
    """
    edges, attributes = subgraph(kept, batch.edge_index, batch.edge_attr, relabel_nodes=True, num_nodes=batch.num_nodes)
    index = batch.batch[kept]
    sizes = torch.bincount(index, minlength=batch.num_graphs)
    small = Batch(x=batch.x[kept], edge_index=edges, batch=index, ptr=torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]))
    if attributes is not None:
        small.edge_attr = attributes
    for name in ("id", "y"):
        if name in batch:
            small[name] = batch[name]
    small._num_graphs = batch.num_graphs
    return small


def keep_pairs(edge_index: Tensor, nodes: int, share: float) -> Tensor:
    """Which arcs stay, bool (E,), where a share of the pairs of nodes lose all arcs between them, both ways."""
    pair = edge_index.amin(0) * nodes + edge_index.amax(0)
    _, number = torch.unique(pair, return_inverse=True)
    draws = torch.rand(len(pair), device=pair.device)  # one a pair would have to ask how many there are
    return draws[number] >= share
