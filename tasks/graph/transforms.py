"""PyG's transforms by their class paths: done once, when graphs are read, and by a checkpoint for every other graph."""

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from tasks.data.problems import BadInput, Problems
from tasks.extras import find_class

Described = list[dict[str, Any]]
"""Each transform's ``path`` and ``arguments``; not as ``class_path``, which Lightning would make objects of."""


def describe_transforms(
    transform: str | Sequence[str | dict[str, Any]] | None, arguments: dict[str, Any] | None
) -> Described:
    """What ``--data.transform`` and ``--data.transform_args`` say, in plain values.

    Args:
        transform: A class path, or several, or dictionaries of ``class_path`` and ``init_args``.
        arguments: Those of the one transform.

    Raises:
        BadInput: If one cannot be made.
    """
    several: list[Any] = [transform] if isinstance(transform, str) else list(transform or ())
    if arguments and len(several) != 1:
        raise BadInput(
            f"transform_args are for one transform, got {len(several)}; give several as a list of class_path and "
            "init_args"
        )
    described = []
    for one in several:
        entry = {"class_path": one} if isinstance(one, str) else dict(one)
        if "class_path" not in entry or entry.keys() - {"class_path", "init_args"}:
            found = ", ".join(map(str, entry)) or "nothing"
            raise BadInput(f"transform: expected class_path and init_args, got {found}; correct it")
        described.append({"path": entry["class_path"], "arguments": arguments or entry.get("init_args") or {}})
    _made(described)
    return described


def _made(described: Described) -> list[Callable[[Data], Data]]:
    made = []
    for one in described:
        try:
            made.append(find_class(one["path"])(**one["arguments"]))
        except Exception as error:  # whatever a class says of its arguments
            raise BadInput(f"transform {one['path']}: {error}") from error
    return made


def transformed(graphs: Sequence[Data], described: Described, problems: Problems) -> list[Data]:
    """Transform graphs; random signs and the like are the same for a graph at every call.

    What a transform adds to the nodes' features, as columns of `x` or as an attribute of its own, becomes `encodings`,
    (N, D) float, which stand behind the other features. Nodes that it appends are `virtual`, bool (N,): they pass
    messages on, and are neither pooled nor in maps. Of the edges `edge_index` and `edge_attr` count.

    Args:
        graphs: Graphs that were read.
        described: Of `describe_transforms`.
        problems: Takes graphs on which a transform fails, or that get another number of encodings than most.

    Returns:
        The graphs that can be used.
    """
    if not described:
        return list(graphs)
    transforms, done = _made(described), []
    for graph in graphs:
        try:
            with _repeatable():
                done.append(_one(graph, transforms))
        except Exception as error:  # of a graph that is too small for it, and the like
            names = ", ".join(one["path"].rpartition(".")[2] for one in described)
            problems.add(graph.id, f"{names}: {' '.join(str(error).split()) or type(error).__name__}")
    widths = [graph.encodings.shape[1] if "encodings" in graph else 0 for graph in done]
    usual = Counter(widths).most_common(1)[0][0] if widths else 0
    good = []
    for graph, width in zip(done, widths, strict=True):
        if width == usual:
            good.append(graph)
        else:
            problems.add(graph.id, f"expected {usual} columns of the transforms, as most graphs have, got {width}")
    if not any(bool(graph.virtual.any()) for graph in good):
        for graph in good:
            del graph.virtual
    return good


def _one(graph: Data, transforms: Sequence[Callable[[Data], Data]]) -> Data:
    nodes = int(graph.num_nodes)
    before = copy.copy(graph)
    new = copy.copy(graph)
    for transform in transforms:
        new = transform(new)
    found, total = copy.copy(before), int(new.num_nodes)
    found.edge_index, found.edge_attr, found.num_nodes = new.edge_index, new.edge_attr, total
    old = 0 if before.x is None else before.x.shape[1]
    columns: list[Tensor] = [value for key, value in new.items() if key not in before and _of_nodes(new, key, total)]
    if new.x is not None and old and new.x.shape[1] > old:
        columns.insert(0, new.x[:, old:])
    found.x = None if new.x is None else new.x[:, : old or None].to(new.x if before.x is None else before.x)
    if columns:
        found.encodings = torch.cat([one.reshape(total, -1).float() for one in columns], 1)
    found.virtual = torch.arange(total) >= nodes
    if "truth" in before:
        found.truth = new.truth
    if total < nodes and "names" in before:  # nobody knows which nodes are left
        del found.names
    return found


def _of_nodes(graph: Data, key: str, nodes: int) -> bool:
    value = graph[key]
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) == nodes and "edge" not in key


@contextmanager
def _repeatable() -> Iterator[None]:
    """Begin random numbers anew, and go on as if nothing had been drawn."""
    state = np.random.get_state()  # noqa: NPY002  # what scipy and PyG draw from
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002


def own_edges(batch: Data) -> Tensor:
    """The edges without those of virtual nodes, (2, E)."""
    edges: Tensor = batch.edge_index
    return edges[:, ~batch.virtual[edges].any(0)] if "virtual" in batch else edges


def real(graph: Data, *values: Tensor) -> tuple[Any, ...]:
    """A graph, and values of its nodes, (N, ...), without virtual nodes."""
    if "virtual" not in graph:
        return graph, *values
    kept = ~graph.virtual
    return graph.subgraph(kept), *(each[kept] for each in values)
