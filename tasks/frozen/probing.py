"""Probes: how far scikit-learn comes on frozen features of a fold, with few labels and with all."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from modalpool import Pool
from tasks.data.base import PoolingData
from tasks.data.digests import digest, digest_arrays
from tasks.frozen.budgets import Budget, draw
from tasks.frozen.features import flat, network_features, raw_features, standardised
from tasks.task.base import PoolingTask
from tasks.task.certainty import measure, report_metrics
from tasks.task.estimators import Estimator, predict
from tasks.task.floors import matrices, told_of
from tasks.task.modality import ForForest

Row = dict[str, Any]


class Table(NamedTuple):
    """Features, samples by numbers."""

    train: Any
    """Of the samples that are learned from."""
    test: Any
    """Of those that test."""
    forest: bool = False
    """Whether a forest stands in for a linear model (`tasks.task.modality.ForForest`)."""


class Probes:
    """The samples of a fold, what is known of them, and what probes learn from it.

    All training and validation samples are learned from where all labels are: a probe stops at no epoch that the
    validation part would have to choose. Fewer labels are drawn from the training part. Features are standardised over
    both, labelled or not; what is chosen of a probe is chosen by folds within its labelled samples.

    Args:
        task: Says targets, kind and floors; what its network is makes no difference.
        data: The fold.
        labels: The budgets.
        seeds: Seeds of the draws.
        kept: Features of earlier folds, by network and sample, so that each network sees each sample once.
    """

    def __init__(
        self,
        task: PoolingTask,
        data: PoolingData,
        labels: Sequence[Budget],
        seeds: Sequence[int],
        kept: dict[tuple[int, int], Tensor] | None = None,
    ):
        self.task, self.data, self.seeds, self.kept = task.eval(), data, seeds, {} if kept is None else kept
        data.setup()
        known = [part for part in ("train", "val") if part in data.datasets]
        self.learned: Dataset[Any] = ConcatDataset([data.still(part) for part in known])
        self.test = data.still("test")
        self.contents = [one for part in known for one in data.digests(part)], data.digests("test")
        self.groups = [sample.group for part in known for sample in data.samples(part)]
        told, target = told_of(task, data, self.learned)
        asked, self.target = told_of(task, data, self.test)
        self.y = target.numpy()
        self.floors = {
            name: Table(*standardised(*table), forest=isinstance(told[name], ForForest))
            for name in told
            if (table := matrices(told[name], asked[name]))[0].shape[1]
        }
        everybody = list(range(len(self.groups)))
        self.rows = {
            (one.name, seed): everybody if one.labels is None else draw(data, one, seed)
            for one in labels
            for seed in (seeds if one.labels is not None else seeds[:1])
        }

    def nothing(self) -> Table:
        """Features that say nothing."""
        return Table(np.zeros((len(self.y), 0)), np.zeros((len(self.target), 0)))

    def raw(self, pool: Pool) -> Table | None:
        """The network's input, pooled; None where a task does not tell it, or it is always the same."""
        return self._table(partial(raw_features, self.task, pool, self.data), digest("raw", repr(pool)))

    def network(self, task: PoolingTask, pool: Pool) -> Table:
        """A network's features, pooled; always the same ones say nothing."""
        weights = [(name, value.cpu()) for name, value in chain(task.named_parameters(), task.named_buffers())]
        network = digest_arrays({name: value.detach() for name, value in weights if not name.startswith("head.")})
        compute = partial(network_features, task.eval(), pool, self.data)
        return self._table(compute, digest(str(network), repr(pool))) or self.nothing()

    def _table(self, compute: Callable[[Dataset[Any]], list[Tensor]], what: int) -> Table | None:
        found = []
        for samples, contents in zip((self.learned, self.test), self.contents, strict=True):
            new = [number for number, one in enumerate(contents) if (what, one) not in self.kept]
            vectors = compute(Subset(samples, new)) if new else []
            if len(vectors) < len(new):
                return None
            self.kept |= {(what, contents[number]): one for number, one in zip(new, vectors, strict=True)}
            found.append([self.kept[what, one] for one in contents])
        x, asked = flat(*found)
        return Table(*standardised(x, asked)) if x.shape[1] else None

    def measure(self, table: Table, estimators: Sequence[Estimator]) -> Iterator[Row]:
        """Fit each probe for each budget and seed, and test it.

        Yields:
            ``probe``, ``budget``, ``labels`` (how many there were), ``seed`` and the metrics of the task's kind.
        """
        kind, classes = self.task.kind, len(self.task.classes)
        metrics = report_metrics(kind, classes)
        x, asked, forest = table
        for (budget, seed), rows in self.rows.items():
            groups = [self.groups[row] for row in rows]
            for estimator in estimators:
                used: Estimator = "forest" if forest and estimator == "linear" else estimator
                found = predict(kind, classes, x[rows], self.y[rows], asked, groups, estimator=used, scale=False)
                yield {
                    "probe": estimator,
                    "budget": budget,
                    "labels": len(rows),
                    "seed": seed,
                    **measure(metrics, kind, torch.from_numpy(found).float(), self.target),
                }
