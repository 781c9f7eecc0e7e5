"""Graphs that cannot be used, told one by one."""

import copy
from collections import Counter

import torch
from torch import Tensor
from torch_geometric.data import Data

from tasks.data.problems import Problems


def kind_of(graph: Data, multilabel: bool) -> str:
    """The kind of task that a graph's target is for: multiclass (also of two), multilabel or regression."""
    if not graph.y.is_floating_point():
        return "multiclass"
    return "multilabel" if multilabel else "regression"


def check_graphs(graphs: list[Data], classes: int, problems: Problems) -> list[Data]:
    """Return shallow copies of the graphs that can be used, and report the others.

    Args:
        graphs: Graphs from any source.
        classes: Number of classes, or of a regression's targets.
        problems: Takes graphs without nodes, features that are not finite or of another width than most graphs have,
            edges to nodes that do not exist, and targets that are missing or no class.

    Returns:
        The good graphs, in order, each with an `id` and a `row`, its place among all.
    """
    graphs = [copy.copy(graph) for graph in graphs]
    for number, graph in enumerate(graphs):
        graph.id = graph.id if "id" in graph else f"graph-{number + 1}"
        graph.row = graph.get("row", number)
        for key in ("x", "edge_attr"):
            if graph.get(key) is not None and graph[key].ndim == 1:
                graph[key] = graph[key][:, None]
    usual = {key: _usual(graphs, key) for key in ("x", "edge_attr")}
    good = []
    for graph in graphs:
        found = _wrong_with(graph, usual["x"]) or _wrong_with_edges(graph, usual["edge_attr"])
        found = found or _wrong_target(graph.y, classes, asked=graph.get("part") == "predict")
        if found is None:
            good.append(graph)
        else:
            problems.add(graph.id, found)
    return good


def _wrong_with(graph: Data, usual: int | None) -> str | None:
    nodes, edges = graph.num_nodes, graph.edge_index
    if not nodes:
        return "has no nodes; remove it"
    if edges is None or edges.ndim != 2 or edges.shape[0] != 2:
        return f"expected edge_index of shape (2, E), got {None if edges is None else tuple(edges.shape)}"
    if edges.numel() and not 0 <= int(edges.min()) <= int(edges.max()) < nodes:
        outside = edges[(edges < 0) | (edges >= nodes)][0]
        return f"edge to node {int(outside)}; expected nodes from 0 to {nodes - 1}"
    width = None if graph.x is None else graph.x.shape[1]
    if width != usual:
        return f"expected {usual or 'no'} features per node, as most graphs have, got {width or 'none'}"
    if graph.x is not None and not torch.isfinite(graph.x).all():
        node = int((~torch.isfinite(graph.x)).any(1).nonzero()[0])
        return f"NaN or inf in the features of node {node}; correct them"
    return None


def _wrong_with_edges(graph: Data, usual: int | None) -> str | None:
    values, edges = graph.edge_attr, graph.num_edges
    width = None if values is None else values.shape[1]
    if width != usual:
        return f"expected {usual or 'no'} features per edge, as most graphs have, got {width or 'none'}"
    if values is not None and len(values) != edges:
        return f"expected {edges} rows in edge_attr, one per edge, got {len(values)}"
    if values is not None and not torch.isfinite(values).all():
        edge = int((~torch.isfinite(values)).any(1).nonzero()[0])
        return f"NaN or inf in the features of edge {edge}; correct them"
    return None


def _usual(graphs: list[Data], key: str) -> int | None:
    """How many columns most graphs have."""
    widths = Counter(None if graph.get(key) is None else graph[key].shape[1] for graph in graphs)
    return widths.most_common(1)[0][0] if widths else None


def _wrong_target(y: Tensor | None, classes: int, *, asked: bool) -> str | None:
    if y is not None and y.is_floating_point():
        known = ~y.isnan()
        good = asked or (y.shape == (1, classes) and not y.isinf().any() and bool(known.any()))
        return None if good else f"expected {classes} finite targets in y, shape (1, {classes}), got {y.tolist()}"
    if y is None or y.shape != (1,) or not 0 <= int(y) < classes:
        return f"expected a class from 0 to {classes - 1} in y, shape (1,), got {None if y is None else y.tolist()}"
    return None
