"""What tells graphs apart, whatever they are called and however their nodes are numbered."""

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from tasks.data.digests import digest
from tasks.graph.colours import weisfeiler_leman


def graph_contents(graphs: list[Data], rounds: int = 4) -> list[int]:
    """What tells graphs apart whatever the order of their nodes: equal for equal graphs, and hardly ever for others.

    It is made of the colours of Weisfeiler and Leman's refinement, begun with the nodes' features, and with the edges'
    where there are any; graphs that the refinement cannot tell apart (regular ones without features) count as equal.

    Args:
        graphs: Graphs as they were read.
        rounds: How far, in edges, the colours look.
    """
    keys = ("x", "edge_index", "edge_attr")
    together = Batch.from_data_list(
        [Data(**{key: one[key] for key in keys if one.get(key) is not None}, num_nodes=one.num_nodes) for one in graphs]
    )
    bits = (_kinds(together.x, together.num_nodes)[:, None] >> torch.arange(32)) & 1  # which colours begin with
    edges = _kinds(together.edge_attr, together.num_edges)
    last = weisfeiler_leman(bits, together.edge_index, rounds, edges)[-1].numpy()
    cuts = np.split(last, together.ptr[1:-1].numpy())
    return [digest(str(one.num_edges), np.sort(cut).tobytes()) for one, cut in zip(graphs, cuts, strict=True)]


def _kinds(columns: Tensor | None, count: int) -> Tensor:
    """A number for each row, the same for equal rows."""
    if columns is None:
        return torch.zeros(count, dtype=torch.long)
    kinds: Tensor = torch.unique(columns, dim=0, return_inverse=True)[1]
    return kinds
