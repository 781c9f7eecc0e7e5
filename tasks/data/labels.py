"""Which of two classes is the positive one, and in what order classes stand: never by the alphabet."""

from collections.abc import Mapping
from math import isfinite
from typing import NamedTuple

from tasks.data.problems import BadInput

NOTHING = {"no", "n", "false", "f", "negative", "neg", "normal", "healthy", "control", "controls", "hc", "benign"}
"""What a class without a finding is called."""


class Order(NamedTuple):
    """Classes, the positive one last, and why it is."""

    classes: list[str]
    why: str = ""


def order_classes(counts: Mapping[str, int], positive: str | None = None, *, case_matters: bool = False) -> Order:
    """Put classes into order: numbers as numbers, then words; of two, the positive one last.

    Of two classes the positive one is, in this order: the one that is named; the larger number; the one beside a word
    that says "nothing found" (`NOTHING`); the rarer one.

    Args:
        counts: Samples of each class, over all parts of the data, so that every fold has the same order.
        positive: Name of the positive class.
        case_matters: Whether names that differ in case or blanks only are two classes.

    Raises:
        BadInput: If ``positive`` is not one of two classes, or two names are one but for their spelling.

    Example:
        >>> order_classes({"mass": 69, "normal": 229})
        Order(classes=['normal', 'mass'], why="'normal' says that there is nothing")
        >>> order_classes({"AD": 40, "CN": 60})
        Order(classes=['CN', 'AD'], why='the rarer class')
        >>> order_classes({"10": 3, "9": 3, "b": 1}).classes
        ['9', '10', 'b']
    """
    names = sorted(counts, key=natural)
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(" ".join(name.lower().split()), []).append(name)
    twice = [" and ".join(f"'{name}' ({counts[name]})" for name in same) for same in alike.values() if len(same) > 1]
    if twice and not case_matters:
        raise BadInput(
            f"classes: {'; '.join(twice)} differ in case or blanks only; write them alike, or say that they are "
            "two classes by --data.case_matters true"
        )
    if positive is not None and (len(names) != 2 or positive not in names):
        raise BadInput(
            f"positive: expected one of two classes, got '{positive}' and the classes {', '.join(names)}; "
            "name one of two, or leave --data.positive out"
        )
    if len(names) != 2:
        return Order(names)
    first, second = names
    if positive is not None:
        return Order([second, first] if positive == first else names, "as asked")
    if _number(first) is not None and _number(second) is not None:
        return Order(names, "the larger number")
    for nothing, other in ((first, second), (second, first)):
        if nothing.lower() in NOTHING and other.lower() not in NOTHING:
            return Order([nothing, other], f"'{nothing}' says that there is nothing")
    if counts[first] == counts[second]:
        return Order(names, "neither name nor number says which, so perhaps it is the other")
    return Order(sorted(names, key=lambda name: -counts[name]), "the rarer class")


def natural(name: str) -> tuple[int, float, str]:
    """Sort numbers as numbers, before words."""
    number = _number(name)
    return (1, 0.0, name) if number is None else (0, number, name)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) else None
