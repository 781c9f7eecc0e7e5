"""One graph of a TU folder, or one molecule, with the features of the graphs that a model was trained on."""

from pathlib import Path
from typing import Any

import torch
from torch_geometric.data import Data

from tasks.data.problems import BadInput, Problems
from tasks.graph.features import conform
from tasks.graph.raw import read_tu
from tasks.graph.transforms import transformed


def read_one(source: str, spec: dict[str, Any]) -> Data:
    """Read a SMILES for a model that was trained on molecules, else a graph of a TU folder (`read_graph`).

    Raises:
        BadInput: If it cannot be used.
    """
    if "smiles" not in (spec.get("reading") or {}):
        return read_graph(source, spec)
    try:
        from tasks.graph.chemistry import molecule_graph

        graph = _transformed(molecule_graph(source), spec)
        conform(graph, spec, None)
    except (BadInput, ImportError) as error:
        raise BadInput(f"{source}: {error}") from error
    graph.id = source
    single = spec["kind"] in ("binary", "multiclass")
    graph.y = torch.full((1,) if single else (1, len(spec["classes"])), float("nan"))
    return graph


def read_graph(source: str, spec: dict[str, Any]) -> Data:
    """Read one graph by the name that it has in predictions.csv, with its folder: ``data/MUTAG-17``.

    The folder may be another one than that of the training; node labels are matched by their values.

    Args:
        source: ``ROOT/NAME-NUMBER`` for a graph of ``ROOT/NAME/raw``, counted from 1; ``ROOT/NAME/NAME-NUMBER`` is the
            same.
        spec: What the training's data said of itself (`tasks.graph.TUData.spec`).

    Returns:
        The graph; `y` is NaN where the training knew no such class.

    Raises:
        BadInput: If the folder or the graph does not exist or cannot be used, or has other features.
    """
    name, _, number = Path(source).name.rpartition("-")
    if not name or not number.isdigit():
        raise BadInput(f"{source}: expected a folder and a graph's name in predictions.csv, such as data/MUTAG-17")
    reading = spec.get("reading") or {}
    if "attributes" not in reading:
        raise BadInput(f"{source}: the model was not trained on a TU folder, whose features it would need; run predict")
    root = Path(source).parent
    if root.name == name and not (root / name).is_dir():
        root = root.parent
    problems = Problems(str(root / name))
    regression = spec["kind"] == "regression"
    found = read_tu(root, name, problems, attributes=reading["attributes"], regression=regression)
    if problems.fatal:
        problems.finish(total=len(found.graphs))
    graph = _pick(found.graphs, f"{name}-{int(number)}", source, problems)
    try:
        graph = _transformed(graph, spec)
        conform(graph, spec, {"node_labels": found.node_labels, "edge_labels": found.edge_labels})
    except BadInput as error:
        raise BadInput(f"{source}: {error}") from error
    if regression and graph.y.shape[1] != len(spec["classes"]):
        graph.y = torch.full((1, len(spec["classes"])), float("nan"))
    elif not regression:
        known = found.classes[int(graph.y)] in spec["classes"]
        graph.y = torch.tensor([spec["classes"].index(found.classes[int(graph.y)]) if known else float("nan")])
    return graph


def _transformed(graph: Data, spec: dict[str, Any]) -> Data:
    """Do what was done to the training's graphs."""
    problems = Problems("transform")
    graph.id = graph.get("id", "graph")
    done = transformed([graph], spec.get("transforms", []), problems)
    if not done:
        raise BadInput(problems.samples[0])
    return done[0]


def _pick(graphs: list[Data], wanted: str, source: str, problems: Problems) -> Data:
    """The graph of this name; what is wrong with it, or how many there are, if it is not there."""
    for graph in graphs:
        if graph.id == wanted:
            return graph
    wrong = [line for line in problems.samples if line.startswith(f"{wanted}: ")]
    if wrong:
        raise BadInput("; ".join(wrong))
    count = len(graphs) + len({line.split(": ")[0] for line in problems.samples})
    raise BadInput(f"{source}: expected a graph from 1 to {count}, got {wanted.rpartition('-')[2]}; correct the number")
