"""The TU format: a set of graphs as text files, read and checked without writing anything beside them.

A folder ``root/NAME/raw/`` holds ``NAME_A.txt`` (one arc ``i, j`` per line), ``NAME_graph_indicator.txt`` (the graph of
each node), ``NAME_graph_labels.txt`` or ``NAME_graph_attributes.txt`` (a class, or numbers to predict, per graph) and,
where there are any, ``NAME_node_labels.txt``, ``NAME_node_attributes.txt``, ``NAME_edge_labels.txt`` and
``NAME_edge_attributes.txt`` (a line per arc). Nodes and graphs count from 1.
Morris et al., "TUDataset", 2020, https://arxiv.org/abs/2007.08663.

Letters: `G` graphs, `N` nodes of all graphs together, `E` arcs.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from tasks.data.problems import BadInput, Problems

_SHOWN = 20  # lines of one file that a report lists one by one


@dataclass
class Table:
    """One text file: its numbers, and the lines that are not numbers (their values are NaN)."""

    file: str
    values: np.ndarray  # (lines, columns)
    malformed: dict[int, str]  # line number, counted from 1 -> what stands there

    def __len__(self) -> int:
        return len(self.values)


class Folder(NamedTuple):
    """What a TU folder holds: no graph, if a problem is not one of single graphs."""

    graphs: list[Data]
    classes: list[str]
    """Names of the classes, or of the targets."""
    node_labels: list[int]
    """Labels whose one-hot columns are the last ones of `x`; none where nodes have no label or several."""
    edge_labels: list[int]
    """The same of `edge_attr`."""


_NOTHING = Folder([], [], [], [])


def read_tu(
    root: str | Path, name: str, problems: Problems, *, attributes: bool = True, regression: bool = False
) -> Folder:
    """Read every graph of a TU folder that is in order, and report the others.

    Self loops and repeated arcs are dropped; the first of several counts. Features are the node attributes, then the
    node labels one-hot, and the same of edges; where there are neither, there is no `x` or no `edge_attr`. Arcs stay as
    they are directed.

    Args:
        root: Folder that holds ``NAME/raw/``.
        name: Name of the data set, and the beginning of its files' names.
        problems: Takes what is wrong: per graph where a graph can be blamed, else as not skippable.
        attributes: Use the attributes of nodes and edges.
        regression: Predict the graph attributes instead of the graph labels.
    """
    folder = Path(root) / name / "raw"
    if not folder.is_dir():
        problems.stop(str(folder), f"does not exist; expected the TU layout, {name}/raw/{name}_A.txt under the root")
        return _NOTHING

    def table(key: str, columns: int | None = None, *, integers: bool = True, optional: bool = False) -> Table | None:
        path = folder / f"{name}_{key}.txt"
        return read_table(path, problems, columns=columns, integers=integers, optional=optional)

    arcs, indicator = table("A", 2), table("graph_indicator", 1)
    targets = table("graph_attributes", integers=False) if regression else table("graph_labels", 1)
    labels, kinds = (table(f"{each}_labels", optional=True) for each in ("node", "edge"))
    numbers, measures = (
        table(f"{each}_attributes", integers=False, optional=True) if attributes else None for each in ("node", "edge")
    )
    if arcs is None or indicator is None or targets is None:
        return _NOTHING

    bad: set[int] = set()

    def blame(graph: int, what: str) -> None:
        bad.add(graph)
        problems.add(f"{name}-{graph + 1}", what)

    _check_values(targets, np.arange(len(targets)), blame)
    for each in (arcs, indicator):  # Nothing tells whose node or arc such a line is.
        _stop_at_malformed(each, problems)
    of_nodes = [each for each in (labels, numbers) if each is not None]
    of_arcs = [each for each in (kinds, measures) if each is not None]
    for tables, whole, what in ((of_nodes, indicator, "node"), (of_arcs, arcs, "arc")):
        for each in tables:
            if len(each) != len(whole):
                problems.stop(
                    each.file, f"expected {len(whole)} lines, one per {what} as in {whole.file}, got {len(each)}"
                )
    owner = indicator.values[:, 0] - 1  # (N,)
    strange = np.flatnonzero((owner < 0) | (owner >= len(targets)))
    if len(strange):
        problems.stop(
            f"{indicator.file} line {strange[0] + 1}",
            f"expected a graph from 1 to {len(targets)}, the lines of {targets.file}, got "
            f"{int(indicator.values[strange[0], 0])}{_and_more(len(strange))}",
        )
    if problems.fatal:
        return _NOTHING
    owner = owner.astype(np.int64)
    for graph in np.flatnonzero(np.bincount(owner, minlength=len(targets)) == 0).tolist():
        blame(graph, f"has no nodes; give it some in {indicator.file}, or remove its line from {targets.file}")
    for each in of_nodes:
        _check_values(each, owner, blame)
    inside = _check_arcs(arcs, owner, problems, blame)
    if problems.fatal:
        return _NOTHING
    of_arc = owner[np.where(inside, arcs.values[:, 0] - 1, 0).astype(np.int64)]
    for each in of_arcs:
        _check_values(each, np.where(inside, of_arc, -1), blame)
    good = sorted(set(range(len(targets))) - bad)
    y, classes = _targets(targets, regression)
    x, edge_attr = _features(numbers, labels), _features(measures, kinds)
    ends = arcs.values[inside].astype(np.int64) - 1
    graphs = _divide(ends, owner, x, None if edge_attr is None else edge_attr[inside], len(targets))
    for graph in good:
        graphs[graph].y, graphs[graph].id = y[graph], f"{name}-{graph + 1}"
    return Folder([graphs[graph] for graph in good], classes, _known(labels), _known(kinds))


def _known(labels: Table | None) -> list[int]:
    """The labels that occur, where each element has one."""
    if labels is None or labels.values.shape[1] != 1:
        return []
    known: list[int] = np.unique(labels.values[np.isfinite(labels.values)]).astype(int).tolist()
    return known


def match_labels(x: Tensor | None, labels: list[int], trained: list[int], what: str = "node") -> Tensor | None:
    """Put the one-hot columns of a folder's labels where the graphs that a model was trained on had them.

    Args:
        x: Features of a graph's nodes or edges, the columns of their labels last.
        labels: The folder's labels.
        trained: Those of the training.
        what: Whose labels they are: "node" or "edge".

    Raises:
        BadInput: If there is a label that the training did not have.
    """
    if x is None or labels == trained:
        return x
    split = x.shape[1] - len(labels)
    columns = dict(zip(labels, x[:, split:].T, strict=True))
    unknown = [label for label, column in columns.items() if column.any() and label not in trained]
    if unknown:
        raise BadInput(
            f"expected the {what} labels of the training, {', '.join(map(str, trained)) or 'none'}, got "
            f"{', '.join(map(str, unknown))}; give a graph with the same labels"
        )
    return torch.cat([x[:, :split], *(columns.get(label, x.new_zeros(len(x)))[:, None] for label in trained)], 1)


def label_names(folder: Path, what: str = "node") -> dict[int, str]:
    """What labels mean, as READMEs of molecules say it: a line ``Node labels:`` or ``Edge labels:``, then ``0 C``."""
    path = folder / "README.txt"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    names: dict[int, str] = {}
    below = False
    for line in lines:
        found = re.fullmatch(r"\s*(\d+)[\s:,]+(\S+)\s*", line)
        if below and found:
            names[int(found[1])] = found[2]
        elif line.strip():
            below = line.strip().lower() == f"{what} labels:"
    return names


def read_table(
    path: Path, problems: Problems, *, columns: int | None = None, integers: bool = True, optional: bool = False
) -> Table | None:
    """Read a file of comma-separated numbers; blank lines at its end do not count.

    Args:
        path: The file.
        problems: Takes a missing or empty file.
        columns: Numbers per line; None takes the most frequent count.
        integers: Take only whole numbers.
        optional: Say nothing if the file is missing.

    Returns:
        The table, or None without a file.
    """
    if not path.is_file():
        if not optional:
            problems.stop(path.name, f"does not exist; expected it in {path.parent}")
        return None
    lines = path.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
    if not lines:
        problems.stop(path.name, "is empty; expected one line per arc, node or graph")
        return None
    columns = columns or Counter(line.count(",") + 1 for line in lines).most_common(1)[0][0]
    try:
        values = np.loadtxt(lines, delimiter=",", ndmin=2, comments=None)
    except ValueError:
        values = np.empty((0, 0))
    if values.shape == (len(lines), columns):
        whole = (values == np.floor(values)).all(1) & np.isfinite(values).all(1)
        wrong = np.flatnonzero(~whole).tolist() if integers else []
    else:  # Some line is not what it should be: slowly, line by line, find which.
        rows = [_numbers(line, columns, integers) for line in lines]
        wrong = [number for number, row in enumerate(rows) if row is None]
        values = np.array([row or [np.nan] * columns for row in rows])
    kind = "integer" if integers else "number"
    expected = f"one {kind}" if columns == 1 else f"{columns} {kind}s with commas between"
    return Table(
        path.name, values, {number + 1: f"expected {expected}, got '{lines[number][:40]}'" for number in wrong}
    )


def _numbers(line: str, columns: int, integers: bool) -> list[float] | None:
    try:
        row = [float(cell) for cell in line.split(",")]
    except ValueError:
        return None
    if len(row) != columns or (integers and not all(value.is_integer() for value in row)):
        return None
    return row


def _and_more(count: int) -> str:
    return f" (and {count - 1} more such lines)" if count > 1 else ""


def _stop_at_malformed(table: Table, problems: Problems) -> None:
    for line, what in list(table.malformed.items())[:_SHOWN]:
        problems.stop(f"{table.file} line {line}", f"{what}; correct the line")
    if len(table.malformed) > _SHOWN:
        problems.stop(table.file, f"{len(table.malformed) - _SHOWN} more malformed lines")


def _check_values(table: Table, owner: np.ndarray, blame: Callable[[int, str], None]) -> None:
    """Blame each graph once per file: for its first malformed line, else its first NaN or inf."""
    wrong = dict(table.malformed)
    for row in np.flatnonzero(~np.isfinite(table.values).all(1)).tolist():
        wrong.setdefault(row + 1, "expected finite numbers, got NaN or inf")
    found: dict[int, list[int]] = {}
    for line in sorted(wrong):
        found.setdefault(int(owner[line - 1]), []).append(line)
    found.pop(-1, None)  # of arcs that are blamed for themselves
    for graph, lines in found.items():
        blame(graph, f"{table.file} line {lines[0]}: {wrong[lines[0]]}{_and_more(len(lines))}")


def _check_arcs(arcs: Table, owner: np.ndarray, problems: Problems, blame: Callable[[int, str], None]) -> np.ndarray:
    """Report arcs to nodes that do not exist and arcs between graphs; returns which arcs are in order, (E,) bool."""
    ends = arcs.values - 1  # (E, 2)
    exists = (ends >= 0) & (ends < len(owner))
    graphs = np.where(exists, owner[np.where(exists, ends, 0).astype(np.int64)], -1)  # (E, 2)
    found: dict[int, list[tuple[int, str]]] = {}
    for row in np.flatnonzero(graphs[:, 0] != graphs[:, 1]).tolist() + np.flatnonzero(~exists.any(1)).tolist():
        if exists[row].all():
            what = f"arc from graph {graphs[row, 0] + 1} to graph {graphs[row, 1] + 1}; expected both ends in one graph"
        else:
            outside = int(arcs.values[row][~exists[row]][0])
            what = f"expected nodes from 1 to {len(owner)}, got {outside}"
        if not exists[row].any():
            problems.stop(f"{arcs.file} line {row + 1}", what)
        for graph in {int(graph) for graph in graphs[row] if graph >= 0}:
            found.setdefault(graph, []).append((row + 1, what))
    for graph, entries in sorted(found.items()):
        blame(graph, f"{arcs.file} line {entries[0][0]}: {entries[0][1]}{_and_more(len(entries))}")
    good: np.ndarray = exists.all(1) & (graphs[:, 0] == graphs[:, 1])
    return good


def _features(numbers: Table | None, labels: Table | None) -> np.ndarray | None:
    """Node attributes, then node labels one-hot, (N, C); None if there are neither."""
    columns = [] if numbers is None else [numbers.values]
    for column in [] if labels is None else labels.values.T:
        # A malformed line is NaN, whose graph is left out: it must not become a column of its own.
        columns.append(column[:, None] == np.unique(column[np.isfinite(column)]))
    return np.concatenate(columns, axis=1, dtype=np.float32, casting="unsafe") if columns else None


def _targets(targets: Table, regression: bool) -> tuple[Tensor, list[str]]:
    """Targets of all graphs, (G, 1) class numbers or (G, 1, T) values, and the names of the classes or targets."""
    if regression:
        names = [f"attribute {number + 1}" for number in range(targets.values.shape[1])]
        return torch.tensor(targets.values, dtype=torch.float)[:, None], names
    # A class whose graphs are all left out stays one, so that it is missed. A malformed line is NaN: no class, and its
    # graph, which is left out, gets a number past the last one.
    known = np.unique(targets.values[np.isfinite(targets.values)])
    return torch.from_numpy(np.searchsorted(known, targets.values[:, :1])), [str(int(value)) for value in known]


def _divide(
    arcs: np.ndarray, owner: np.ndarray, x: np.ndarray | None, edge_attr: np.ndarray | None, count: int
) -> list[Data]:
    """Cut the big graph of all nodes into its graphs; nodes of one graph need not stand together in the file."""
    order = np.argsort(owner, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=count))])  # (G + 1,)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    ends = place[arcs]  # (E, 2)
    # No repeats, no loops; sorted by the first end, so by graph.
    ends, first = np.unique(ends, axis=0, return_index=True)
    plain = ends[:, 0] != ends[:, 1]
    ends, first = ends[plain], first[plain]
    cut = np.searchsorted(ends[:, 0], start)
    graphs = []
    for graph in range(count):
        nodes = order[start[graph] : start[graph + 1]]
        mine = slice(cut[graph], cut[graph + 1])
        edge_index = torch.from_numpy(ends[mine].T - start[graph]).contiguous()
        features = {} if x is None else {"x": torch.from_numpy(x[nodes])}
        if edge_attr is not None:
            features["edge_attr"] = torch.from_numpy(edge_attr[first[mine]])
        graphs.append(Data(edge_index=edge_index, num_nodes=len(nodes), **features))
    return graphs
