"""Draw a graph with a number at every node: red speaks for, blue against."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import networkx
import numpy as np
from matplotlib.collections import LineCollection
from torch import Tensor

from tasks.outputs.drawing import bar, canvas, centred, save

_UNTANGLED = 150  # nodes up to which Kamada-Kawai, which compares all pairs, is quick


def node_positions(edge_index: Tensor, nodes: int) -> np.ndarray:
    """Place the nodes so that distances look like numbers of edges; the same places at every call.

    Kamada and Kawai (1989) for a connected graph of moderate size, else springs (Fruchterman and Reingold 1991). The
    longest extent lies flat.

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
        found = networkx.kamada_kawai_layout(graph)
    else:
        found = networkx.spring_layout(graph, method="force", iterations=50, seed=0)
    places = np.array([found[node] for node in range(nodes)]).reshape(nodes, 2)
    if nodes < 2:
        return places
    places = places - places.mean(0)
    turned: np.ndarray = places @ np.linalg.svd(places, full_matrices=False)[2].T
    return turned


def draw_graph(
    edge_index: Tensor,
    values: Tensor,
    path: Path,
    *,
    title: str,
    label: str = "contribution",
    names: Sequence[str] | None = None,
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
        names: Short text in each node, such as an atom's symbol; four letters are shown.
        truth: (N,) bool: nodes to outline.
        truth_label: What the outlined nodes are.

    Returns:
        ``path``.
    """
    if values.ndim != 1:
        raise ValueError(f"expected one value per node, shape (N,), got {tuple(values.shape)}; choose one output's map")
    numbers = values.detach().float().cpu().numpy()
    edge_index = edge_index.cpu()
    places = node_positions(edge_index, len(values))
    figure = canvas(7, 5)
    axes = figure.add_subplot()
    axes.set_aspect("equal", adjustable="datalim")  # also a path, which has no height, gets a place to be drawn
    edges = np.unique(np.sort(edge_index.t().numpy(), axis=1), axis=0)  # both directions are one line
    axes.add_collection(LineCollection(list(places[edges]), colors="0.6", linewidths=1.2, zorder=1))
    size = float(np.clip(9000 / len(values), 14, 320))
    scale = centred(numbers)
    colours = scale.to_rgba(numbers)
    axes.scatter(places[:, 0], places[:, 1], s=size, c=colours, edgecolors="0.35", linewidths=0.7, zorder=2)
    if truth is not None and bool(truth.any()):
        ringed = places[truth.cpu().numpy()]
        axes.scatter(ringed[:, 0], ringed[:, 1], s=1.9 * size, facecolors="none", edgecolors="black", linewidths=1.8,
                     zorder=3, label=truth_label)  # fmt: skip
        figure.legend(loc="outside lower center", frameon=False, markerscale=min(1, (120 / size) ** 0.5))
    if names is not None:
        for place, name, colour in zip(places, names, colours, strict=True):
            dark = colour[:3] @ (0.3, 0.6, 0.1) < 0.5  # white letters on dark nodes
            text = {"size": min(9, 0.55 * size**0.5), "color": "white" if dark else "black"}
            axes.annotate(name[:4], place, ha="center", va="center", zorder=4, **text)
    axes.set_axis_off()
    axes.margins(0.09)
    bar(figure, scale, axes, label, shrink=0.85, pad=0.02)
    figure.suptitle(title, fontsize=10)
    return save(figure, path)


def paint_graph(
    edge_index: Tensor, panels: Mapping[str, Tensor], path: Path, *, title: str, names: Sequence[str] | None = None
) -> Path:
    """Draw a graph side by side, with the nodes in the colours of each panel.

    Args:
        edge_index: (2, E) arcs.
        panels: By name (N, 3), red, green and blue from 0 to 1.
        path: File to write.
        title: Over the picture.
        names: Short text in each node; four letters are shown.

    Returns:
        ``path``.
    """
    nodes = len(next(iter(panels.values())))
    places = node_positions(edge_index.cpu(), nodes)
    lines = list(places[np.unique(np.sort(edge_index.cpu().t().numpy(), axis=1), axis=0)])
    size = float(np.clip(9000 / nodes, 14, 320))
    figure = canvas(5 * len(panels), 4.4)
    for axes, (name, colours) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        axes.set_aspect("equal", adjustable="datalim")
        axes.add_collection(LineCollection(lines, colors="0.6", linewidths=1.2, zorder=1))
        shown = colours.cpu().numpy()
        axes.scatter(places[:, 0], places[:, 1], s=size, c=shown, edgecolors="0.35", linewidths=0.7, zorder=2)
        for place, text, colour in zip(places, names or (), shown, strict=names is not None):
            dark = colour @ (0.3, 0.6, 0.1) < 0.5  # white letters on dark nodes
            axes.annotate(text[:4], place, ha="center", va="center", zorder=4, size=min(9, 0.55 * size**0.5),
                          color="white" if dark else "black")  # fmt: skip
        axes.set_title(name, fontsize=10)
        axes.set_axis_off()
        axes.margins(0.09)
    figure.suptitle(title, fontsize=10)
    return save(figure, path)
