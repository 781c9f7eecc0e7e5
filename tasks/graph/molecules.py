"""Molecules from a table of SMILES."""

from collections.abc import Hashable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch_geometric.data import Data

from tasks.data.base import Sample
from tasks.data.digests import digest
from tasks.data.manifest import Row, read_manifest
from tasks.data.problems import BadInput, Problems
from tasks.extras import require
from tasks.graph.data import GraphData
from tasks.graph.targets import Task
from tasks.graph.understanding import PART_NAMES, Understood, number, understand


class MoleculeData(GraphData):
    """A table of SMILES and targets, as RDKit and PyG's `from_smiles` make graphs of it.

    Columns that are not named are guessed, and what was understood is printed. One column of classes, one or several
    of numbers, or several of 0 and 1 (each a label that holds or not); in several, empty cells are missing, and rows
    without any target are kept to be predicted. Rows that do not parse are named. `split` may also be a column with
    train, val and test.

    Args:
        root: A .csv, .tsv, .csv.gz, .json, .jsonl or .parquet file.
        smiles: Column of the SMILES; guessed unless given.
        target: Column or columns to predict; guessed unless given.
        task: Whether the targets are classes or numbers; guessed unless given.
        kwargs: Options of `GraphData` and `tasks.data.base.PoolingData`.
    """

    def __init__(
        self,
        root: str,
        *,
        smiles: str | None = None,
        target: str | list[str] | None = None,
        task: Task | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        require("rdkit", extra="chem", what=type(self).__name__)
        self.root = root
        self.smiles, self.target, self.task = smiles, target, task
        self._rows: dict[str, Row] = {}
        self._canonical: dict[str, str] = {}

    def source(self) -> str:
        """The file's name."""
        return Path(self.root).name

    @cached_property
    def table(self) -> list[Row]:
        """The rows of the file."""
        return read_manifest(self.root, required=())

    @cached_property
    def understood(self) -> Understood:
        """What the columns are; where a model is given, those that it was trained on."""
        column = None if self.split in (None, "random", "stratified", "scaffold") else self.split
        known = None if self.trained is None else self.trained.spec["reading"] or {}
        if known is None:
            return understand(
                self.table, self.source(), smiles=self.smiles, target=self.target, task=self.task, split=column
            )
        if "targets" not in known:
            raise BadInput(f"{self.source()}: expected a model that was trained on molecules, got another's checkpoint")
        columns = {name for row in self.table for name in row}
        there = [name for name in known["targets"] if name in columns]
        smiles = self.smiles or (known["smiles"] if known["smiles"] in columns else None)
        found = understand(self.table, self.source(), smiles=smiles, target=there, split=column)
        return found._replace(targets=there, kind=known["kind"])

    @property
    def brings_split(self) -> bool:
        """Whether a column says train, val and test."""
        return self.understood.split is not None

    @property
    def repeated(self) -> list[str]:
        """The SMILES."""
        return [self.understood.smiles]

    def read(self, problems: Problems) -> list[Data]:
        """Make the graphs, and report rows that are no molecule or have a target that is none."""
        from tasks.graph.chemistry import canonical, molecule_graph

        found = self.understood
        rank_zero_info(found.said)
        if not found.targets and self.trained is None:
            raise BadInput(f"{self.source()}: expected a column to predict, got none; name it, --data.target COLUMN")
        graphs = []
        for place, row in enumerate(self.table):
            smiles = row.get(found.smiles)
            where = f"{row.where} ({_short(str(smiles))})" if smiles else row.where
            try:
                if smiles is None:
                    raise BadInput(f"column {found.smiles} is empty; fill it in or delete the row")
                graph = molecule_graph(str(smiles))
            except BadInput as error:
                problems.add(where, str(error))
                continue
            graph.id = str(row[found.id]) if found.id else f"{Path(self.root).name.partition('.')[0]}-{row.number}"
            graph.row = place
            wrong = list(self._wrong(row, found))
            for what in wrong:
                problems.add(where, what)
            if not wrong:
                self._mark(graph, row, found)
                self._rows[graph.id], self._canonical[graph.id] = row, canonical(graph.smiles)
                graphs.append(graph)
        self._targets(graphs, found, problems)
        return graphs

    def _wrong(self, row: Row, found: Understood) -> list[str]:
        wrong = []
        for column in found.targets:
            value = row.get(column)
            if value is None:
                continue
            if found.kind == "values" and number(value) is None:
                wrong.append(f"expected a number in column {column}, got '{value}'; correct it or empty the cell")
            if found.kind == "labels" and number(value) not in (0, 1):
                wrong.append(f"expected 0 or 1 in column {column}, got '{value}'; several columns are yes/no labels")
        part = row.get(found.split) if found.split else None
        if part is not None and str(part).lower() not in PART_NAMES:
            wrong.append(f"expected train, val or test in column {found.split}, got '{part}'; correct it")
        return wrong

    def _mark(self, graph: Data, row: Row, found: Understood) -> None:
        """Say which part a row is in."""
        if found.split and self.split not in ("random", "stratified", "scaffold"):
            graph.part = PART_NAMES[str(row.get(found.split) or "train").lower()]
        if all(row.get(column) is None for column in found.targets):
            graph.part = "predict"

    def _targets(self, graphs: list[Data], found: Understood, problems: Problems) -> None:
        """Give each graph its `y`, and say what the targets are."""
        self.multilabel = found.kind == "labels"
        self.reading = {"smiles": found.smiles, "targets": found.targets, "kind": found.kind}
        if found.kind != "class":
            self.classes = list(found.targets) if self.trained is None else list(self.trained.spec["classes"])
            for graph in graphs:
                cells = [number(self._rows[graph.id].get(name)) for name in self.classes]
                graph.y = torch.tensor([[float("nan") if cell is None else cell for cell in cells]])
            return
        words = {
            one.id: _word(self._rows[one.id].get(found.targets[0])) for one in graphs if one.get("part") != "predict"
        }
        self.classes = self.order_classes(problems, words.values())
        for graph in graphs:
            if graph.id not in words:
                graph.y = torch.full((1,), float("nan"))
            elif words[graph.id] in self.classes:
                graph.y = torch.tensor([self.classes.index(words[graph.id])])
            else:
                problems.add(self._rows[graph.id].where, f"class {words[graph.id]} is none of the model's")
                graph.y = None

    def _known(self, graph: Data) -> Sample:
        return super()._known(graph)._replace(columns=self._rows[graph.id])

    def contents_of(self, graphs: list[Data]) -> Sequence[Hashable]:
        """One spelling of each molecule."""
        return [self._canonical[graph.id] for graph in graphs]

    def digest_of(self, graph: Data) -> int:
        """By the molecule, whatever it is called."""
        return digest(self._canonical[graph.id])


def _short(smiles: str) -> str:
    """The beginning of a long SMILES."""
    return smiles if len(smiles) <= 60 else f"{smiles[:59]}…"


def _word(value: Any) -> str:
    """A class's name: 1 and 1.0 are one."""
    found = number(value)
    return str(value) if found is None or not found.is_integer() else str(int(found))
