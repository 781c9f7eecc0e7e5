"""What is to be predicted: whether a row says it, and what the training part says of all."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from tasks.data.problems import Problems
from tasks.data.splits import check_classes
from tasks.data.trained import Trained
from tasks.volume.records import EMPTY, Record, number_of

SINGLE = ("binary", "multiclass")  # kinds with one class per sample, which splits keep in proportion


def bad_targets(values: Mapping[str, Any], targets: Sequence[str], task: str, trained: Trained | None) -> Iterable[str]:
    """What is wrong with the targets of a row.

    Args:
        values: The row.
        targets: Their columns.
        task: ``"classification"`` or ``"regression"``.
        trained: A model that is tested on the data, if one is.
    """
    for column in targets:
        value = values.get(column)
        if value is None:
            yield EMPTY.format(column)
        elif task == "regression" and number_of(value) is None:
            yield f"expected a number in column {column}, got '{value}'; correct it or delete the row"
        elif len(targets) == 1 and task == "classification":
            if trained is not None and (wrong := trained.unknown(str(value))):
                yield wrong
        elif len(targets) > 1 and task == "classification" and number_of(value) not in (0, 1):
            yield f"expected 0 or 1 in column {column}, got '{value}'; several target columns are yes/no labels"


def describe_training(spec: dict[str, Any], parts: Mapping[str, list[Record]], problems: Problems) -> None:
    """Put class counts or the target's scale into a spec, from the training part alone."""
    train = parts["train"]
    if spec["kind"] in SINGLE:
        targets = {name: [record.target for record in members] for name, members in parts.items()}
        spec["class_counts"] = check_classes(targets, spec["classes"], problems)
    elif train:
        values = torch.stack([record.target for record in train]).double()
        if spec["kind"] == "multilabel":
            spec["class_counts"], spec["train_size"] = values.sum(0).long().tolist(), len(train)
            return
        spec["target_mean"] = values.mean(0).tolist()
        spec["target_std"] = values.std(0, correction=0).tolist()
        for column, spread in zip(spec["classes"], spec["target_std"], strict=True):
            if not spread > 0:
                problems.stop(f"column {column}", "is the same in every training row; choose another target")
