"""What a task decided about a sample, in words for a title and in numbers to sort by, and the map that says why."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from tasks.data.problems import BadInput
from tasks.task.evidence import Evidence

_LONGEST = 60  # letters of a sample's name in a title


class Named(Protocol):
    """What names what a task says: its kind, its classes and what an element is."""

    kind: str
    classes: list[str]
    element: str


class Decides(Named, Protocol):
    """What decides, and says why: the part of a task that a `Decision` is made of."""

    @property
    def cell(self) -> int:
        """Elements of the input that one element of the features stands for."""

    def ids(self, batch: Any) -> list[str]:
        """The samples' names."""

    def target(self, batch: Any) -> Tensor:
        """What is true."""

    def evidence(self, batch: Any) -> Evidence:
        """Logits and what made them."""

    def predictions(self, logits: Tensor) -> Tensor:
        """What is reported."""

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The training's loss."""

    def choose(self, maps: Tensor, outputs: Tensor, batch: Any) -> list[Tensor]:
        """Of each sample one map, on its input."""


@dataclass(frozen=True)
class Decision:
    """One sample's decision."""

    id: str
    target: str
    """The true class, the labels that hold, or the values; empty where none of it is known."""
    prediction: str
    sure: float
    """Probability of the prediction (of the likeliest label, if there are several); NaN in regression."""
    loss: float
    """The training's loss on this sample; NaN without a target."""
    about: str
    """The class, label or quantity that the map is about."""
    label: str
    """What the map's numbers are, for a colour bar."""
    value: float
    """The logit, or in regression the predicted value, that the map explains."""
    sum: float
    """Sum of the map."""
    missing: float
    """What map and bias miss of the value; zero where maps are exact."""
    predictions: tuple[float, ...] = ()
    """What is said of all classes, labels or values."""
    partly: bool = False
    """Whether some of several labels or values are not known."""

    @property
    def bias(self) -> float:
        """What the head says of nothing: ``value - sum - missing``."""
        return self.value - self.sum - self.missing

    @property
    def right(self) -> bool | None:
        """Whether the prediction is the target; None where that is not all known or, in regression, no question."""
        return None if math.isnan(self.sure) or not self.target or self.partly else self.target == self.prediction

    @property
    def title(self) -> str:
        """Three lines: who, what was right and what was said, and how value, map and bias add up."""
        name = self.id if len(self.id) <= _LONGEST else f"…{self.id[1 - _LONGEST :]}"
        sure = "" if math.isnan(self.sure) else f" (p = {self.sure:.2f})"
        target = f"target {self.target}, " if self.target else ""
        what = self.about if math.isnan(self.sure) else f"logit of {self.about}"
        parts = {"map": self.sum, "bias": self.bias, "gap": self.missing}
        total = " + ".join(f"{part} {number_text(number)}" for part, number in parts.items())
        said = f"{target}prediction {self.prediction}{sure}"
        return f"{name}\n{said}\n{what}: {number_text(self.value)} = {total}"

    @property
    def note(self) -> str:
        """A line for the header of a map's file: what its numbers are, and what they and bias and gap add up to."""
        label = " ".join(self.label.split())
        return f"{label}; map + bias {self.bias:.6g} + gap {self.missing:.3g} = {self.value:.6g}"


def number_text(value: float) -> str:
    """A number for a title: two decimals, or four digits where that is shorter; never −0.00.

    Example:
        >>> number_text(-0.001), number_text(1234.567), number_text(-2.5)
        ('0.00', '1235', '−2.50')
    """
    text = f"{value:.2f}" if abs(value) < 100 else f"{value:.4g}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


@torch.no_grad()
def decide(task: Decides, batch: Any, about: str | Sequence[str] | None = None) -> tuple[list[Decision], list[Tensor]]:
    """What a task decides about each sample of a batch, and the signed maps of why.

    The map is that of the predicted class or of the likeliest label; in a binary task the one there is, evidence for
    the second class; in regression that of the first value. ``about`` names another: of the first of two classes
    the map is the second's with the other sign.

    Args:
        task: A task in evaluation mode.
        batch: A batch of its data; where a target is NaN it is not known.
        about: The class, label or value that maps are to be about; one for all samples, or one for each.

    Returns:
        The decisions, and the maps on the grid of each sample's input, each element's share of the value.
    """
    evidence = task.evidence(batch)
    predictions, target = task.predictions(evidence.logits), task.target(batch)
    values = predictions if task.kind == "regression" else evidence.logits
    single = task.kind in ("binary", "regression")
    outputs = predictions.new_zeros(len(predictions), dtype=torch.long) if single else predictions.argmax(1)
    signs = [1.0] * len(predictions)
    if about is not None:
        names = [about] * len(predictions) if isinstance(about, str) else about
        unknown = [name for name in names if name not in task.classes]
        if unknown:
            raise BadInput(f"expected a class of {', '.join(task.classes)}, got {unknown[0]}")
        if task.kind == "binary":
            signs = [1.0 if name == task.classes[1] else -1.0 for name in names]
        else:
            outputs = torch.tensor([task.classes.index(name) for name in names], device=predictions.device)
    decisions = []
    for i, (name, output, sign) in enumerate(zip(task.ids(batch), outputs.tolist(), signs, strict=True)):
        known = bool(target[i].isfinite().any())
        what, label = _about(task, output, sign)
        decisions.append(
            Decision(
                id=name,
                target=_words(task, target[i]) if known else "",
                prediction=_words(task, predictions[i] if task.kind == "regression" else _choice(task, predictions[i])),
                predictions=tuple(predictions[i].tolist()),
                partly=known and not bool(target[i].isfinite().all()),
                sure=math.nan if task.kind == "regression" else float(predictions[i].max()),
                loss=float(task.loss(evidence.logits[i : i + 1], target[i : i + 1])) if known else math.nan,
                about=what,
                label=label,
                value=sign * float(values[i, output]),
                sum=sign * float(evidence.sums[i, output]),
                missing=sign * float(evidence.missing[i, output]),
            )
        )
    maps = task.choose(evidence.maps, outputs, batch)
    return decisions, [sign * one.float() / task.cell for sign, one in zip(signs, maps, strict=True)]


def _choice(task: Named, probabilities: Tensor) -> Tensor:
    return (probabilities > 0.5).float() if task.kind == "multilabel" else probabilities.argmax()


def _words(task: Named, given: Tensor) -> str:
    """A target or prediction: a class number, labels as zeros and ones, or values."""
    if task.kind == "regression":
        values = ["unknown" if math.isnan(value) else f"{value:.4g}" for value in given.tolist()]
        if len(values) == 1:
            return values[0]
        return ", ".join(f"{name} {value}" for name, value in zip(task.classes, values, strict=True))
    if task.kind == "multilabel":
        return "|".join(name for name, hit in zip(task.classes, given.tolist(), strict=True) if hit == 1) or "none"
    return task.classes[int(given)]


def _about(task: Named, output: int, sign: float) -> tuple[str, str]:
    """What a map is about, and what its numbers are."""
    if task.kind == "regression":
        return task.classes[output], f"{task.classes[output]} per {task.element}"
    about, other = task.classes[output], ""
    if task.kind == "binary":
        about, other = reversed(task.classes) if sign > 0 else task.classes
    against = f", against {other}" if other else ""
    return about, f"evidence for {about}{against}\n(logit per {task.element})"
