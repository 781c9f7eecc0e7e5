"""The networks: PyG's own models by name, its convolutions for edges that have no model there, and any other class."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch_geometric.nn import GINEConv, MessagePassing, NNConv, TransformerConv, models
from torch_geometric.nn.models.basic_gnn import BasicGNN

from tasks.task.network import build_network, passes, try_out

Conv = Literal["gin", "gcn", "sage", "gat", "pna", "gine", "gatv2", "transformer", "nnconv"]


class GINE(BasicGNN):  # type: ignore[misc]  # PyG has no types
    """GIN whose messages are ReLU(xⱼ + W eⱼᵢ) (Hu et al. 2020, https://arxiv.org/abs/1905.12265, as `GINEConv`).

    Args, shapes and the rest are those of PyG's models, such as `torch_geometric.nn.models.GIN`; ``edge_dim`` is the
    number of edge features.
    """

    supports_edge_weight = False
    supports_edge_attr = True

    def init_conv(self, in_channels: int, out_channels: int, **kwargs: Any) -> MessagePassing:
        """One layer, with GIN's two-layer perceptron."""
        widths = [in_channels, out_channels, out_channels]
        perceptron = models.MLP(widths, act=self.act, norm=self.norm, norm_kwargs=self.norm_kwargs)
        return GINEConv(perceptron, **kwargs)


class Transformer(BasicGNN):  # type: ignore[misc]
    """Attention by dot products, with edge features in keys and values (Shi et al. 2021, https://arxiv.org/abs/2009.03509).

    As `TransformerConv`; ``heads`` divide the channels, as in PyG's `GAT`.
    """

    supports_edge_weight = False
    supports_edge_attr = True

    def init_conv(self, in_channels: int, out_channels: int, *, heads: int = 1, **kwargs: Any) -> MessagePassing:
        """One layer."""
        return TransformerConv(in_channels, out_channels // heads, heads=heads, **kwargs)


class EdgeConditioned(BasicGNN):  # type: ignore[misc]
    """Messages A(eⱼᵢ) xⱼ, whose matrix a small network makes of the edge (Gilmer et al. 2017, as `NNConv`).

    Every edge has a matrix of its own: E · C² numbers at a time for C channels, https://arxiv.org/abs/1704.01212.
    """

    supports_edge_weight = False
    supports_edge_attr = True

    def init_conv(self, in_channels: int, out_channels: int, *, edge_dim: int, **kwargs: Any) -> MessagePassing:
        """One layer; a mean over neighbours keeps its numbers small."""
        network = nn.Sequential(nn.Linear(edge_dim, 32), nn.ReLU(), nn.Linear(32, in_channels * out_channels))
        return NNConv(in_channels, out_channels, network, aggr="mean", **kwargs)


NETWORKS: dict[str, tuple[type[BasicGNN], dict[str, Any]]] = {
    "gin": (models.GIN, {}),
    "gcn": (models.GCN, {}),
    "sage": (models.GraphSAGE, {}),
    "gat": (models.GAT, {}),
    "pna": (
        models.PNA,
        {"aggregators": ["mean", "min", "max", "std"], "scalers": ["identity", "amplification", "attenuation"]},
    ),
    "gine": (GINE, {}),
    "gatv2": (models.GAT, {"v2": True}),
    "transformer": (Transformer, {}),
    "nnconv": (EdgeConditioned, {}),
}
"""Models, and the options that they have here."""

WITH_EDGES = [name for name, (model, _) in NETWORKS.items() if model.supports_edge_attr]
"""Those that read edge features."""


def build_model(
    conv: str, spec: dict[str, Any], *, hidden: int, layers: int, jk: str | None, norm: str | None, dropout: float
) -> BasicGNN:
    """Build a network for graphs of a spec.

    Args:
        conv: One of `NETWORKS`.
        spec: What the data says of itself: ``channels``, ``edge_features``, and for PNA ``degree_histogram``.
        hidden: Channels of every layer and of the result.
        layers: Message-passing layers.
        jk: PyG's jumping knowledge.
        norm: PyG's name of a norm between layers.
        dropout: Dropout after every layer.

    Raises:
        ValueError: If there is no such network, or it needs edge features and there are none.

    Example:
        >>> spec = {"channels": 7, "edge_features": 4}
        >>> build_model("gine", spec, hidden=8, layers=2, jk=None, norm=None, dropout=0.0)
        GINE(7, 8, num_layers=2)
    """
    if conv not in NETWORKS:
        raise ValueError(f"expected conv {', '.join(get_args(Conv))}, got '{conv}'; choose one of them")
    model, own = NETWORKS[conv]
    own, edges = dict(own), spec.get("edge_features") or None
    if edges is None and conv in ("gine", "nnconv"):
        raise ValueError(f"expected edge features for conv {conv}, got graphs without; choose gin, pna or gatv2")
    if model.supports_edge_attr:
        own["edge_dim"] = edges
    if conv == "pna":
        own["deg"] = torch.tensor(spec["degree_histogram"])
    # A last batch may hold one graph of one node, which has no variance; a layer norm over more than the node would
    # see its batch-mates.
    norm_options = {"batch_norm": {"allow_single_element": True}, "layer_norm": {"mode": "node"}, None: None}
    return model(
        in_channels=spec["channels"],
        hidden_channels=hidden,
        num_layers=layers,
        out_channels=None if jk is None else hidden,
        jk=jk,
        norm=norm,
        norm_kwargs=norm_options[norm],
        dropout=dropout,
        **own,
    )


class OwnNetwork(nn.Module):
    """Any module that takes ``(x, edge_index)`` and, where it has arguments of these names, more, to node features.

    ``edge_attr``, ``batch`` and ``batch_size`` are handed on by name. In its constructor ``in_channels``, ``edge_dim``
    and ``deg`` (PNA's histogram) are filled in from the data unless they are given.

    Args:
        path: Dotted path of its class (`tasks.task.network.build_network`).
        arguments: What its constructor is given.
        spec: What the data says of itself.

    Raises:
        ValueError: If it cannot be built, fails on a small graph, or does not return a row for each node.

    Example:
        >>> spec = {"channels": 7, "degree_histogram": [0, 4, 2]}
        >>> OwnNetwork("torch_geometric.nn.GraphSAGE", {"hidden_channels": 16, "num_layers": 3}, spec).out_channels
        16
    """

    def __init__(self, path: str, arguments: dict[str, Any], spec: dict[str, Any]):
        super().__init__()
        edges = spec.get("edge_features") or 0
        known = {"in_channels": spec["channels"], "deg": torch.tensor(spec["degree_histogram"])}
        known |= {"edge_dim": edges} if edges else {}
        if path.startswith("torch_geometric."):  # whose models hand on some of them without naming them
            unnamed = {"GAT": ("edge_dim",), "PNA": ("edge_dim", "deg")}.get(path.rpartition(".")[2], ())
            arguments = {**{name: known[name] for name in unnamed if name in known}, **arguments}
        self.network = build_network(path, arguments, known)
        self.takes = passes(self.network) & {"edge_attr", "batch", "batch_size"}
        self.supports_edge_attr = "edge_attr" in self.takes and getattr(self.network, "supports_edge_attr", True)
        ends = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        told = {"edge_attr": torch.zeros(4, edges)} if edges and self.supports_edge_attr else {}
        index = torch.zeros(3, dtype=torch.long)
        found = try_out(path, self.network, torch.zeros(3, spec["channels"]), ends, **self._told(told, index, 1))
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != 3:
            what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"encoder {path}: expected features of the nodes, (3, C) for a graph of 3, got {what}")
        self.out_channels = found.shape[1]

    def _told(self, told: dict[str, Any], batch: Tensor, batch_size: int) -> dict[str, Any]:
        every = {**told, "batch": batch, "batch_size": batch_size}
        return {name: value for name, value in every.items() if name in self.takes}

    def forward(self, x: Tensor, edge_index: Tensor, *, batch: Tensor, batch_size: int, **told: Tensor) -> Tensor:
        """Features of the nodes, (N, C)."""
        features: Tensor = self.network(x, edge_index, **self._told(told, batch, batch_size))
        return features
