"""What a network is told of nodes and edges: numbers, made of a graph's own columns and of its shape."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import degree

from tasks.data.problems import BadInput
from tasks.graph.raw import match_labels

Values = list[list[int] | None]
"""Of each column of whole numbers the values that are told apart; None for one that is a number."""

CLIP = 4.0  # standard deviations; a molecule unlike all others may be thousands from the mean
MOST = 128  # different values of a column of whole numbers; one with more counts something


def column_values(columns: Tensor | None) -> Values | None:
    """The values that occur in each column of whole numbers, which `one_hot` gives a column each.

    Args:
        columns: (N, C), as PyG's `from_smiles` and OGB have them: atomic numbers, kinds of bonds.

    Returns:
        For each column its values, sorted; None for one with more than `MOST`, which is a number. None where all
        columns are numbers: floats, or booleans.
    """
    if columns is None or columns.is_floating_point() or columns.dtype == torch.bool:
        return None
    found = [column.unique().tolist() for column in columns.T]
    return [values if len(values) <= MOST else None for values in found]


def one_hot(columns: Tensor, values: Values | None) -> Tensor:
    """Zeros and ones for whole numbers: a column for each known value, in order; a value that is not known has none.

    Args:
        columns: (N, C).
        values: Of `column_values`; None leaves the columns as they are.

    Returns:
        (N, D) float.

    Example:
        >>> one_hot(torch.tensor([[6, 0], [8, 1], [7, 0]]), [[6, 8], [0, 1]]).tolist()
        [[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]]
    """
    if values is None:
        return columns.float()
    parts = [
        column[:, None].float() if known is None else (column[:, None] == torch.tensor(known)).float()
        for column, known in zip(columns.T, values, strict=True)
    ]
    return torch.cat(parts, 1)


def learn_features(train: Sequence[Data], *, degrees: int, size: bool, descriptors: bool = False) -> dict[str, Any]:
    """What `complete` must know to give any graph the features that these graphs have.

    Args:
        train: The training graphs.
        degrees: Highest degree of the one-hot degrees; 0 adds none.
        size: Whether to add log N.
        descriptors: Whether to add RDKit's descriptors of molecules.

    Returns:
        ``degrees``, ``size``, the number of ``encodings`` that transforms add, the values of columns of whole numbers
        (``nodes``, ``edges``), mean and standard deviation of the edges' columns, 0 and 1 for those of zeros and ones
        (``edge_mean``, ``edge_std``), and those of the descriptors, the varied ones (``descriptors``: ``columns``,
        ``mean``, ``std``).
    """
    first = train[0]
    features: dict[str, Any] = {"degrees": degrees, "size": size, "nodes": None, "edges": None}
    features["encodings"] = first.encodings.shape[1] if "encodings" in first else 0
    if first.x is not None:
        features["nodes"] = column_values(torch.cat([graph.x for graph in train]))
    if first.edge_attr is not None:
        edges = torch.cat([graph.edge_attr for graph in train])
        features["edges"] = column_values(edges)
        mean, std = column_scale(one_hot(edges, features["edges"]))
        features |= {"edge_mean": mean, "edge_std": std}
    if descriptors:
        from tasks.graph.chemistry import descriptors as describe

        values = np.stack([describe(graph.smiles) for graph in train])
        varied = np.flatnonzero(values.std(0) > 1e-9)
        mean, std = values.mean(0)[varied].tolist(), values.std(0)[varied].tolist()
        features["descriptors"] = {"columns": varied.tolist(), "mean": mean, "std": std}
    return features


def complete(graph: Data, features: dict[str, Any]) -> None:
    """Give a graph float features: `x` of its nodes, (N, C), and `edge_attr`, (E, F), where it has any.

    Args:
        graph: A graph as it was read.
        features: Of `learn_features`.
    """
    if graph.x is not None:
        graph.x = one_hot(graph.x, features.get("nodes"))
    graph.x = node_features(graph, features["degrees"], size=features["size"])
    if features.get("descriptors"):
        graph.x = torch.cat([graph.x, descriptor_columns(graph, **features["descriptors"])], 1)
    if "encodings" in graph:
        graph.x = torch.cat([graph.x, graph.encodings], 1)
        del graph.encodings
    if graph.edge_attr is not None and "edge_mean" in features:
        numbers = one_hot(graph.edge_attr, features["edges"])
        graph.edge_attr = (numbers - torch.tensor(features["edge_mean"])) / torch.tensor(features["edge_std"])


def conform(graph: Data, spec: dict[str, Any], reading: dict[str, Any] | None) -> None:
    """Give a graph, in place, the features of the graphs that a model was trained on.

    Args:
        graph: A graph as it was read.
        spec: What the training's data said of itself (`tasks.graph.GraphData.spec`).
        reading: How the graph was read; labels of a TU folder are matched by value.

    Raises:
        BadInput: If its nodes or edges have other labels or another number of features than the model knows.
    """
    trained, reading = spec.get("reading") or {}, reading or {}
    if "node_labels" in trained and "node_labels" in reading:
        graph.x = match_labels(graph.x, reading["node_labels"], trained["node_labels"])
    if "edge_labels" in trained and "edge_labels" in reading:
        graph.edge_attr = match_labels(graph.edge_attr, reading["edge_labels"], trained["edge_labels"], "edge")
    if not spec.get("edge_features"):
        graph.edge_attr = None
    complete(graph, spec["features"])
    widths = {"node": (spec["channels"], graph.x), "edge": (spec.get("edge_features", 0), graph.edge_attr)}
    for what, (wanted, columns) in widths.items():
        found = 0 if columns is None else columns.shape[1]
        if found != wanted:
            raise BadInput(
                f"expected {wanted} features per {what}, as the model was trained with, got {found}; give a graph with "
                "the same attributes and labels"
            )


def descriptor_columns(graph: Data, columns: list[int], mean: list[float], std: list[float]) -> Tensor:
    """RDKit's descriptors of a molecule, standardised and clipped to ±`CLIP`, the same for all of its atoms, (N, D).

    Args:
        graph: A molecule with its `smiles`.
        columns: Which descriptors.
        mean: Their mean over the training molecules.
        std: Their standard deviation.
    """
    from tasks.graph.chemistry import descriptors

    values = ((descriptors(graph.smiles)[columns] - mean) / np.array(std)).clip(-CLIP, CLIP)
    return torch.from_numpy(values).float().expand(graph.num_nodes, -1)


def node_features(graph: Data, degrees: int, *, size: bool = False) -> Tensor:
    """A graph's features and those of its shape.

    Args:
        graph: A graph with or without `x`.
        degrees: Highest degree of the one-hot degrees; 0 adds none.
        size: Whether to add log N, the same for all nodes.

    Returns:
        (N, C) float: `x`, then one-hot in-degrees, then log N; a constant 1 if there is none of them.
    """
    columns = [] if graph.x is None else [graph.x.float()]
    if degrees > 0:
        found = degree(graph.edge_index[1], graph.num_nodes, torch.long).clamp(max=degrees)
        columns.append(torch.nn.functional.one_hot(found, degrees + 1).float())
    if size:
        columns.append(torch.full((graph.num_nodes, 1), math.log(graph.num_nodes)))
    return torch.cat(columns, 1) if columns else torch.ones(graph.num_nodes, 1)


def own_columns(spec: dict[str, Any]) -> int:
    """How many feature columns, the last ones, are not the nodes' own: degrees, size, descriptors, encodings."""
    features = spec["features"]
    columns: int = (features["degrees"] + 1 if features["degrees"] else 0) + features["size"]
    columns += features.get("encodings", 0)
    return columns + len((features.get("descriptors") or {"columns": ()})["columns"])


def feature_scale(graphs: Sequence[Data]) -> dict[str, list[float]]:
    """Mean and standard deviation of each feature over the graphs' nodes; columns of zeros and ones keep 0 and 1.

    Args:
        graphs: The training graphs.

    Returns:
        ``feature_mean`` and ``feature_std``, C numbers each.
    """
    mean, std = column_scale(torch.cat([graph.x for graph in graphs]))
    return {"feature_mean": mean, "feature_std": std}


def column_scale(columns: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each column, (N, C); 0 and 1 for columns of zeros and ones and constant ones."""
    x = columns.double().numpy()
    if not len(x):
        return [0.0] * x.shape[1], [1.0] * x.shape[1]
    mean, std = x.mean(0), x.std(0)
    plain = np.isin(x, (0.0, 1.0)).all(0) | (std < 1e-12 * np.abs(mean).clip(1))
    return np.where(plain, 0.0, mean).tolist(), np.where(plain, 1.0, std).tolist()
