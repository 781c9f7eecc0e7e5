"""Graphs that grow smaller from layer to layer: hierarchical pooling between the layers of one of PyG's models."""

import warnings
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch_geometric.nn import ASAPooling, SAGPooling, TopKPooling
from torch_geometric.nn.models.basic_gnn import BasicGNN
from torch_geometric.nn.pool.select import SelectOutput, SelectTopK
from torch_geometric.utils import degree

Coarsening = Literal["topk", "sag", "asap"]
COARSENINGS: dict[str, type[nn.Module]] = {"topk": TopKPooling, "sag": SAGPooling, "asap": ASAPooling}


class Select(SelectTopK):  # type: ignore[misc]  # PyG has no types
    """PyG's choice of the best nodes, in which equal scores are decided within their graph.

    PyG's own sort is not stable, so that among equal scores, which dead ReLUs give to many nodes, batch-mates would
    decide which stay. And its layers with a score of their own, SAG and ASAP, rank by that score times the sign of a
    random number that is never trained: ASAP with a minus keeps its worst clusters.
    """

    def forward(self, x: Tensor, batch: Tensor) -> SelectOutput:
        """The ⌈ratio n⌉ highest scores of each graph, the best first.

        Args:
            x: Node features, (N, C), or scores, (N,).
            batch: The graph of each node, (N,).
        """
        score = self.act((x.view(len(batch), -1) * self.weight).sum(-1) / self.weight.norm())
        order = score.argsort(descending=True, stable=True)
        order = order[batch[order].argsort(stable=True)]  # graph by graph
        sizes = degree(batch, dtype=torch.long)
        of = batch[order]
        rank = torch.arange(len(batch), device=batch.device) - (sizes.cumsum(0) - sizes)[of]
        best = order[rank < (self.ratio * sizes).ceil()[of]]
        each = torch.arange(len(best), device=batch.device)
        return SelectOutput(best, len(batch), cluster_index=each, num_clusters=len(best), weight=score[best])


class CoarsenedGNN(nn.Module):
    """Message passing in which, after every layer but the last, only the best nodes of each graph go on.

    After L layers ⌈ratio ⌈ratio … N⌉⌉ of a graph's N nodes are left, L - 1 times rounded up, so at least one. What a
    node is worth is learned: its score scales its features, xᵢ' = score(xᵢ) xᵢ, and the highest scores stay.

    - "topk": score = tanh(pᵀ x / |p|) of the node alone (Gao and Ji 2019, https://arxiv.org/abs/1905.05178; Cangea et
      al. 2018, https://arxiv.org/abs/1811.01287).
    - "sag": the score is a graph convolution, so that neighbours have a say (Lee, Lee and Kang 2019,
      https://arxiv.org/abs/1904.08082).
    - "asap": every node is the centre of a cluster, itself and its neighbours, whose features attention averages;
      the clusters with the highest fitness stay, and are linked as their members were (Ranjan, Sanyal and Talukdar
      2020, https://arxiv.org/abs/1911.07979). Weights of the new links, which GCN reads, count as given.

    Of nodes with equal scores, as the leaves of a star have, the first ones stay. Edges keep their features with "topk"
    and "sag"; the links of "asap" are new ones, which have none, so a network that reads edges cannot go between them.

    Args:
        gnn: The layers, norms, dropout and jumping knowledge, which joins what a node that stayed to the end had in all
            layers.
        coarsen: "topk", "sag" or "asap".
        ratio: Share of a graph's nodes that stays after a layer, between 0 and 1.

    Raises:
        ValueError: If the ratio is none, there is one layer only, or the coarsening is not one of the three.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> ring = torch.stack([torch.arange(9), torch.arange(9).roll(1)])
        >>> x, kept = CoarsenedGNN(GCN(4, 8, num_layers=3), "topk")(torch.rand(9, 4), ring, torch.zeros(9).long())
        >>> x.shape, kept.shape  # 9 nodes, then 5, then 3
        (torch.Size([3, 8]), torch.Size([3]))
    """

    def __init__(self, gnn: BasicGNN, coarsen: Coarsening, ratio: float = 0.5):
        super().__init__()
        if coarsen not in COARSENINGS:
            raise ValueError(f"expected coarsen {', '.join(COARSENINGS)}, got '{coarsen}'; choose one of them")
        if not 0 < ratio < 1:  # PyG reads 1.0 as one node
            raise ValueError(f"expected a ratio between 0 and 1, the share of nodes that stays, got {ratio}; change it")
        if gnn.num_layers < 2:
            raise ValueError("expected two layers or more, to coarsen between them, got 1; raise layers")
        self.gnn = gnn
        self.pools = nn.ModuleList(
            COARSENINGS[coarsen](gnn.hidden_channels, ratio=float(ratio)) for _ in range(gnn.num_layers - 1)
        )
        pool: Any
        for pool in self.pools:
            pool.select = Select(pool.select.in_channels, float(ratio))
            if coarsen != "topk":  # the layer's own score is what is ranked, not a number times it
                nn.init.ones_(pool.select.weight).requires_grad_(False)

    def forward(
        self, x: Tensor, edge_index: Tensor, batch: Tensor, edge_attr: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features of the nodes that stayed, (M, C), and which of the N nodes they are, (M,).

        Behind "asap" a row stands for the cluster around that node.

        Args:
            x: Node features, (N, C).
            edge_index: Ends of the edges, (2, E).
            batch: The graph of each node, (N,).
            edge_attr: Features of the edges, (E, F), for a network that reads them.
        """
        gnn, levels = self.gnn, []
        # Features of the edges, or their weights, of which "asap" makes its own.
        weight = x.new_ones(edge_index.shape[1]) if edge_attr is None else edge_attr
        kept = torch.arange(len(x), device=x.device)
        for number, (conv, norm) in enumerate(zip(gnn.convs, gnn.norms, strict=True)):
            read = gnn.supports_edge_weight if edge_attr is None else gnn.supports_edge_attr
            x = conv(x, edge_index, weight) if read else conv(x, edge_index)
            last = number == len(self.pools)
            if not last or gnn.jk_mode is not None:  # as PyG's models do
                x = gnn.dropout(gnn.act(norm(x)))
                levels.append(x)
            if not last:
                pool = self.pools[number]
                # In half precision many scores would be equal.
                with torch.autocast(x.device.type, enabled=False), warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "Sparse (CSR|invariant)")  # what ASAP computes with
                    x, edge_index, weight, batch, best, *_ = pool(x.to(weight.dtype), edge_index, weight, batch)
                weight = weight.detach()  # torch knows no gradient of the sparse product that made it
                kept, levels = kept[best], [level[best] for level in levels]
        x = gnn.jk(levels) if hasattr(gnn, "jk") else x
        return (gnn.lin(x) if hasattr(gnn, "lin") else x), kept
