"""Label budgets: how many of the training samples tell a probe their label, and which."""

from collections.abc import Sequence
from typing import NamedTuple

from tasks.data.base import PoolingData
from tasks.data.problems import BadInput
from tasks.data.views import keep_labels


class Budget(NamedTuple):
    """How many labels there are."""

    name: str
    """As it was given: 5, 10% or all."""
    labels: int | float | None
    """Samples of each class (samples in all where the target is no class), a share, or None = all."""


def budgets(text: str) -> list[Budget]:
    """The budgets of ``1,5,10%,all``.

    Raises:
        BadInput: If one is none of these, or stands twice.

    Example:
        >>> budgets("5,10%,all")
        [Budget(name='5', labels=5), Budget(name='10%', labels=0.1), Budget(name='all', labels=None)]
    """
    names = [name.strip() for name in text.split(",")]
    found = []
    for name in names:
        number = name.removesuffix("%")
        try:
            value = None if name == "all" else float(number) / 100 if number != name else int(number)
        except ValueError:
            value = 0
        wrong = value is not None and (value <= 0 or (number != name and value >= 1))
        if wrong or names.count(name) > 1:
            raise BadInput(f"probe: expected --budgets like 1,5,1%,10%,all, each once, got '{text}'; correct {name}")
        found.append(Budget(name, value))
    return found


def draw(data: PoolingData, budget: Budget, seed: int) -> list[int]:
    """The training samples that keep their label, those that ``fit --data.labelled --data.labelled_seed`` trains on.

    Raises:
        BadInput: If there are not as many.
    """
    assert budget.labels is not None
    if data.spec["kind"] in ("binary", "multiclass"):
        return keep_labels(data.training_classes(), data.spec["classes"], budget.labels, seed)
    return keep_labels([0] * len(data.samples("train")), ["any"], budget.labels, seed)


def distinct(data: PoolingData, asked: Sequence[Budget]) -> list[Budget]:
    """Budgets without those that are an earlier one in these data: of 30 samples of a class 1 % is one, as is 1."""
    found: dict[tuple[int, ...], Budget] = {}
    for one in asked:
        drawn = () if one.labels is None else tuple(sorted(draw(data, one, 0)))
        found.setdefault(drawn, one)
    return list(found.values())
