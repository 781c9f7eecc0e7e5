"""Few labels: which training samples keep theirs, and two views of all samples, whose labels nobody looks at."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, Subset

from tasks.data.problems import BadInput


class Views(Dataset[tuple[Any, Any]]):
    """Every sample of a data set twice, so that what is random in reading it is drawn twice.

    Args:
        dataset: The samples.
    """

    def __init__(self, dataset: Dataset[Any]):
        self.all = Subset(dataset, range(len(dataset)))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.all)

    def __getitems__(self, numbers: list[int]) -> tuple[Any, Any]:
        """The two views of some samples, each what a loader hands to a collate function."""
        return self.all.__getitems__(numbers), self.all.__getitems__(numbers)


def keep_labels(labels: Sequence[int], classes: Sequence[str], each: float, seed: int) -> list[int]:
    """Draw the samples of each class that keep their labels; those of a smaller number are among those of a larger.

    Args:
        labels: Class numbers of the training samples.
        classes: Names of the classes.
        each: Samples of each class; below 1 a share of them, rounded, but at least one.
        seed: Seed of the draw.

    Returns:
        Sample numbers, the classes in turns.

    Raises:
        BadInput: If a class has fewer samples, or none is asked for.

    Example:
        >>> chosen = keep_labels([0, 0, 0, 1, 1, 1], ["no", "yes"], 2, seed=0)
        >>> [number // 3 for number in chosen]
        [0, 1, 0, 1]
        >>> len(keep_labels([0] * 30 + [1] * 10, ["no", "yes"], 0.1, seed=0))
        4
    """
    if each <= 0 or (each >= 1 and each % 1):
        raise BadInput(f"labelled: expected a whole number from 1, or a share between 0 and 1, got {each}; correct it")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).tolist()
    members = [[number for number in order if labels[number] == one] for one in range(len(classes))]
    counts = [int(each) if each >= 1 else max(1, round(each * len(own))) for own in members]
    for name, own, count in zip(classes, members, counts, strict=True):
        if len(own) < count:
            raise BadInput(
                f"labelled: expected at most {len(own)}, all training samples of class {name}, got {count}; lower it"
            )
    turns = itertools.zip_longest(*(own[:count] for own, count in zip(members, counts, strict=True)))
    return [number for turn in turns for number in turn if number is not None]
