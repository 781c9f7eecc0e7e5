"""Bad input, found before training and reported all at once, each problem with its file and row."""

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Literal

OnBad = Literal["raise", "skip"]


SHOWN = 50  # lines of a report, after which it says how many more there are


class BadInput(ValueError):
    """Input data that cannot be used; the message lists every problem found."""


class Problems:
    """Collect what is wrong with an input, then raise once or leave the bad samples out.

    Args:
        source: What is being read, for the headline: a manifest, a folder.
        on_bad: ``"raise"`` stops with the full list; ``"skip"`` leaves the bad samples out and warns with the list.

    Example:
        >>> problems = Problems("clips.csv")
        >>> problems.add("clips.csv row 2 (a.wav)", "file does not exist; correct the path or leave it out")
        >>> problems.finish(total=10)
        Traceback (most recent call last):
        ...
        tasks.data.problems.BadInput: clips.csv: 1 problem found
          clips.csv row 2 (a.wav): file does not exist; correct the path or leave it out
        Correct them, or leave these samples out with --data.on_bad skip.
    """

    def __init__(self, source: str, *, on_bad: OnBad = "raise"):
        self.source = source
        self.on_bad = on_bad
        self.samples: list[str] = []
        self.fatal: list[str] = []

    def add(self, where: str, what: str) -> None:
        """Note a sample that cannot be used; ``where`` names the file and row."""
        self.samples.append(f"{where}: {what}")

    def stop(self, where: str, what: str) -> None:
        """Note something that leaving samples out does not repair, such as a class without training samples."""
        self.fatal.append(f"{where}: {what}")

    def finish(self, *, total: int) -> None:
        """Report.

        Args:
            total: Number of samples that were looked at, good and bad.

        Raises:
            BadInput: With ``on_bad="raise"`` if there is any problem, with ``"skip"`` if nothing usable is left or a
                problem is not one of a single sample.
        """
        found = self.fatal + self.samples
        if not found:
            return
        # A sample may have several problems, so the count of bad samples is that of the places named.
        left_out = len({line.split(": ")[0] for line in self.samples})
        lines = listed(found)
        count = f"{len(found):,} problem{'s' * (len(found) != 1)}"
        if self.on_bad == "skip" and not self.fatal and left_out < total:
            warnings.warn(f"{self.source}: {left_out} of {total} samples left out\n{lines}", stacklevel=2)
            return
        if self.on_bad == "skip":
            advice = "Correct them: they cannot be skipped." if self.fatal else "No usable sample is left."
        else:
            advice = (
                "Correct them, or leave these samples out with --data.on_bad skip." if self.samples else "Correct them."
            )
        raise BadInput(f"{self.source}: {count} found{_common(found)}\n{lines}\n{advice}")


def _common(lines: Sequence[str]) -> str:
    """What most of many problems are, to begin a report with."""
    what, times = Counter(line.partition(": ")[2] for line in lines).most_common(1)[0]
    return f", {times:,} of them: {what}" if len(lines) > SHOWN and times > len(lines) / 2 else ""


def listed(lines: Sequence[str], most: int = SHOWN) -> str:
    """Lines of a report, one below the other; of many the first ones, and how many more there are.

    Example:
        >>> print(listed(["a", "b", "c"], most=2))
          a
          b
          ... and 1 more
    """
    shown = [*lines[:most], *([f"... and {len(lines) - most:,} more"] if len(lines) > most else [])]
    return "\n".join(f"  {line}" for line in shown)
