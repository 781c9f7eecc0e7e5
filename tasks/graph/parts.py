"""Which graphs train, validate and test, where that is not drawn at random, and what their targets are like."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch_geometric.data import Data

from tasks.data.problems import OnBad, Problems
from tasks.data.split_files import pick, read_splits
from tasks.data.splits import PARTS, hold_out

_DRAWN = (None, "random", "stratified", "scaffold")


class Divides(Protocol):
    """What is asked of data: how they are to be divided."""

    split: str | None
    splits: str | None
    fold: int
    val: float
    seed: int
    on_bad: OnBad

    def parts(self, targets: list[float], stratify: bool, problems: Problems) -> dict[str, list[int]]:
        """Parts that are drawn."""


def divide(
    data: Divides, graphs: Sequence[Data], targets: list[float], single: bool, problems: Problems
) -> dict[str, list[int]]:
    """The numbers of the graphs that train, validate and test, by what the data were asked for.

    Args:
        data: Whose ``splits``, ``split``, ``fold``, ``val`` and ``seed`` say how.
        graphs: The graphs that have a target.
        targets: Their classes; zeros for others.
        single: Whether each has one class.
        problems: Takes what hinders it.
    """
    stratify = single and data.split != "random"
    if data.split not in _DRAWN and not any("part" in graph for graph in graphs):
        problems.stop("split", f"expected random, stratified or scaffold, got '{data.split}'; choose one of them")
        return {}
    if data.split == "stratified" and not single:
        problems.stop("split", "expected random or scaffold where samples have no class, got stratified; choose one")
        return {}
    if data.splits is not None:
        given = read_splits(data.splits)
        if data.fold >= len(given):
            problems.stop(
                "fold", f"expected one of {len(given)} in {data.splits}, got {data.fold}; correct --data.fold"
            )
            return {}
        rows = {graph.row: number for number, graph in enumerate(graphs)}
        names = {graph.id: number for number, graph in enumerate(graphs)}
        parts = pick(given[data.fold], rows, names, problems, skip=data.on_bad == "skip")
    elif data.split == "scaffold":
        from tasks.graph.chemistry import scaffold_split

        if not all("smiles" in graph for graph in graphs):
            problems.stop("split", "expected graphs with SMILES for scaffold, got others; choose random or stratified")
            return {}
        parts = scaffold_split([graph.smiles for graph in graphs])
    elif any("part" in graph for graph in graphs) and data.split not in ("random", "stratified"):
        parts = {part: [i for i, graph in enumerate(graphs) if graph.get("part") == part] for part in PARTS}
    else:
        return data.parts(targets, stratify, problems)
    if parts["train"] and not parts["val"] and not problems.fatal:
        own = [targets[i] for i in parts["train"]]
        kept, held = hold_out(own, share=data.val, seed=data.seed, stratify=single)
        parts |= {"train": [parts["train"][i] for i in kept], "val": [parts["train"][i] for i in held]}
    for part in ("train", "test"):
        if not parts[part] and not problems.fatal:
            problems.stop("split", f"no graph in the {part} part; put some there")
    return parts


def without_marks(graph: Data) -> Data:
    """The graph without what only its division asked for."""
    for key in ("part", "row"):
        graph._store.pop(key, None)
    return graph


def describe_targets(kind: str, names: Sequence[str], y: Tensor, problems: Problems) -> dict[str, Any]:
    """What a spec says of the training graphs' targets, of which some may be missing.

    Args:
        kind: "multilabel" or "regression".
        names: What the targets are called.
        y: (N, T), NaN where missing.
        problems: Takes targets that nobody can learn.
    """
    known = ~y.isnan()
    for name, count in zip(names, known.sum(0).tolist(), strict=True):
        if not count:
            problems.stop(f"target {name}", "has no training sample; add some, or leave the target out")
    if kind == "multilabel":
        counts = (y == 1).sum(0)
        return {"class_counts": counts.tolist(), "known_counts": known.sum(0).tolist(), "train_size": len(y)}
    values = y.double()
    mean = values.nanmean(0)
    std = (values - mean).square().nanmean(0).sqrt()
    # A single graph, or equal targets, leave nothing to divide by.
    return {"target_mean": mean.tolist(), "target_std": std.where(std > 0, torch.ones_like(std)).tolist()}
