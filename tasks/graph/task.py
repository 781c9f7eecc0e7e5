"""Classify or regress graphs: one of PyG's own models, a pool over the nodes, a linear head."""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch_geometric.data import Batch
from torch_geometric.nn import models
from torch_geometric.utils import degree

from tasks.base import PoolingTask
from tasks.graph.pictures import draw_batch

_MODELS = {"gin": models.GIN, "gcn": models.GCN, "sage": models.GraphSAGE, "gat": models.GAT, "pna": models.PNA}


class GraphTask(PoolingTask):
    """A message-passing network whose nodes are pooled: classification or regression of whole graphs.

    Args:
        spec: What the data says of itself (`tasks.graph.GraphData.spec`).
        conv: The network: GIN (Xu et al. 2019), GCN (Kipf and Welling 2017), GraphSAGE (Hamilton et al. 2017), GAT
            (Veličković et al. 2018) or PNA (Corso et al. 2020), each as PyG's model of that name.
        hidden: Channels of every layer, and of what is pooled.
        layers: Message-passing layers: how far, in edges, a node looks.
        jk: Jumping knowledge (Xu et al. 2018): what a node keeps of all layers, projected to ``hidden`` channels; None
            keeps the last layer.
        norm: PyG's name of a norm between layers, or None. Not its graph norms: GIN applies them inside its layers over
            the whole batch, so that a graph's result would depend on its batch-mates.
        dropout: Dropout on the node features after every layer.
        options: Options of `tasks.base.PoolingTask` and of the pool.
    """

    def __init__(
        self,
        spec: dict[str, Any],
        *,
        conv: Literal["gin", "gcn", "sage", "gat", "pna"] = "gin",
        hidden: int = 64,
        layers: int = 4,
        jk: Literal["last", "cat", "max", "lstm"] | None = "cat",
        norm: Literal["batch_norm", "layer_norm"] | None = "batch_norm",
        dropout: float = 0.0,
        **options,
    ):
        if conv not in _MODELS:
            raise ValueError(f"expected conv {', '.join(_MODELS)}, got '{conv}'; choose one of them")
        super().__init__(spec, layout="[n] c", channels=hidden, **options)
        self.save_hyperparameters()
        own: dict[str, Any] = {}
        if conv == "pna":
            own["aggregators"] = ["mean", "min", "max", "std"]
            own["scalers"] = ["identity", "amplification", "attenuation"]
            own["deg"] = torch.tensor(spec["degree_histogram"])
        # A last batch may hold one graph of one node, which has no variance; a layer norm over more than the node would
        # see its batch-mates.
        norm_options = {"batch_norm": {"allow_single_element": True}, "layer_norm": {"mode": "node"}, None: None}
        self.encoder = _MODELS[conv](
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
        self.register_buffer("feature_mean", torch.tensor(spec["feature_mean"]), persistent=False)
        self.register_buffer("feature_std", torch.tensor(spec["feature_std"]), persistent=False)

    def encode(self, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        """Features of all nodes, (N, hidden), and the graph of each."""
        x = (batch.x - self.feature_mean) / self.feature_std  # (N, C)
        x = self.encoder(x, batch.edge_index, batch=batch.batch, batch_size=batch.num_graphs)
        # PyG's models end in a linear map. With a linear head, whose maps are exact, nothing would come between it and
        # the layers' features; a ReLU here lets nodes count what they have or lack.
        x = x.relu()  # (N, hidden)
        return x, {"index": batch.batch, "dim_size": batch.num_graphs}

    def target(self, batch: Batch) -> Tensor:
        """Class numbers (B,), or values (B, T)."""
        return batch.y

    def ids(self, batch: Batch) -> list[str]:
        """The graphs' names."""
        return batch.id

    def truth(self, batch: Batch) -> list[Tensor] | None:
        """The nodes that made each graph's class, where the data knows them (`tasks.graph.GraphData`)."""
        return self.to_inputs(batch.truth, batch) if "truth" in batch else None

    def to_inputs(self, maps: Tensor, batch: Batch) -> list[Tensor]:
        """One value a node, (N,), to one tensor a graph."""
        return list(maps.split(batch.ptr.diff().tolist()))

    def rival_maps(self, batch: Batch) -> dict[str, list[Tensor]]:
        """What a graph shows without a network: how many neighbours each node has."""
        degrees = degree(batch.edge_index[1], batch.num_nodes)
        return {"degree": self.to_inputs(degrees, batch)}

    def hide(self, batch: Batch, hidden: list[Tensor]) -> Batch:
        """Cut hidden nodes off from their neighbours and give them the training graphs' mean features."""
        gone = torch.cat(hidden)
        batch = batch.clone()
        batch.x = torch.where(gone[:, None], self.feature_mean.to(batch.x), batch.x)
        batch.edge_index = batch.edge_index[:, ~gone[batch.edge_index].any(0)]
        return batch

    def save_maps(self, batch: Batch, folder: Path, limit: int) -> list[Path]:
        """Draw up to ``limit`` graphs, each node in the colour of what it added to the predicted output."""
        predictions, maps = self.explain(batch)  # (B, K), (N, outputs)
        graphs = batch.to_data_list()[:limit]
        values, titles, labels = [], [], []
        for number, graph in enumerate(graphs):
            column, title, label = self._caption(predictions[number].tolist(), graph.y[0])
            values.append(maps[batch.ptr[number] : batch.ptr[number + 1], column])
            titles.append(f"{graph.id}: {title}")
            labels.append(label)
        return draw_batch(graphs, values, titles, labels, folder)

    def _caption(self, predicted: list[float], target: Tensor) -> tuple[int, str, str]:
        """Which output's map to draw for a sample, what to write over it, and what its numbers are."""
        if self.kind == "regression":
            return 0, f"target {float(target[0]):.4g}, prediction {predicted[0]:.4g}", f"adds to {self.classes[0]}"
        best = max(range(len(predicted)), key=predicted.__getitem__)
        target_name, prediction = self.classes[int(target)], self.classes[best]
        title = f"target {target_name}, prediction {prediction} (p = {predicted[best]:.2f})"
        if self.kind == "binary":
            return 0, title, f"logit: speaks for {self.classes[0]} (−) or {self.classes[1]} (+)"
        return best, title, f"logit: speaks against (−) or for (+) {self.classes[best]}"
