"""Any graphs that PyG has: one of its data sets by class path, a file of `Data` objects, or the objects themselves."""

import copy
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch_geometric.data import Data, Dataset

from tasks.data.problems import BadInput, Problems
from tasks.graph.data import GraphData
from tasks.graph.ogb import read_ogb
from tasks.graph.stored import read_stored
from tasks.graph.targets import Targets, Task, read_targets


class PyGData(GraphData):
    """Graphs as PyG has them, with the targets in `y` as they are.

    `y` may be a float of shape (1, 1), an integer of (1, 1) or (1,), or (1, T) with NaN for what is missing. Whole
    numbers in one column, and zeros and ones, are classes; zeros and ones in many columns are many labels; all else
    are numbers. What was understood is printed. Graphs without a target are kept to be predicted. A data set that has
    OGB's ``get_idx_split`` is divided by it.

    Args:
        dataset: A data set of PyG (from the command line its class path, ``--data.dataset
            torch_geometric.datasets.MoleculeNet``, with its own arguments, ``--data.dataset.name ESOL``), `Data`
            objects, a file that `torch.save` or `InMemoryDataset.save` wrote of them (nothing in it is run), or a
            folder in OGB's layout.
        target: The columns of `y` to use, from 0; all unless given.
        task: Whether targets are classes or numbers; by their values unless given.
        names: What the classes, labels or numbers are called.
        kwargs: Options of `GraphData` and `tasks.data.base.PoolingData`.

    Example:
        >>> graphs = [Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=2, y=torch.tensor([[n / 7]]))
        ...           for n in range(20)]
        >>> data = PyGData(graphs, num_folds=4)
        >>> data.spec["kind"], data.spec["classes"]
        ('regression', ['target 0'])
    """

    def __init__(
        self,
        dataset: Dataset | str | Sequence[Data],
        *,
        target: int | list[int] | None = None,
        task: Task | None = None,
        names: list[str] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.dataset = dataset
        self.target = [target] if isinstance(target, int) else target
        self.task: Task | None = task
        self.names = names

    def source(self) -> str:
        """The file, or the data set's class."""
        return Path(self.dataset).name if isinstance(self.dataset, str) else type(self.dataset).__name__

    @cached_property
    def graphs(self) -> list[Data]:
        """The graphs as they are stored."""
        found: Iterable[Any] = self.dataset
        if isinstance(self.dataset, str):
            found = read_ogb(self.dataset) if Path(self.dataset).is_dir() else read_stored(self.dataset)
        graphs = list(found)
        strange = next((one for one in graphs if not isinstance(one, Data)), None)
        if strange is not None:
            got = type(strange).__name__
            raise BadInput(f"{self.source()}: expected PyG's Data objects, got {got}; give a list of them")
        return graphs

    @property
    def brings_split(self) -> bool:
        """Whether the data set knows its parts."""
        return hasattr(self.dataset, "get_idx_split") or any("part" in graph for graph in self.graphs)

    def read(self, problems: Problems) -> list[Data]:
        """Take the graphs, and understand their targets."""
        graphs = [copy.copy(graph) for graph in self.graphs]
        for number, graph in enumerate(graphs):
            name = graph.get("id", graph.get("name"))
            graph.id, graph.row = name if isinstance(name, str) else f"graph-{number + 1}", number
        if hasattr(self.dataset, "get_idx_split"):
            for part, numbers in self.dataset.get_idx_split().items():
                for number in numbers.tolist():
                    graphs[number].part = "val" if part == "valid" else part
        return self.understand(graphs, problems)

    def understand(self, graphs: list[Data], problems: Problems) -> list[Data]:
        """Give graphs a `y` as `GraphData` has it, and say what the targets are."""
        if not graphs:
            raise BadInput(f"{self.source()}: expected at least one graph, got none")
        graphs, found = read_targets(graphs, problems, task=self.task, columns=self.target)
        rank_zero_info(f"understood: {len(graphs)} graphs; {columns_of(graphs[0])}; {found.said}")
        self.multilabel, self.reading = found.kind == "labels", _reading(graphs[0])
        if found.kind == "class":
            self._classes(graphs, found, problems)
        else:
            self.classes = self._named([f"target {column}" for column in self.target or range(found.values.shape[1])])
            for graph, row in zip(graphs, found.values, strict=True):
                graph.y = row[None].float()
        for graph, row in zip(graphs, found.values, strict=True):
            if row.isnan().all():
                graph.part = "predict"
        return graphs

    def _classes(self, graphs: list[Data], found: Targets, problems: Problems) -> None:
        """Number the classes, of two the positive one last."""
        values = sorted(set(found.known))
        names = dict(zip(values, self._named([f"{value:g}" for value in values]), strict=True))
        counts = Counter(names[value] for value in found.known)
        self.classes = self.order_classes(problems, counts.elements())
        for graph, (value,) in zip(graphs, found.values.tolist(), strict=True):
            if value != value:  # to be predicted
                graph.y = torch.full((1,), float("nan"))
            elif names[value] in self.classes:
                graph.y = torch.tensor([self.classes.index(names[value])])
            else:
                problems.add(graph.id, f"class {names[value]} is none of the model's; leave it out")
                graph.y = None

    def _named(self, found: list[str]) -> list[str]:
        if self.names is not None and len(self.names) != len(found):
            raise BadInput(f"names: expected {len(found)}, of {', '.join(found)}, got {len(self.names)}; name each")
        return list(self.names or found)


def _reading(graph: Data) -> dict[str, Any] | None:
    """How to read one more graph like this: from a SMILES, if that is where it is from."""
    try:
        from tasks.graph.chemistry import molecule_graph

        peer = molecule_graph(graph.smiles) if "smiles" in graph else None
    except (BadInput, ImportError):
        peer = None
    same = peer is not None and all(
        graph.get(key) is not None and torch.equal(graph[key], peer[key]) for key in ("x", "edge_index", "edge_attr")
    )
    return {"smiles": "smiles"} if same else None


def columns_of(graph: Data) -> str:
    """The columns of nodes and edges in words."""

    def words(values: torch.Tensor | None, what: str) -> str:
        if values is None:
            return f"no features of {what}"
        kind = "numbers" if values.is_floating_point() else "whole numbers"
        return f"{1 if values.ndim == 1 else values.shape[1]} columns of {kind} for {what}"

    return f"{words(graph.x, 'nodes')}, {words(graph.edge_attr, 'edges')}"
