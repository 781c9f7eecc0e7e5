"""Look at many files before training: which of them, many at once, and say how far it has come."""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

import torch
from lightning.pytorch.utilities import rank_zero_only
from tqdm import tqdm

T = TypeVar("T")
R = TypeVar("R")

Check = Literal["all", "header", "sample"]
"""What is read before training: all contents, all headers, or the contents of `DRAWN` files drawn at random."""

DRAWN = 1000

_CHUNK = 64  # items that a thread takes at a time
_SHOWN_AFTER = 3.0  # s


def drawn(items: Sequence[T], check: Check, seed: int) -> list[T]:
    """The items that are looked at, in order.

    Example:
        >>> len(drawn(range(5000), "all", 0)), len(drawn(range(5000), "sample", 0))
        (5000, 1000)
    """
    if check != "sample" or len(items) <= DRAWN:
        return list(items)
    return [items[number] for number in sorted(random.Random(seed).sample(range(len(items)), DRAWN))]


def side_by_side(look: Callable[[T], R], items: Sequence[T], what: str) -> Iterator[tuple[T, R]]:
    """Every item with what ``look`` returns of it, in order; with a progress bar where it takes seconds.

    A thread a core does it: reading a file and unpacking it leave Python's lock to others.

    Args:
        look: Takes one item; what it raises is raised here.
        items: What is looked at.
        what: Names them in the progress bar.

    Example:
        >>> list(side_by_side(len, ["a", "bcd"], "words"))
        [('a', 1), ('bcd', 3)]
    """
    chunks = [items[first : first + _CHUNK] for first in range(0, len(items), _CHUNK)]
    threads = torch.get_num_threads()  # of each operation; beside each other, operations need no more than one
    quiet = True if getattr(rank_zero_only, "rank", 0) else None  # None: also where nobody looks, in a file or a pipe

    def of_chunk(chunk: Sequence[T]) -> list[R]:
        return [look(item) for item in chunk]

    with (
        tqdm(total=len(items), desc=f"checking {what}", delay=_SHOWN_AFTER, disable=quiet, leave=False) as bar,
        ThreadPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        try:
            for chunk, found in zip(chunks, pool.map(of_chunk, chunks), strict=True):
                yield from zip(chunk, found, strict=True)
                bar.update(len(chunk))
        finally:  # after an error, or where nobody asks on, nothing more is begun
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)
