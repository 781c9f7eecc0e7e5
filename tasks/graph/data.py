"""Graphs as data: the checks, features and folds that every source of graphs shares, and the TU folders."""

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset
from torch_geometric.data import Batch, Data
from torch_geometric.utils import degree

from tasks.data.base import PoolingData, Sample
from tasks.data.digests import digest
from tasks.data.leaks import Identity
from tasks.data.problems import BadInput, Problems
from tasks.data.splits import check_classes, split
from tasks.graph.batches import GraphSet
from tasks.graph.checks import check_graphs
from tasks.graph.colours import colour_names, weisfeiler_leman
from tasks.graph.raw import label_names, match_labels, read_tu

_DEGREES = 64  # highest degree of graphs without features, where the user names none


class GraphData(PoolingData):
    """Graphs from anywhere, checked, and divided into stratified folds with an inner validation part.

    A subclass reads its graphs in `read`, as PyG's `Data` with `edge_index`, `y` and, where there are any, node
    features `x`. A class number is `y` of shape (1,), a regression's targets are `y` of shape (1, T), float. More
    attributes are used where they are set: `id` (a name, for reports and predictions.csv) and, for pictures, `truth`
    (bool per node), `names` (a short text per node) and `smiles`.

    Args:
        num_folds: Folds of the cross-validation: one tests, the others train and validate.
        val: Share of the others that validates.
        degrees: Add node degrees as features, one-hot from 0 to this many or more; 0 adds none. By default graphs
            without features get degrees to 64 and others none.
        size: Add the log of the graph's number of nodes as a feature of each, for classes that differ in size: a mean
            over the nodes cannot count them.
        colours: List the training graphs' Weisfeiler-Leman colours of this many rounds, of which a
            `tasks.graph.GraphTask` then learns features beside the network's.
        kwargs: Options of `tasks.data.base.PoolingData`.

    Example:
        >>> class Rings(GraphData):
        ...     def read(self, problems):
        ...         self.classes = ["odd", "even"]
        ...         ring = lambda n: torch.stack([torch.arange(n), (torch.arange(n) + 1) % n])
        ...         return [Data(edge_index=ring(n), y=torch.tensor([1 - n % 2]), num_nodes=n) for n in range(3, 103)]
        >>> data = Rings(num_folds=5)
        >>> data.spec["classes"], data.spec["class_counts"], len(data.datasets["test"])
        (['odd', 'even'], [36, 36], 20)
    """

    classes: list[str]  # set by `read`: names of the classes, or of the regression's targets
    drawn = True  # whether `parts` draws them, or keeps a split that the graphs came with
    reading: dict[str, Any] | None = None  # set by `read`: how to read one more graph like these

    def __init__(
        self,
        *,
        num_folds: int = 10,
        val: float = 0.1,
        degrees: int | None = None,
        size: bool = False,
        colours: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_folds = num_folds
        self.val = val
        self.degrees = degrees
        self.size = size
        self.colours = colours

    @abstractmethod
    def read(self, problems: Problems) -> list[Data]:
        """Return the graphs that can be used, set `classes`, and report the other graphs to ``problems``."""

    def source(self) -> str:
        """What is read, as the headline of a report names it."""
        return type(self).__name__

    @property
    def folds(self) -> list[int]:
        """All folds."""
        return list(range(self.num_folds))

    def parts(self, targets: list[float], stratify: bool, problems: Problems) -> dict[str, list[int]]:
        """Say which graphs train, validate and test; none of this depends on the training's seed."""
        largest = max(Counter(targets).values()) if stratify else len(targets)
        if self.num_folds > largest:
            what = "the size of the largest class" if stratify else "the number of graphs"
            problems.stop(
                "num_folds", f"expected at most {largest}, {what}, got {self.num_folds}; lower --data.num_folds"
            )
            return {}
        return split(targets, folds=self.num_folds, fold=self.fold, val=self.val, seed=self.seed, stratify=stratify)

    def load(self) -> None:
        """Read the graphs, check them, complete their features and divide them."""
        problems = Problems(self.source(), on_bad=self.on_bad)
        graphs = self.read(problems)
        graphs = check_graphs(graphs, len(self.classes), problems)
        if graphs and self.trained is not None and not problems.fatal:
            kind = "regression" if graphs[0].y.is_floating_point() else "multiclass"
            self.trained.accept(kind, self.classes if kind == "regression" else None)
            graphs = [graph for graph in graphs if self._for_model(graph, problems)]
            self.classes = list(self.trained.spec["classes"])
        if graphs and not problems.fatal:
            self._divide(graphs, problems)
        elif not problems.fatal and not problems.samples:
            problems.stop("graphs", "expected at least one, got none")
        problems.finish(total=len(graphs) + len({line.split(": ")[0] for line in problems.samples}))

    def _divide(self, graphs: list[Data], problems: Problems) -> None:
        regression = graphs[0].y.is_floating_point()
        if not regression and len(self.classes) < 2:
            problems.stop("classes", f"expected at least two, got {self.classes}; add graphs of another class")
            return
        if self.trained is None and not regression and self.positive == self.classes[0] and len(self.classes) == 2:
            self.classes = self.classes[::-1]
            for graph in graphs:
                graph.y = 1 - graph.y
        targets = [0.0 if regression else float(graph.y) for graph in graphs]
        digests = [digest(graph.id, str(graph.num_nodes), graph.edge_index.numpy().tobytes()) for graph in graphs]
        if self.drawn and self.all_new(digests):
            parts: dict[str, list[int]] = {"train": [], "val": [], "test": list(range(len(graphs)))}
        else:
            parts = self.parts(targets, not regression, problems)
        if not parts:
            return
        contents = graph_contents(graphs)

        def identify(number: int) -> Identity:
            graph = graphs[number]
            target = tuple(graph.y.flatten().tolist())
            return Identity(graph.id, graph.id, {"content": contents[number]}, target)

        parts = self.without_leaks(parts, identify, problems)
        self._spec = self._describe(graphs, targets, parts, problems) if self.trained is None else self.trained.spec
        together = GraphSet(graphs)
        self._digests = {part: [digests[i] for i in numbers] for part, numbers in parts.items()}
        self.datasets = {part: Subset(together, numbers) for part, numbers in parts.items()}
        self._samples = {
            part: [Sample(graphs[i].id, target=graphs[i].y.squeeze(0)) for i in numbers]
            for part, numbers in parts.items()
        }

    def _for_model(self, graph: Data, problems: Problems) -> bool:
        """Give a graph the features and the class number that a trained model knows; report it if there are none."""
        assert self.trained is not None
        spec, reading = self.trained.spec, self.trained.spec["reading"]
        wrong = None if graph.y.is_floating_point() else self.trained.unknown(self.classes[int(graph.y)])
        try:
            if reading is not None and self.reading is not None:
                graph.x = match_labels(graph.x, self.reading["node_labels"], reading["node_labels"])
            graph.x = node_features(graph, **spec["features"])
            if graph.x.shape[1] != spec["channels"]:
                raise BadInput(
                    f"expected {spec['channels']} features per node, as the model has, got {graph.x.shape[1]}"
                )
        except BadInput as error:
            wrong = wrong or str(error)
        if wrong:
            problems.add(graph.id, wrong)
        elif not graph.y.is_floating_point():
            graph.y = torch.tensor([spec["classes"].index(self.classes[int(graph.y)])])
        return wrong is None

    def _describe(
        self, graphs: list[Data], targets: list[float], parts: dict[str, list[int]], problems: Problems
    ) -> dict[str, Any]:
        """Complete the graphs' features, and say what a task must know."""
        regression = graphs[0].y.is_floating_point()
        highest = (_DEGREES if graphs[0].x is None else 0) if self.degrees is None else self.degrees
        for graph in graphs:
            graph.x = node_features(graph, highest, size=self.size)
        train = [graphs[i] for i in parts["train"]]
        spec: dict[str, Any] = {"classes": self.classes, "channels": graphs[0].x.shape[1], **feature_scale(train)}
        in_degrees = torch.cat([degree(graph.edge_index[1], graph.num_nodes, torch.long) for graph in train])
        spec["features"] = {"degrees": highest, "size": self.size}
        spec["reading"] = self.reading
        # Columns of zeros and ones, of those that come from the data, say what a node is.
        width = spec["channels"] - own_columns(spec)
        plain = zip(spec["feature_mean"][:width], spec["feature_std"][:width], strict=True)
        spec["label_columns"] = [i for i, (mean, std) in enumerate(plain) if mean == 0 and std == 1]
        if self.colours is not None:
            together = Batch.from_data_list(train)
            names = colour_names(together.x[:, spec["label_columns"]], together.edge_index, self.colours)
            spec["colours"] = {"rounds": self.colours, "names": names}
        spec["degree_histogram"] = in_degrees.bincount().tolist()  # PNA scales by the training graphs' degrees
        if regression:
            y = torch.cat([graph.y for graph in train])
            # A single graph, or equal targets, leave nothing to divide by.
            std = y.std(0, correction=0)
            spec |= {
                "kind": "regression",
                "target_mean": y.mean(0).tolist(),
                "target_std": std.where(std > 0, 1.0).tolist(),
            }
        else:
            chosen = {part: [int(targets[i]) for i in numbers] for part, numbers in parts.items()}
            spec["kind"] = "binary" if len(self.classes) == 2 else "multiclass"
            spec["class_counts"] = check_classes(chosen, self.classes, problems)
        return spec

    def digests(self, part: str) -> list[int]:
        """By name and edges: in sets of small graphs many are alike, and some are in training and test."""
        return self._digests[part]

    def collate(self, samples: Batch | Iterable[Data]) -> Batch:
        """One disjoint graph of many, PyG's `Batch`; the data's own sets give it at once."""
        return samples if isinstance(samples, Batch) else Batch.from_data_list(list(samples))

    def class_of(self, sample: Data) -> int:
        """Its one number in `y`."""
        return int(sample.y)

    def elements(self, sample: Data) -> int:
        """Nodes of the graph: batches have no padding, but with `buckets` they differ more in size."""
        return int(sample.num_nodes)


class TUData(GraphData):
    """Any TU folder, ``root/NAME/raw/NAME_*.txt``, offline: nothing is downloaded and nothing is written beside it.

    Node labels become one-hot features, node attributes are standardised, and graphs with neither get their degrees.
    Edge labels are not used. Repeated arcs and self loops are dropped, as PyG's `TUDataset` does. What node labels mean
    is read from the folder's README.txt, for the pictures.

    Args:
        root: Folder that holds the data set's own folder.
        name: Name of the data set: ``MUTAG`` for ``root/MUTAG/raw/MUTAG_A.txt``.
        attributes: Use the node attributes where there are any.
        regression: Predict the numbers in ``NAME_graph_attributes.txt`` instead of the class in
            ``NAME_graph_labels.txt``.
        kwargs: Options of `GraphData` and `tasks.data.base.PoolingData`.
    """

    def __init__(
        self,
        root: str,
        name: str,
        *,
        attributes: bool = True,
        regression: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.root = root
        self.name: str = name
        self.attributes = attributes
        self.regression = regression

    def source(self) -> str:
        """The folder."""
        return str(Path(self.root) / self.name / "raw")

    def read(self, problems: Problems) -> list[Data]:
        """Read the text files."""
        trained = self.trained.spec["reading"] if self.trained is not None else None
        attributes = self.attributes if trained is None else trained["attributes"]
        graphs, self.classes, labels = read_tu(
            self.root, self.name, problems, attributes=attributes, regression=self.regression
        )
        known = label_names(Path(self.root) / self.name / "raw")
        names = [known.get(label, str(label)) for label in labels]
        self.reading = {"attributes": self.attributes, "node_labels": labels, "node_names": names}
        return graphs


def node_features(graph: Data, degrees: int, *, size: bool = False) -> Tensor:
    """Complete a graph's features.

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
    """How many feature columns, the last ones, do not come from the data: degrees and size."""
    features = spec["features"]
    columns: int = (features["degrees"] + 1 if features["degrees"] else 0) + features["size"]
    return columns


def graph_contents(graphs: list[Data], rounds: int = 4) -> list[int]:
    """What tells graphs apart whatever the order of their nodes: equal for equal graphs, and hardly ever for others.

    It is made of the colours of Weisfeiler and Leman's refinement, begun with the nodes' features; graphs that the
    refinement cannot tell apart (regular ones without features) count as equal.

    Args:
        graphs: Graphs as they were read.
        rounds: How far, in edges, the colours look.
    """
    together = Batch.from_data_list(
        [Data(x=one.x, edge_index=one.edge_index, num_nodes=one.num_nodes) for one in graphs]
    )
    kinds = torch.zeros(together.num_nodes, dtype=torch.long)
    if together.x is not None:
        kinds = together.x.unique(dim=0, return_inverse=True)[1]
    bits = (kinds[:, None] >> torch.arange(32)) & 1  # as zeros and ones, which colours begin with
    last = weisfeiler_leman(bits, together.edge_index, rounds)[-1].numpy()
    cuts = np.split(last, together.ptr[1:-1].numpy())
    return [digest(str(one.num_edges), np.sort(cut).tobytes()) for one, cut in zip(graphs, cuts, strict=True)]


def feature_scale(graphs: list[Data]) -> dict[str, list[float]]:
    """Mean and standard deviation of each feature over the graphs' nodes; columns of zeros and ones keep 0 and 1.

    Args:
        graphs: The training graphs.

    Returns:
        ``feature_mean`` and ``feature_std``, C numbers each.
    """
    x = torch.cat([graph.x for graph in graphs]).double().numpy()  # (N, C)
    mean, std = x.mean(0), x.std(0)
    plain = np.isin(x, (0.0, 1.0)).all(0) | (std < 1e-12 * np.abs(mean).clip(1))
    return {"feature_mean": np.where(plain, 0.0, mean).tolist(), "feature_std": np.where(plain, 1.0, std).tolist()}
