"""What a test sample has in common with training samples: the same content, file or group, whatever it is called."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

from tasks.data.problems import Problems, listed
from tasks.data.splits import PARTS

OnLeak = Literal["warn", "drop", "error"]
T = TypeVar("T")
SHOWN = 10  # leaks that a warning lists


class Identity(NamedTuple):
    """What tells a sample from others."""

    name: str
    """As it stands in predictions.csv."""
    where: str
    """As a report names it: file and row."""
    keys: Mapping[str, Hashable]
    """By what it is told ("content", "file", "subject"), strongest first; who shares one is not independent."""
    target: Hashable = None


class Leak(NamedTuple):
    """A sample that shares something with one of an earlier part."""

    part: str
    sample: int
    earlier: str
    other: int
    key: str


def find_leaks(parts: Mapping[str, Sequence[Identity]]) -> list[Leak]:
    """Every sample of ``val`` and ``test`` that shares something with a part before it, and the strongest of its keys.

    Example:
        >>> train = [Identity("a", "row 1", {"content": 7, "subject": "s1"})]
        >>> test = [Identity("b", "row 2", {"content": 7, "subject": "s2"}), Identity("c", "row 3", {"content": 8})]
        >>> find_leaks({"train": train, "val": [], "test": test})
        [Leak(part='test', sample=0, earlier='train', other=0, key='content')]
    """
    found: list[Leak] = []
    seen: dict[tuple[str, Hashable], tuple[str, int]] = {}
    for part in PARTS:
        own = parts.get(part, ())
        for number, identity in enumerate(own):
            for key, value in identity.keys.items():
                if (key, value) in seen:
                    found.append(Leak(part, number, *seen[key, value], key))
                    break
        for number, identity in enumerate(own):
            for key, value in identity.keys.items():
                seen.setdefault((key, value), (part, number))
    return found


def contradictions(parts: Mapping[str, Sequence[Identity]]) -> list[str]:
    """A line for each sample with the content of another, and another target."""
    first: dict[Hashable, Identity] = {}
    lines = []
    for identity in (one for part in PARTS for one in parts.get(part, ())):
        content = identity.keys.get("content")
        if content is None:
            continue
        other = first.setdefault(content, identity)
        if other.target != identity.target:
            lines.append(f"{identity.where}: has the content of {other.where}, but another target")
    return lines


def look_for_leaks(
    parts: Mapping[str, Sequence[T]],
    identify: Callable[[T], Identity],
    on_leak: OnLeak,
    problems: Problems,
    say: Callable[[str], None],
) -> tuple[dict[str, list[T]], set[str], dict[str, list[str]]]:
    """Look for leaks between the parts of a split, and do with them what is wanted.

    Args:
        parts: The samples of train, val and test.
        identify: What tells a sample from others.
        on_leak: "warn" says them, "drop" leaves out what shares something with a later part (so that the test stays as
            it is), "error" makes them problems.
        problems: Takes them, for "error".
        say: Takes what is to be said otherwise.

    Returns:
        The parts, the names of the leaked samples in val and test that are still there, and by part the names of those
        that were left out.
    """
    known = {part: [identify(sample) for sample in samples] for part, samples in parts.items()}
    kept = {part: list(samples) for part, samples in parts.items()}
    against = contradictions(known)
    if against:
        say(f"{problems.source}: contradicting targets\n{listed(against, SHOWN)}")
    leaks = find_leaks(known)
    lines = [
        f"{known[leak.part][leak.sample].where}: is in {leak.part}, with the same {leak.key} as "
        f"{known[leak.earlier][leak.other].where} in {leak.earlier}"
        for leak in leaks
    ]
    if not leaks:
        return kept, set(), {}
    if on_leak == "error":
        for line in lines:
            problems.stop(*line.split(": ", 1))
        return kept, set(), {}
    count = f"{problems.source}: {len(leaks)} sample{'s' * (len(leaks) != 1)} of val and test"
    if on_leak == "drop":
        drop = _shared_with_later(known)
        kept = {
            part: [sample for number, sample in enumerate(samples) if (part, number) not in drop]
            for part, samples in parts.items()
        }
        say(f"{count} with twins in an earlier part; left out there: {len(drop)}\n{listed(lines, SHOWN)}")
        dropped: dict[str, list[str]] = {}
        for part, number in sorted(drop):
            dropped.setdefault(part, []).append(known[part][number].name)
        return kept, set(), dropped
    advice = "results are given without them too; --data.on_leak drop leaves their twins out of training"
    say(f"{count} not independent of an earlier part\n{listed(lines, SHOWN)}\n{advice}")
    return kept, {known[leak.part][leak.sample].name for leak in leaks}, {}


def _shared_with_later(known: Mapping[str, Sequence[Identity]]) -> set[tuple[str, int]]:
    """All samples that share something with one of a later part."""
    drop: set[tuple[str, int]] = set()
    later: set[tuple[str, Hashable]] = set()
    for part in reversed(PARTS):
        own = known.get(part, ())
        drop |= {(part, number) for number, one in enumerate(own) if not later.isdisjoint(one.keys.items())}
        later |= {pair for number, one in enumerate(own) if (part, number) not in drop for pair in one.keys.items()}
    return drop
