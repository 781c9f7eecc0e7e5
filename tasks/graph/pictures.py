"""Draw a graph with a number at every node: red speaks for, blue against."""

import re
from collections.abc import Sequence
from pathlib import Path

import networkx
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

_UNTANGLED = 150  # nodes up to which Kamada-Kawai, which compares all pairs, is quick


def node_positions(edge_index: Tensor, nodes: int) -> np.ndarray:
    """Place the nodes so that distances look like numbers of edges; the same places at every call.

    Kamada and Kawai (1989) for a connected graph of moderate size, else springs (Fruchterman and Reingold 1991).

    Args:
        edge_index: (2, E) arcs.
        nodes: Number of nodes; nodes without edges count too.

    Returns:
        (N, 2) coordinates.
    """
    graph = networkx.Graph()
    graph.add_nodes_from(range(nodes))
    graph.add_edges_from(edge_index.t().tolist())
    if 0 < nodes <= _UNTANGLED and networkx.is_connected(graph):
        places = networkx.kamada_kawai_layout(graph)
    else:
        places = networkx.spring_layout(graph, method="force", iterations=50, seed=0)
    return np.array([places[node] for node in range(nodes)]).reshape(nodes, 2)


def draw_graph(
    edge_index: Tensor,
    values: Tensor,
    path: Path,
    *,
    title: str,
    label: str = "contribution",
    truth: Tensor | None = None,
    truth_label: str = "truth",
) -> Path:
    """Draw one graph into a PNG.

    Args:
        edge_index: (2, E) arcs.
        values: (N,) signed number of each node; the colours are symmetric about 0.
        path: File to write.
        title: Over the picture.
        label: Beside the colour bar: what the numbers are.
        truth: (N,) bool: nodes to outline.
        truth_label: What the outlined nodes are.

    Returns:
        ``path``.
    """
    if values.ndim != 1:
        raise ValueError(f"expected one value per node, shape (N,), got {tuple(values.shape)}; choose one output's map")
    values = values.detach().float().cpu().numpy()
    edge_index = edge_index.cpu()
    places = node_positions(edge_index, len(values))
    limit = float(np.abs(values).max(initial=0)) or 1.0  # a map of zeros is drawn too, all white
    figure = Figure(figsize=(6, 5), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a screen and without touching the user's pyplot state
    axes = figure.add_subplot()
    edges = np.unique(np.sort(edge_index.t().numpy(), axis=1), axis=0)  # both directions are one line
    axes.add_collection(LineCollection(list(places[edges]), colors="0.6", linewidths=1, zorder=1))
    size = float(np.clip(6000 / len(values), 12, 220))
    scale = ScalarMappable(Normalize(-limit, limit), "RdBu_r")
    axes.scatter(*places.T, s=size, c=scale.to_rgba(values), edgecolors="0.4", linewidths=0.6, zorder=2)
    if truth is not None and bool(truth.any()):
        ringed = places[truth.cpu().numpy()]
        ring = {"s": 1.8 * size, "facecolors": "none", "edgecolors": "black", "linewidths": 2}
        axes.scatter(*ringed.T, **ring, zorder=3, label=truth_label)
        axes.legend(loc="lower right", frameon=False)
    axes.set_title(title, fontsize=10)
    axes.set_axis_off()
    axes.margins(0.08)
    figure.colorbar(scale, ax=axes, label=label, shrink=0.8)
    figure.savefig(path, dpi=130)
    return path


def draw_batch(
    graphs: Sequence, values: Sequence[Tensor], titles: Sequence[str], labels: Sequence[str], folder: Path
) -> list[Path]:
    """Draw each graph of a batch into ``folder``, in a file named by its id; outline its `truth` where it has one.

    Args:
        graphs: PyG graphs with an `id`.
        values: (N,) numbers of each graph's nodes.
        titles: Over each picture.
        labels: Beside each colour bar.
        folder: Where to write.

    Returns:
        The files.
    """
    return [
        draw_graph(
            graph.edge_index,
            value,
            folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '_', graph.id)}.png",
            title=title,
            label=label,
            truth=graph.truth if "truth" in graph else None,
            truth_label="nodes that decide",
        )
        for graph, value, title, label in zip(graphs, values, titles, labels, strict=True)
    ]
