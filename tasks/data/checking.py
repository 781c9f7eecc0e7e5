"""Which of many files are looked at before training."""

import random
from collections.abc import Sequence
from typing import Literal, TypeVar

T = TypeVar("T")

Check = Literal["all", "header", "sample"]
"""What is read before training: all contents, all headers, or the contents of `DRAWN` files drawn at random."""

DRAWN = 1000


def drawn(items: Sequence[T], check: Check, seed: int) -> list[T]:
    """The items that are looked at, in order.

    Example:
        >>> len(drawn(range(5000), "all", 0)), len(drawn(range(5000), "sample", 0))
        (5000, 1000)
    """
    if check != "sample" or len(items) <= DRAWN:
        return list(items)
    return [items[number] for number in sorted(random.Random(seed).sample(range(len(items)), DRAWN))]
