"""What PyG's `y` means, in the shapes that it has: classes, labels that hold or not, or numbers."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from tasks.data.problems import BadInput, Problems

Task = Literal["classification", "regression"]


class Targets(NamedTuple):
    """The targets of some graphs."""

    kind: Literal["class", "labels", "values"]
    values: Tensor
    """(G, T) double, NaN where missing."""

    @property
    def known(self) -> list[float]:
        """All values that are known."""
        found: list[float] = self.values[~self.values.isnan()].tolist()
        return found

    @property
    def said(self) -> str:
        """In words."""
        count, columns = self.values.shape
        what = {"class": "one class", "labels": f"{columns} labels of 0 and 1"}
        words = what.get(self.kind, f"{columns} number{'s' * (columns > 1)}")
        missing = int(self.values.isnan().sum())
        return f"target: {words}" + (f", {100 * missing / (count * columns):.3g} % missing" if missing else "")


def read_targets(
    graphs: Sequence[Data], problems: Problems, *, task: Task | None = None, columns: Sequence[int] | None = None
) -> tuple[list[Data], Targets]:
    """Bring the targets of all graphs to one shape, and find out what they are.

    Args:
        graphs: Graphs with an `id`; `y` is a number, (1,), (T,), (1, T), as a tensor or what becomes one, or missing.
        problems: Takes graphs with another number of targets than most.
        task: Whether targets are classes or numbers; else by their values.
        columns: Which of several to use.

    Returns:
        The graphs that can be used, and their targets.

    Raises:
        BadInput: If there is no such column, or classes are asked for that are none.
    """
    for graph in graphs:
        graph.y = None if graph.y is None else torch.as_tensor(graph.y)
    flat = [torch.empty(0) if graph.y is None else graph.y.reshape(-1) for graph in graphs]
    widths = [len(y) for y in flat if len(y)]
    width = max(set(widths), key=widths.count) if widths else len(columns or (0,))
    rows, good = [], []
    for graph, y in zip(graphs, flat, strict=True):
        if len(y) not in (0, width):
            problems.add(graph.id, f"expected {width} targets in y, as most graphs have, got {len(y)}; one y per graph")
            continue
        good.append(graph)
        rows.append(y.double() if len(y) else torch.full((width,), torch.nan, dtype=torch.double))
    if not good:
        problems.finish(total=len(graphs))
    values = torch.stack(rows)
    if columns is not None:
        if not all(0 <= column < width for column in columns):
            what = f"expected columns from 0 to {width - 1}, which y has, got {list(columns)}"
            raise BadInput(f"target: {what}; correct --data.target")
        values = values[:, list(columns)]
    known = values[~values.isnan()]
    binary = bool(((known == 0) | (known == 1)).all())
    whole = all(graph.y is None or not graph.y.is_floating_point() for graph in good)
    if task == "regression" or (task is None and not binary and not (whole and values.shape[1] == 1)):
        return good, Targets("values", values)
    if values.shape[1] == 1:
        return good, Targets("class", values)
    if not binary:
        what = "expected zeros and ones in several columns of y for classification, got other numbers"
        raise BadInput(f"task: {what}; name one column, --data.target 0")
    return good, Targets("labels", values)
