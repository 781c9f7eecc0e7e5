"""OGB's folders of graphs: packed tables of all nodes and edges, labels, and a split (Hu et al. 2020)."""

import csv
import gzip
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data

from tasks.data.problems import BadInput

TABLES = ("edge", "num-node-list", "num-edge-list", "graph-label")


def read_ogb(folder: str | Path) -> list[Data]:
    """Read ``raw/*.csv.gz``, ``mapping/mol.csv.gz`` and ``split/NAME/{train,valid,test}.csv.gz``, as OGB unpacks them.

    The arcs of molecules, which stand there once, go both ways; those of other sets stay as they are. Empty labels are
    NaN.

    Args:
        folder: Such as ``dataset/ogbg_molhiv``.

    Returns:
        Graphs with whole numbers in `x` and `edge_attr` where there are any, `y` (1, T), `part`, and for molecules
        `smiles`.

    Raises:
        BadInput: If a table is missing or tables do not agree.
    """
    folder = Path(folder)
    missing = [f"raw/{name}.csv.gz" for name in TABLES if not (folder / "raw" / f"{name}.csv.gz").is_file()]
    if missing:
        raise BadInput(f"{folder}: expected OGB's tables, {', '.join(missing)} do not exist; give the set's own folder")
    nodes, edges = (_numbers(folder / "raw" / f"{name}.csv.gz")[:, 0] for name in TABLES[1:3])
    ends = _numbers(folder / "raw" / "edge.csv.gz")
    labels = _labels(folder / "raw" / "graph-label.csv.gz")
    optional = {key: _optional(folder / "raw" / f"{name}.csv.gz") for key, name in
                (("x", "node-feat"), ("edge_attr", "edge-feat"))}  # fmt: skip
    rows = {"num-edge-list": len(edges), "graph-label": len(labels)}
    wrong = [f"{name} has {count}" for name, count in rows.items() if count != len(nodes)]
    wrong += [f"edge has {len(ends)} lines for {edges.sum()} edges"] if len(ends) != edges.sum() else []
    for key, total in (("x", nodes.sum()), ("edge_attr", edges.sum())):
        found = optional[key]
        if found is not None and len(found) != total:
            wrong.append(f"the features of {'nodes' if key == 'x' else 'edges'} have {len(found)} lines for {total}")
    if wrong:
        raise BadInput(
            f"{folder}: expected tables of {len(nodes)} graphs, as num-node-list has, but {'; '.join(wrong)}"
        )
    smiles, parts = _smiles(folder), _parts(folder, len(nodes))
    node_cuts, edge_cuts = (np.concatenate([[0], np.cumsum(counts)]) for counts in (nodes, edges))
    graphs = []
    for number in range(len(nodes)):
        own = slice(edge_cuts[number], edge_cuts[number + 1])
        arcs = torch.from_numpy(ends[own].T.copy())
        graph = Data(edge_index=arcs, num_nodes=int(nodes[number]), y=torch.from_numpy(labels[number : number + 1]))
        if optional["x"] is not None:
            graph.x = torch.from_numpy(optional["x"][node_cuts[number] : node_cuts[number + 1]])
        if optional["edge_attr"] is not None:
            graph.edge_attr = torch.from_numpy(optional["edge_attr"][own])
        if smiles:
            graph.smiles = smiles[number]
            graph.edge_index = torch.cat([arcs, arcs.flip(0)], 1)
            if graph.edge_attr is not None:
                graph.edge_attr = torch.cat([graph.edge_attr, graph.edge_attr])
        if parts:
            graph.part = parts[number]
        graphs.append(graph)
    return graphs


def _numbers(path: Path) -> np.ndarray:
    """A table of whole numbers, or of numbers if there are others."""
    try:
        values = np.loadtxt(path, delimiter=",", ndmin=2)
    except ValueError as error:
        raise BadInput(f"{path.name}: expected numbers with commas between ({error}); unpack it anew") from error
    whole = values.astype(np.int64)
    return whole if (whole == values).all() else values.astype(np.float32)


def _optional(path: Path) -> np.ndarray | None:
    return _numbers(path) if path.is_file() else None


def _labels(path: Path) -> np.ndarray:
    with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
        rows = [[float(cell) if cell else float("nan") for cell in row] for row in csv.reader(file)]
    return np.array(rows, dtype=np.float32)


def _smiles(folder: Path) -> list[str]:
    path = folder / "mapping" / "mol.csv.gz"
    if not path.is_file():
        return []
    with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
        return [row["smiles"] for row in csv.DictReader(file)]


def _parts(folder: Path, count: int) -> list[str]:
    """Of each graph its part, by the one split that there is; none without."""
    found = sorted(path for path in folder.glob("split/*") if (path / "train.csv.gz").is_file())
    if not found:
        return []
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise BadInput(
            f"{folder}: expected one split, got {names}; leave one in the folder, or give --data.splits FILE"
        )
    parts = ["train"] * count
    for name, part in (("valid", "val"), ("test", "test")):
        for number in _numbers(found[0] / f"{name}.csv.gz")[:, 0]:
            parts[number] = part
    return parts
