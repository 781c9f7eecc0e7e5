"""Predictions over time: curves, and the events where one of them is high."""

import csv
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from tasks.outputs.drawing import canvas, save

_CURVES = 10  # that a picture shows: those that rise highest


class Event(NamedTuple):
    """Something that sounds from one time to another."""

    file: str
    onset: float
    offset: float
    label: str


def events_above(
    file: str, begins: Sequence[float], ends: Sequence[float], curve: Tensor, classes: Sequence[str], threshold: float
) -> list[Event]:
    """Where the probabilities of windows are above a threshold.

    A window speaks for the time that is nearest to its middle, the first and the last one also for what lies before
    and behind; neighbours that are above make one event.

    Args:
        file: Name of the recording.
        begins: Of the windows, rising, in s.
        ends: Of the windows.
        curve: Probabilities, (windows, classes).
        classes: Their names.
        threshold: What is above it is an event.

    Returns:
        By onset.

    Example:
        >>> import torch
        >>> events_above("a.wav", [0, 1, 2], [2, 3, 4], torch.tensor([[0.1], [0.9], [0.8]]), ["dog"], 0.5)
        [Event(file='a.wav', onset=1.5, offset=4, label='dog')]
    """
    middles = [(begin + end) / 2 for begin, end in zip(begins, ends, strict=True)]
    between = [(first + second) / 2 for first, second in itertools.pairwise(middles)]
    edges = [begins[0], *between, ends[-1]]
    found = []
    for label, above in zip(classes, (curve > threshold).T.tolist(), strict=True):
        for place, now in enumerate(above):
            if now and not (place and above[place - 1]):
                stop = next((later for later in range(place, len(above)) if not above[later]), len(above))
                found.append(Event(file, edges[place], edges[stop], label))
    return sorted(found, key=lambda event: (event.onset, event.label))


def write_events(path: Path, events: Sequence[Event]) -> None:
    """Write events as text, a line each: file, onset, offset, label, with tabs between and no header.

    It is a format of ``sed_eval.io.load_event_list`` (https://tut-arg.github.io/sed_eval).
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerows([one.file, f"{one.onset:.3f}", f"{one.offset:.3f}", one.label] for one in events)


def draw_curve(
    begins: Sequence[float],
    ends: Sequence[float],
    curve: Tensor,
    classes: Sequence[str],
    path: Path,
    *,
    title: str,
    events: Sequence[Event] = (),
    threshold: float | None = None,
) -> Path:
    """Draw predictions over time, at the middles of their windows, and below them the events.

    Args:
        begins: Of the windows, in s.
        ends: Of the windows.
        curve: Predictions, (windows, outputs); of many the ten that rise highest are drawn.
        classes: Their names.
        path: The PNG to write.
        title: Above the picture.
        events: What is drawn as bars.
        threshold: What they were found with; None = the predictions are no probabilities.

    Returns:
        ``path``.
    """
    shown = sorted(curve.amax(0).argsort(descending=True)[:_CURVES].tolist())
    figure = canvas(10, 3.2 + 0.22 * len(shown))
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 0.3 + 0.25 * len(shown)])
    middles = [(begin + end) / 2 for begin, end in zip(begins, ends, strict=True)]
    for row, number in enumerate(shown):
        (line,) = top.plot(middles, curve[:, number].tolist(), lw=1.1, label=classes[number])
        own = [(event.onset, event.offset - event.onset) for event in events if event.label == classes[number]]
        below.broken_barh(own, (row - 0.4, 0.8), color=line.get_color())
    if threshold is None:
        top.set_ylabel("prediction")
        below.set_visible(False)
    else:
        top.axhline(threshold, color="0.4", lw=0.8, ls="--")
        top.set(ylabel="probability", ylim=(-0.02, 1.02))
    top.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    below.set_yticks(range(len(shown)), [classes[number] for number in shown], fontsize=8)
    below.set(xlabel="time (s)", ylim=(len(shown) - 0.5, -0.5), xlim=(begins[0], ends[-1]))
    figure.suptitle(title, fontsize=10)
    return save(figure, path)
