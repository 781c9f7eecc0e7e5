"""Options that the samples of generated data take in turns."""

from collections.abc import Sequence
from typing import Any


def take_turns(options: Any, number: int, classes: int) -> Any:
    """Of one option, or a list of options that samples take in turns, the one of a sample; all classes get all options.

    Example:
        >>> [take_turns([16, 32], number, classes=2) for number in range(5)], take_turns(16, 3, classes=2)
        ([16, 16, 32, 32, 16], 16)
    """
    return options[number // classes % len(options)] if isinstance(options, Sequence) else options
