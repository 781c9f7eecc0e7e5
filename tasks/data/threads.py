"""Many small pieces of work side by side, and how far they have come."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from lightning.pytorch.utilities import rank_zero_only
from tqdm import tqdm

T = TypeVar("T")
Made = TypeVar("Made")

_CHUNK = 64  # items that a thread takes at a time
_SHOWN_AFTER = 3.0  # s


def side_by_side(make: Callable[[T], Made], items: Iterable[T], what: str | None = None) -> list[Made]:
    """``[make(item) for item in items]``, in as many threads as torch has, each of which computes on its own.

    Left to itself torch would divide each small tensor among its threads, and wait for the slowest of them every time:
    where another program keeps a core busy, 448 phantoms took 50 s so instead of 3.

    Args:
        make: Takes one item; what it raises is raised here, and nothing more is begun.
        items: What it is given.
        what: Names them in a progress bar, which is shown where they take seconds and somebody looks.

    Example:
        >>> side_by_side(lambda number: torch.full((2,), number).sum().item(), range(3))
        [0, 2, 4]
    """
    everything = list(items)
    size = _CHUNK if what else 1  # files are many, and each is soon read
    chunks = [everything[first : first + size] for first in range(0, len(everything), size)]
    threads = torch.get_num_threads()
    first = getattr(rank_zero_only, "rank", None) in (None, 0)  # of several processes
    hidden = None if what and first else True  # None: where nobody looks
    made: list[Made] = []

    def of_chunk(chunk: list[T]) -> list[Made]:
        return [make(item) for item in chunk]

    torch.set_num_threads(1)  # holds for threads that begin from now on, too
    bar = tqdm(total=len(everything), desc=f"checking {what}", delay=_SHOWN_AFTER, disable=hidden, leave=False)
    try:
        with bar, ThreadPoolExecutor(threads) as pool:
            for some in pool.map(of_chunk, chunks):
                made += some
                bar.update(len(some))
    finally:
        torch.set_num_threads(threads)
    return made
