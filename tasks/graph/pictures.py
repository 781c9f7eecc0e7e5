"""Draw a graph with a number at every node: red speaks for, blue against."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from torch import Tensor

from tasks.graph.layout import node_positions
from tasks.graph.names import Kinds, one_way
from tasks.outputs.drawing import bar, canvas, centred, save

_LETTERED = 150  # nodes up to which each has its name
_STRONGEST = 10  # of larger graphs these are named
_STYLES = ("solid", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)), (0, (7, 1.5)), (0, (4, 1, 1, 1, 1, 1)))
_SHADES = ("0.6", "0.2", "#b8860b", "#8e44ad", "#2e8b57", "#a0522d")
# Bonds as chemists draw them: so many lines beside each other, the last one dashed or not.
_BONDS = {"single": (1, False), "double": (2, False), "triple": (3, False), "aromatic": (2, True)}


def draw_graph(
    edge_index: Tensor,
    values: Tensor,
    path: Path,
    *,
    title: str,
    label: str = "contribution",
    names: Sequence[str] | None = None,
    kinds: Kinds | None = None,
    truth: Tensor | None = None,
    truth_label: str = "truth",
) -> Path:
    """Draw one graph into a PNG; arcs without one that leads back are arrows.

    Args:
        edge_index: (2, E) arcs.
        values: (N,) signed number of each node; the colours are symmetric about 0.
        path: File to write.
        title: Over the picture.
        label: Beside the colour bar: what the numbers are.
        names: Short text in each node, such as an atom's symbol; four letters are shown. Of more than 150 nodes only
            the ten strongest have it, or their number.
        kinds: What the edges are: bonds by their names, others by line and shade, with a legend.
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
    legend = _draw_edges(axes, edge_index, places, kinds)
    size = _size(len(values))
    scale = centred(numbers)
    colours = scale.to_rgba(numbers)
    axes.scatter(places[:, 0], places[:, 1], s=size, c=colours, edgecolors="0.35", linewidths=0.7, zorder=2)
    if truth is not None and bool(truth.any()):
        ringed = places[truth.cpu().numpy()]
        ring = axes.scatter(ringed[:, 0], ringed[:, 1], s=1.9 * size, facecolors="none", edgecolors="black",
                            linewidths=1.8, zorder=3, label=truth_label)  # fmt: skip
        legend = [ring, *legend]
    if legend:
        figure.legend(handles=legend, loc="outside lower center", frameon=False, ncols=min(len(legend), 5),
                      markerscale=min(1, (120 / size) ** 0.5))  # fmt: skip
    if len(values) > _LETTERED:
        _name_strongest(axes, places, numbers, names)
    elif names is not None:
        _write_names(axes, places, names, colours, size)
    axes.set_axis_off()
    axes.margins(0.09)
    bar(figure, scale, axes, label, shrink=0.85, pad=0.02)
    figure.suptitle(title, fontsize=10)
    return save(figure, path)


def _size(nodes: int) -> float:
    """How large a node is drawn."""
    return float(np.clip(9000 / max(nodes, 1), 14, 320))


def _write_names(axes: Axes, places: np.ndarray, names: Sequence[str], colours: np.ndarray, size: float) -> None:
    """Write four letters into each node, white ones into dark nodes."""
    for place, name, colour in zip(places, names, colours, strict=True):
        text = {"size": min(9, 0.55 * size**0.5), "color": "white" if colour[:3] @ (0.3, 0.6, 0.1) < 0.5 else "black"}
        axes.annotate(name[:4], place, ha="center", va="center", zorder=4, **text)


def _draw_edges(axes: Axes, edge_index: Tensor, places: np.ndarray, kinds: Kinds | None) -> list[Artist]:
    """Draw lines and arrows; returns what the legend has to say of them."""
    width = float(np.clip(400 / max(edge_index.shape[1], 1), 0.25, 1.2))
    arrows = one_way(edge_index).numpy()
    ends = edge_index.t().numpy()
    if arrows.any():
        start, way = places[ends[arrows, 0]], places[ends[arrows, 1]] - places[ends[arrows, 0]]
        tips = start + 0.62 * way  # between the nodes, where they are seen
        way = way / np.linalg.norm(way, axis=1, keepdims=True).clip(1e-9)
        axes.quiver(tips[:, 0], tips[:, 1], way[:, 0], way[:, 1], angles="xy", pivot="tip", units="inches", scale=14,
                    scale_units="inches", width=0.012, headwidth=6 * width + 2, headlength=8, headaxislength=7,
                    color="0.45", zorder=1.5)  # fmt: skip
    edges, first = np.unique(np.sort(ends, axis=1), axis=0, return_index=True)  # both directions are one line
    if kinds is None:
        axes.add_collection(LineCollection(list(places[edges]), colors="0.6", linewidths=width, zorder=1))
        return []
    of = kinds.of.numpy()[first]
    legend: list[Artist] = []
    for kind, name in enumerate(kinds.names):
        chosen = places[edges[of == kind]]  # (K, 2, 2)
        if not len(chosen):
            continue
        if name in _BONDS:
            _draw_bonds(axes, chosen, *_BONDS[name], width)
            continue
        look: dict[str, Any] = {"color": _SHADES[kind % len(_SHADES)], "linestyle": _STYLES[kind % len(_STYLES)]}
        axes.add_collection(LineCollection(list(chosen), linewidths=1.3 * width, zorder=1, **look))
        legend.append(Line2D([], [], label=name, **look))
    return legend


def _draw_bonds(axes: Axes, chosen: np.ndarray, count: int, dashed: bool, width: float) -> None:
    along = chosen[:, 1] - chosen[:, 0]
    length = np.linalg.norm(along, axis=1, keepdims=True).clip(1e-9)
    across = np.stack([-along[:, 1], along[:, 0]], 1) / length * np.median(length) * 0.055
    for place in range(count):
        shift = (across * (2 * place - (count - 1)))[:, None]
        style = (0, (2.5, 1.5)) if dashed and place == count - 1 else "solid"
        lines = LineCollection(list(chosen + shift), colors="0.5", linestyles=[style], linewidths=width, zorder=1)
        axes.add_collection(lines)


def _name_strongest(axes: Axes, places: np.ndarray, numbers: np.ndarray, names: Sequence[str] | None) -> None:
    for node in np.argsort(-np.abs(numbers), kind="stable")[:_STRONGEST].tolist():
        if numbers[node]:
            text = f"{node}" if names is None else f"{names[node][:4]} {node}"
            behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.6}
            axes.annotate(text, places[node], xytext=(4, 4), textcoords="offset points", size=7, zorder=4, bbox=behind)


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
    size = _size(nodes)
    figure = canvas(5 * len(panels), 4.4)
    for axes, (name, colours) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        axes.set_aspect("equal", adjustable="datalim")
        _draw_edges(axes, edge_index.cpu(), places, None)
        shown = colours.cpu().numpy()
        axes.scatter(places[:, 0], places[:, 1], s=size, c=shown, edgecolors="0.35", linewidths=0.7, zorder=2)
        if names is not None and nodes <= _LETTERED:
            _write_names(axes, places, names, shown, size)
        axes.set_title(name, fontsize=10)
        axes.set_axis_off()
        axes.margins(0.09)
    figure.suptitle(title, fontsize=10)
    return save(figure, path)
