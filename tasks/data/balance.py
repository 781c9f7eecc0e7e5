"""Scarce classes as often as others: training samples drawn with replacement."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from tasks.data.order import Shuffle
from tasks.data.problems import BadInput


class Balanced(Shuffle):
    """As many samples as there are, drawn with replacement by weights, so that scarce classes come as often as others.

    Args:
        weights: Of each sample; ``weigh`` gives every class the same share.
        seed: Another seed gives other draws.

    Example:
        >>> order = Balanced(weigh([[0]] * 90 + [[1]] * 10), seed=0)
        >>> sum(number >= 90 for number in order)
        47
    """

    def __init__(self, weights: Sequence[float], *, seed: int):
        super().__init__(len(weights), seed=seed)
        self.weights = torch.tensor(weights, dtype=torch.float64)

    def draw(self, generator: torch.Generator) -> list[int]:
        """Samples in the order in which they come, some of them more than once."""
        return torch.multinomial(self.weights, self.size, replacement=True, generator=generator).tolist()


def weigh(labels: Sequence[Sequence[int]]) -> list[float]:
    """The chance of each sample where first a class is drawn, each alike, and then one of the samples that have it.

    Args:
        labels: The classes of each sample: one, several, or none; those with none are a class of their own.

    Example:
        >>> weigh([[0], [0], [0, 1], []])
        [1.0, 1.0, 4.0, 3.0]
    """
    counts = Counter(label for each in labels for label in each or [-1])
    most = max(counts.values())
    return [sum(most / counts[label] for label in each or [-1]) for each in labels]


def balanced(data: Any, *, seed: int) -> Balanced:
    """The order of training samples of data whose classes, or labels, come alike.

    Raises:
        BadInput: If there are no classes, or another option says in which order samples come.
    """
    kind = data.spec["kind"]
    if kind == "regression" or data.buckets > 1 or data.labelled is not None:
        what = f"a {kind} target, {data.buckets} buckets and labelled {data.labelled}"
        raise BadInput(
            f"sampling: expected classes or tags, 1 bucket and all labels to balance, got {what}; use sampling all"
        )
    targets = [sample.target for sample in data.samples("train")]
    if kind == "multilabel":
        return Balanced(weigh([(torch.as_tensor(one) == 1).nonzero().flatten().tolist() for one in targets]), seed=seed)
    return Balanced(weigh([[int(one)] for one in targets]), seed=seed)
