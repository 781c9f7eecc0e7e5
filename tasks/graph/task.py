"""Classify or regress graphs: one of PyG's own models, a pool over the nodes, a linear head."""

import csv
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.utils import degree, to_undirected

from tasks.graph.coarsened import CoarsenedGNN, Coarsening
from tasks.graph.colours import ColourFeatures, kinds_of
from tasks.graph.crops import keep_pairs
from tasks.graph.features import own_columns
from tasks.graph.floors import graph_floors, molecule_floors
from tasks.graph.names import edge_kinds, node_names
from tasks.graph.networks import WITH_EDGES, Conv, OwnNetwork, build_model
from tasks.graph.transforms import own_edges, real
from tasks.task.base import PoolingTask
from tasks.task.decisions import Decision


class GraphTask(PoolingTask):
    """A message-passing network whose nodes are pooled: classification or regression of whole graphs.

    Args:
        spec: What the data says of itself (`tasks.graph.GraphData.spec`).
        conv: The network (`tasks.graph.networks`): GIN (Xu et al. 2019), GCN (Kipf and Welling 2017), GraphSAGE
            (Hamilton et al. 2017), GAT (Veličković et al. 2018) or PNA (Corso et al. 2020), each as PyG's model of that
            name; for edge features also "gine" (Hu et al. 2020), "gatv2" (Brody et al. 2022), "transformer" (Shi et al.
            2021) or "nnconv" (Gilmer et al. 2017). GIN, GCN and GraphSAGE do not read edge features, and say so.
        encoder: Path of another network's class (`tasks.graph.networks.OwnNetwork`) instead of ``conv``, whose options
            down to ``dropout`` it does not read.
        encoder_args: Arguments of its constructor.
        hidden: Channels of every layer, and of what is pooled.
        layers: Message-passing layers: how far, in edges, a node looks.
        jk: Jumping knowledge (Xu et al. 2018): what a node keeps of all layers, projected to ``hidden`` channels; None
            keeps the last layer.
        norm: PyG's name of a norm between layers, or None. Not its graph norms: GIN applies them inside its layers over
            the whole batch, so that a graph's result would depend on its batch-mates.
        dropout: Dropout on the node features after every layer.
        drop_edges: Augmentation: share of the edges left out in training, with all arcs between their two nodes
            (DropEdge, Rong et al. 2020).
        coarsen: Hierarchical pooling: after every layer but the last, "topk", "sag" or "asap" chooses the nodes that go
            on (`tasks.graph.coarsened.CoarsenedGNN`), and those that stay to the end are pooled. None keeps all nodes.
        ratio: Share of a graph's nodes that stays after a layer, where ``coarsen`` is set.
        colour_channels: Channels beside the network's that are learned of each Weisfeiler-Leman colour, where the data
            lists them (``colours`` of `tasks.graph.GraphData`).
        colour_dropout: Share of a graph's colours that are left out in training.
        options: Options of `tasks.task.base.PoolingTask` and of the pool.
    """

    element = "node"
    sizes_vary = True
    feature_mean: Tensor
    feature_std: Tensor

    def __init__(
        self,
        spec: dict[str, Any],
        *,
        conv: Conv = "gin",
        encoder: str | None = None,
        encoder_args: dict[str, Any] | None = None,
        hidden: int = 64,
        layers: int = 4,
        jk: Literal["last", "cat", "max", "lstm"] | None = "cat",
        norm: Literal["batch_norm", "layer_norm"] | None = "batch_norm",
        dropout: float = 0.0,
        drop_edges: float = 0.0,
        coarsen: Coarsening | None = None,
        ratio: float = 0.5,
        colour_channels: int = 16,
        colour_dropout: float = 0.0,
        **options: Any,
    ):
        if encoder is not None and coarsen is not None:
            raise ValueError(f"expected coarsen null with an encoder of one's own, got {coarsen}; leave one out")
        own = None if encoder is None else OwnNetwork(encoder, encoder_args or {}, spec)
        colours, width = spec.get("colours"), hidden if own is None else own.out_channels
        super().__init__(spec, layout="[n] c", channels=width + (colour_channels if colours else 0), **options)
        self.save_hyperparameters()
        self.drop_edges = drop_edges
        sizes: dict[str, Any] = {"hidden": hidden, "layers": layers, "jk": jk, "norm": norm, "dropout": dropout}
        network = build_model(conv, spec, **sizes) if own is None else own
        self.encoder = network if coarsen is None else CoarsenedGNN(network, coarsen, ratio)
        self.reads_edges = bool(spec.get("edge_features")) and network.supports_edge_attr
        if coarsen == "asap" and self.reads_edges:
            raise ValueError(
                "expected coarsen topk or sag with a network that reads edge features, got asap, whose new links have "
                "none; change it, or choose conv gin"
            )
        self.colours = ColourFeatures(**colours, channels=colour_channels, dropout=colour_dropout) if colours else None
        self.register_buffer("feature_mean", torch.tensor(spec["feature_mean"]), persistent=False)
        self.register_buffer("feature_std", torch.tensor(spec["feature_std"]), persistent=False)

    def on_fit_start(self) -> None:
        """Say which edge features are not read."""
        super().on_fit_start()
        dropped = 0 if self.reads_edges else self.spec.get("edge_features", 0)
        if dropped:
            own = isinstance(self.encoder, OwnNetwork)
            other = "forward has no edge_attr" if own else f"--model.conv {', '.join(WITH_EDGES)} would"
            rank_zero_info(f"The {dropped} features of edges are not read; {other}")

    def encode(self, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        """Features of all nodes, (N, C), and the graph of each; a mask leaves out nodes that did not stay.

        Behind "asap" what stays are clusters, and each stands at the node in its centre.
        """
        x = (batch.x - self.feature_mean) / self.feature_std  # (N, C)
        edges, told = batch.edge_index, {"edge_attr": batch.edge_attr} if self.reads_edges else {}
        if self.training and self.drop_edges:
            kept = keep_pairs(edges, batch.num_nodes, self.drop_edges)
            edges, told = edges[:, kept], {name: values[kept] for name, values in told.items()}
        sets = {"index": batch.batch, "dim_size": batch.num_graphs}
        if isinstance(self.encoder, CoarsenedGNN):
            x, kept = self.encoder(x, edges, batch.batch, **told)
            x = x.new_zeros(batch.num_nodes, x.shape[1]).index_copy(0, kept, x)
            sets["mask"] = torch.zeros_like(batch.batch, dtype=torch.bool).index_fill(0, kept, True)
        else:
            x = self.encoder(x, edges, batch=batch.batch, batch_size=batch.num_graphs, **told)
        if "virtual" in batch:  # these pass messages on, and are not pooled
            sets["mask"] = sets["mask"] & ~batch.virtual if "mask" in sets else ~batch.virtual
        if not isinstance(self.encoder, OwnNetwork):
            # PyG's models end in a linear map. With a linear head, whose maps are exact, nothing would come between it
            # and the layers' features; a ReLU here lets nodes count what they have or lack.
            x = x.relu()  # (N, hidden)
        if self.colours is not None:
            labels = batch.x[:, self.spec["label_columns"]]
            x = torch.cat([x, self.colours(labels, own_edges(batch), batch.batch)], 1)
        return x, sets

    place_names = ("node",)

    def places(self, batch: Batch, x: Tensor) -> Tensor:
        """The number of each node in its graph, (N, 1)."""
        places: Tensor = (torch.arange(len(x), device=x.device) - batch.ptr[batch.batch])[:, None].float()
        return places

    def target(self, batch: Batch) -> Tensor:
        """Class numbers (B,), or values (B, T)."""
        target: Tensor = batch.y
        return target

    def ids(self, batch: Batch) -> list[str]:
        """The graphs' names."""
        ids: list[str] = batch.id
        return ids

    def truth(self, batch: Batch) -> list[Tensor] | None:
        """The nodes that made each graph's class, where the data knows them (`tasks.graph.GraphData`)."""
        return self.to_inputs(batch.truth, batch) if "truth" in batch else None

    def to_inputs(self, maps: Tensor, batch: Batch) -> list[Tensor]:
        """One value a node, (N,), to one tensor a graph."""
        return list(torch.split(maps, batch.ptr.diff().tolist()))

    def rival_maps(self, batch: Batch) -> dict[str, list[Tensor]]:
        """What a graph shows without a network: how many neighbours each node has."""
        degrees = degree(batch.edge_index[1], batch.num_nodes)
        if "virtual" in batch:
            degrees = degrees.masked_fill(batch.virtual, 0)
        return {"degree": self.to_inputs(degrees, batch)}

    def hide(self, batch: Batch, hidden: list[Tensor]) -> Batch:
        """Cut hidden nodes off from their neighbours and give them the training graphs' mean features."""
        gone = torch.cat(hidden)
        batch = batch.clone()
        batch.x = torch.where(gone[:, None], self.feature_mean.to(batch.x), batch.x)
        kept = ~gone[batch.edge_index].any(0)
        batch.edge_index = batch.edge_index[:, kept]
        if batch.edge_attr is not None:
            batch.edge_attr = batch.edge_attr[kept]
        return batch

    def floors(self, batch: Batch) -> dict[str, Sequence[Any]]:
        """Counts of the nodes' labels, degrees and neighbourhoods, and means of what else the data know of them."""
        if "virtual" in batch:
            batch = Batch.from_data_list([real(graph)[0] for graph in batch.to_data_list()])
        labels = self.spec["label_columns"]
        others = sorted(set(range(self.spec["channels"] - own_columns(self.spec))) - set(labels))
        told = self.spec["features"]
        plain = self.spec.get("edge_features") and not any(told["edge_mean"]) and set(told["edge_std"]) == {1.0}
        kinds = kinds_of(batch.edge_attr) if plain else None
        found = graph_floors(batch.x[:, labels], batch.x[:, others], batch.edge_index, batch.ptr, kinds)
        return found | molecule_floors(batch.smiles) if "smiles" in batch else found

    def inputs(self, batch: Batch) -> Tensor:
        """The nodes' features."""
        x: Tensor = batch.x
        return x

    def with_inputs(self, batch: Batch, x: Tensor) -> Batch:
        """Other features on the same nodes."""
        batch = batch.clone()
        batch.x = x
        return batch

    def edges(self, batch: Batch) -> Tensor:
        """The edges, both ways."""
        edges: Tensor = to_undirected(batch.edge_index, num_nodes=batch.num_nodes)
        return edges

    def draw(self, batch: Batch, number: int, shown: Tensor, decision: Decision, path: Path) -> Path:
        """Draw the graph, each node in the colour of what it added; a molecule as RDKit does, as SVG."""
        graph, shown = real(batch[number], shown)
        title = decision.title + (f"\n{graph.smiles}" if "smiles" in graph and graph.smiles != decision.id else "")
        if "smiles" in graph and find_spec("rdkit"):
            from tasks.graph.molecule_pictures import atoms_match, draw_molecule

            if atoms_match(graph.smiles, graph.edge_index, graph.num_nodes):
                return draw_molecule(graph.smiles, shown, path.with_suffix(".svg"), title=title, label=decision.label)
        from tasks.graph.pictures import draw_graph

        return draw_graph(
            graph.edge_index,
            shown,
            path,
            title=title,
            label=decision.label,
            names=self.node_names(graph),
            kinds=edge_kinds(graph, self.spec),
            truth=graph.truth if "truth" in graph else None,
            truth_label="nodes that decide",
        )

    def paint(self, batch: Batch, number: int, panels: Mapping[str, Tensor], title: str, path: Path) -> None:
        """Draw the graph once for each panel, its nodes in their colours."""
        from tasks.graph.pictures import paint_graph

        graph, *colours = real(batch[number], *panels.values())
        painted = dict(zip(panels, colours, strict=True))
        paint_graph(graph.edge_index, painted, path, title=title, names=self.node_names(graph))

    def show(self, batch: Batch, number: int, title: str, path: Path) -> list[Path]:
        """Draw the graph, all nodes in grey."""
        self.paint(batch, number, {"": torch.full((batch[number].num_nodes, 3), 0.85)}, title, path)
        return []

    def read(self, source: str) -> Batch:
        """One graph of a TU folder, ``FOLDER/NAME-17``, or one molecule, a SMILES, as a batch."""
        from tasks.graph.single import read_one

        return Batch.from_data_list([read_one(source, self.spec)])

    def node_names(self, graph: Data) -> list[str] | None:
        """A short text for each node, where one is known (`tasks.graph.names`)."""
        return node_names(graph, self.spec)

    def export(self, batch: Batch, number: int, shown: Tensor, decision: Decision, stem: Path) -> list[Path]:
        """Write what each node added as CSV: its number from 0, its name if nodes have names, its value."""
        graph, shown = real(batch[number], shown)
        names = self.node_names(graph)
        path = stem.with_name(f"{stem.name}_map.csv")
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["node", *(["name"] if names else []), "value"])
            for node, value in enumerate(shown.tolist()):
                writer.writerow([node, *([names[node]] if names else []), f"{value:.8g}"])
        return [path]
