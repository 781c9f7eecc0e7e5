"""Graphs as data: the checks, features and folds that every source of graphs shares, and the TU folders."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import Subset
from torch_geometric.data import Batch, Data
from torch_geometric.utils import degree

from tasks.data.base import PoolingData, Sample
from tasks.data.digests import digest
from tasks.data.leaks import Identity
from tasks.data.problems import BadInput, Problems
from tasks.data.split_files import read_splits
from tasks.data.splits import check_classes, split
from tasks.graph.batches import GraphSet
from tasks.graph.checks import check_graphs, kind_of
from tasks.graph.colours import count_colours
from tasks.graph.contents import graph_contents
from tasks.graph.crops import GraphCrops
from tasks.graph.features import complete, conform, feature_scale, learn_features, own_columns
from tasks.graph.names import read_names
from tasks.graph.parts import describe_targets, divide, without_marks
from tasks.graph.raw import label_names, read_tu
from tasks.graph.transforms import describe_transforms, own_edges, transformed

_DEGREES = 64  # highest degree of graphs without features, where the user names none


class GraphData(PoolingData):
    """Graphs from anywhere, checked, and divided into stratified folds with an inner validation part.

    A subclass reads its graphs in `read`, as PyG's `Data` with `edge_index`, `y` and, where there are any, features of
    nodes, `x`, and edges, `edge_attr`. Whole numbers in them are kinds, and become one-hot columns of the values that
    training graphs have; floats are numbers, and standardised. A class number is `y` of shape (1,), a regression's
    targets are `y` of shape (1, T), float; where `multilabel` is set, these are zeros and ones of T labels. NaN among
    several targets is missing. More attributes are used where they are set: `id` (a name, for reports and
    predictions.csv), `part` ("train", "val" or "test", of a split that the graphs come with, or "predict" for one
    without a target) and, for pictures, `truth` (bool per node), `names` (a short text per node) and `smiles`.

    Args:
        num_folds: Folds of the cross-validation: one tests, the others train and validate.
        val: Share of the others that validates.
        split: How parts are drawn: "random", "stratified" (each class has its share in all parts) or "scaffold" (of
            molecules, a fixed split: `tasks.graph.chemistry.scaffold_split`); None = as the graphs come, else
            stratified for classes and random for others.
        splits: A JSON file with the split, or a list of splits as folds (`tasks.data.split_files.read_splits`).
        degrees: Add node degrees as features, one-hot from 0 to this many or more; 0 adds none. By default graphs
            without features get degrees to 64 and others none.
        size: Add the log of the graph's number of nodes as a feature of each, for classes that differ in size: a mean
            over the nodes cannot count them.
        transform: Class path of one of PyG's transforms, or several, as a list, with ``class_path`` and ``init_args``:
            done to every graph when it is read (`tasks.graph.transforms`).
        transform_args: Arguments of the one transform.
        descriptors: Add RDKit's descriptors of the whole molecule (of `smiles`) as features of each of its atoms.
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

    classes: list[str]  # set by `read`: names of the classes, the labels, or the regression's targets
    multilabel = False  # set by `read`: whether targets of shape (1, T) are zeros and ones
    drawn = True  # whether `parts` draws them, or keeps a split that the graphs came with
    reading: dict[str, Any] | None = None  # set by `read`: how to read one more graph like these

    def __init__(
        self,
        *,
        num_folds: int = 10,
        val: float = 0.1,
        split: str | None = None,
        splits: str | None = None,
        degrees: int | None = None,
        size: bool = False,
        descriptors: bool = False,
        transform: str | list[str | dict[str, Any]] | None = None,
        transform_args: dict[str, Any] | None = None,
        colours: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_folds = num_folds
        self.val = val
        self.split, self.splits = split, splits
        self.degrees = degrees
        self.size = size
        self.descriptors = descriptors
        self.transforms = describe_transforms(transform, transform_args)
        self.colours = colours

    @abstractmethod
    def read(self, problems: Problems) -> list[Data]:
        """Return the graphs that can be used, set `classes`, and report the other graphs to ``problems``."""

    def source(self) -> str:
        """What is read, as the headline of a report names it."""
        return type(self).__name__

    @property
    def folds(self) -> list[int]:
        """All folds; one for a fixed split."""
        if self.splits is not None:
            return list(range(len(read_splits(self.splits))))
        fixed = self.split == "scaffold" or (self.split is None and self.brings_split)
        return [0] if fixed else list(range(self.num_folds))

    @property
    def brings_split(self) -> bool:
        """Whether the graphs come with their `part`; asked before they are read."""
        return False

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
        total = len(graphs) + len({line.split(": ")[0] for line in problems.samples})
        known = self.transforms if self.trained is None else self.trained.spec.get("transforms", [])
        graphs = transformed(graphs, known, problems)
        asked = [graph for graph in graphs if graph.get("part") == "predict"]
        graphs = [graph for graph in graphs if graph.get("part") != "predict"]
        if self.trained is not None and not problems.fatal:
            if graphs:
                kind = kind_of(graphs[0], self.multilabel)
                self.trained.accept(kind, None if kind == "multiclass" else self.classes)
            graphs, asked = ([one for one in each if self._for_model(one, problems)] for each in (graphs, asked))
            self.classes = list(self.trained.spec["classes"])
        if graphs and not problems.fatal:
            self._divide(graphs, problems)
        elif not problems.fatal and not problems.samples and (self.trained is None or not asked):
            what = "at least one" if not asked else "at least one with a target"
            problems.stop("graphs", f"expected {what}, got none")
        problems.finish(total=total)
        if asked:
            self._ask(asked)

    def _divide(self, graphs: list[Data], problems: Problems) -> None:
        kind = kind_of(graphs[0], self.multilabel)
        single = kind == "multiclass"
        if single and len(self.classes) < 2:
            problems.stop("classes", f"expected at least two, got {self.classes}; add graphs of another class")
            return
        if self.trained is None and single and self.positive == self.classes[0] and len(self.classes) == 2:
            self.classes = self.classes[::-1]
            for graph in graphs:
                graph.y = 1 - graph.y
        targets = [float(graph.y) if single else 0.0 for graph in graphs]
        digests = [self.digest_of(graph) for graph in graphs]
        if self.drawn and self.all_new(digests):
            parts: dict[str, list[int]] = {"train": [], "val": [], "test": list(range(len(graphs)))}
        else:
            parts = divide(self, graphs, targets, single, problems)
        if self.descriptors and not all("smiles" in graph for graph in graphs):
            problems.stop(
                "descriptors", "expected molecules with smiles, got other graphs; leave --data.descriptors out"
            )
        if not parts or problems.fatal:
            return
        contents = self.contents_of(graphs)

        def identify(number: int) -> Identity:
            graph = graphs[number]
            target = tuple(graph.y.nan_to_num(-1).flatten().tolist())
            return Identity(graph.id, graph.id, {"content": contents[number]}, target)

        parts = self.without_leaks(parts, identify, problems)
        self._spec = self._describe(graphs, targets, parts, problems) if self.trained is None else self.trained.spec
        together = GraphSet([without_marks(graph) for graph in graphs])
        self._digests = {part: [digests[i] for i in numbers] for part, numbers in parts.items()}
        self._contents = {part: [contents[i] for i in numbers] for part, numbers in parts.items()}
        self.datasets = {part: Subset(together, numbers) for part, numbers in parts.items()}
        self._samples = {part: [self._known(graphs[i]) for i in numbers] for part, numbers in parts.items()}

    def _ask(self, graphs: list[Data]) -> None:
        """Keep graphs without a target, to be predicted."""
        if self.trained is None:
            rank_zero_info(f"{len(graphs)} without a target are left to predict")
            for graph in graphs:
                complete(graph, self._spec["features"])
        else:
            self._spec = self.trained.spec
        self._digests = {**getattr(self, "_digests", {}), "predict": [self.digest_of(graph) for graph in graphs]}
        self._samples["predict"] = [self._known(graph)._replace(target=None) for graph in graphs]
        self.datasets["predict"] = Subset(GraphSet([without_marks(graph) for graph in graphs]), range(len(graphs)))

    def _known(self, graph: Data) -> Sample:
        return Sample(graph.id, target=graph.y.squeeze(0))

    def contents_of(self, graphs: list[Data]) -> Sequence[Hashable]:
        """What tells the graphs' contents apart, where leaks are looked for."""
        return graph_contents(graphs)

    def digest_of(self, graph: Data) -> int:
        """By name and edges: in sets of small graphs many are alike, and some are in training and test."""
        return digest(graph.id, str(graph.num_nodes), graph.edge_index.numpy().tobytes())

    def _for_model(self, graph: Data, problems: Problems) -> bool:
        """Give a graph the features and the class number that a trained model knows; report it if there are none."""
        assert self.trained is not None
        spec = self.trained.spec
        single = not graph.y.is_floating_point()
        wrong = self.trained.unknown(self.classes[int(graph.y)]) if single else None
        try:
            conform(graph, spec, self.reading)
        except BadInput as error:
            wrong = wrong or str(error)
        if wrong:
            problems.add(graph.id, wrong)
        elif single:
            graph.y = torch.tensor([spec["classes"].index(self.classes[int(graph.y)])])
        return wrong is None

    def _describe(
        self, graphs: list[Data], targets: list[float], parts: dict[str, list[int]], problems: Problems
    ) -> dict[str, Any]:
        """Complete the graphs' features, and say what a task must know."""
        highest = (_DEGREES if graphs[0].x is None else 0) if self.degrees is None else self.degrees
        features = learn_features(
            [graphs[i] for i in parts["train"]], degrees=highest, size=self.size, descriptors=self.descriptors
        )
        for graph in graphs:
            complete(graph, features)
        train = [graphs[i] for i in parts["train"]]
        spec: dict[str, Any] = {"classes": self.classes, "channels": graphs[0].x.shape[1], **feature_scale(train)}
        spec["edge_features"] = 0 if graphs[0].edge_attr is None else graphs[0].edge_attr.shape[1]
        in_degrees = torch.cat([degree(graph.edge_index[1], graph.num_nodes, torch.long) for graph in train])
        spec |= {"features": features, "reading": self.reading, "transforms": self.transforms}
        # Columns of zeros and ones, of those that come from the data, say what a node is.
        width = spec["channels"] - own_columns(spec)
        plain = zip(spec["feature_mean"][:width], spec["feature_std"][:width], strict=True)
        spec["label_columns"] = [i for i, (mean, std) in enumerate(plain) if mean == 0 and std == 1]
        if self.colours is not None:
            together = Batch.from_data_list(train)
            labels, edges = together.x[:, spec["label_columns"]], own_edges(together)
            counted = count_colours(labels, edges, together.batch, self.colours)
            spec["colours"] = {"rounds": self.colours, **counted}
        spec["degree_histogram"] = in_degrees.bincount().tolist()  # PNA scales by the training graphs' degrees
        kind = kind_of(graphs[0], self.multilabel)
        if kind == "multiclass":
            chosen = {part: [int(targets[i]) for i in numbers] for part, numbers in parts.items()}
            spec["kind"] = "binary" if len(self.classes) == 2 else "multiclass"
            spec["class_counts"] = check_classes(chosen, self.classes, problems)
            return spec
        y = torch.cat([graph.y for graph in train])
        return spec | {"kind": kind, **describe_targets(kind, self.classes, y, problems)}

    def digests(self, part: str) -> list[int]:
        """Of `digest_of`."""
        return self._digests[part]

    def contents(self, part: str) -> Sequence[Hashable]:
        """Of `contents_of` all graphs together; of those to be predicted, as they are read."""
        found: dict[str, Sequence[Hashable]] = getattr(self, "_contents", {})
        return found.get(part, self._digests[part])

    def collate(self, samples: Batch | Iterable[Data]) -> Batch:
        """One disjoint graph of many, PyG's `Batch`; the data's own sets give it at once."""
        return samples if isinstance(samples, Batch) else Batch.from_data_list(list(samples))

    def class_of(self, sample: Data) -> int:
        """Its one number in `y`."""
        return int(sample.y)

    def crops(self) -> GraphCrops:
        """Views for training without labels."""
        return GraphCrops()

    def elements(self, sample: Data) -> int:
        """Nodes of the graph: batches have no padding, but with `buckets` they differ more in size."""
        return int(sample.num_nodes)


class TUData(GraphData):
    """Any TU folder, ``root/NAME/raw/NAME_*.txt``, offline: nothing is downloaded and nothing is written beside it.

    Node labels become one-hot features, node attributes are standardised, and graphs with neither get their degrees.
    Edges have features in the same way. Repeated arcs and self loops are dropped, as PyG's `TUDataset` does, and arcs
    stay as they are directed. What labels mean is read from the folder's README.txt, for the pictures.

    Args:
        root: Folder that holds the data set's own folder.
        name: Name of the data set: ``MUTAG`` for ``root/MUTAG/raw/MUTAG_A.txt``.
        attributes: Use the attributes of nodes and edges where there are any.
        regression: Predict the numbers in ``NAME_graph_attributes.txt`` instead of the class in
            ``NAME_graph_labels.txt``.
        node_names: A file that says what node labels mean, for the pictures: ``0 C`` a line; whole numbers are atomic
            ones. By default the folder's README.txt.
        kwargs: Options of `GraphData` and `tasks.data.base.PoolingData`.
    """

    def __init__(
        self,
        root: str,
        name: str,
        *,
        attributes: bool = True,
        regression: bool = False,
        node_names: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.root = root
        self.node_names = node_names
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
        found = read_tu(self.root, self.name, problems, attributes=attributes, regression=self.regression)
        self.classes = found.classes
        self.reading = {"attributes": self.attributes}
        for what, labels in (("node", found.node_labels), ("edge", found.edge_labels)):
            file = self.node_names if what == "node" else None
            known = label_names(Path(self.source()), what) if file is None else read_names(file)
            names = [known.get(label, str(label)) for label in labels]
            self.reading |= {f"{what}_labels": labels, f"{what}_names": names}
        return found.graphs
