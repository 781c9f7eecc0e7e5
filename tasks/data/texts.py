"""What is said of a sample in words: the other half of a pair that two towers learn from."""

import string
from abc import ABC, abstractmethod
from typing import Any

from tasks.data.base import Sample
from tasks.data.problems import BadInput


class Texts(ABC):
    """Says a text of a sample."""

    drawn = False
    """Whether a text is another one each time: then samples are one pair if their contents are, not their texts."""

    @abstractmethod
    def say(self, item: Any, sample: Sample, seed: int) -> str:
        """A text of a sample.

        Args:
            item: What the data's dataset holds.
            sample: What is known of it beside.
            seed: Of what is drawn.
        """

    def of_class(self, name: str, column: str, sample: Sample) -> str:
        """What would be said of a sample if ``column`` said ``name``, for zero-shot classification."""
        raise BadInput(f"{type(self).__name__} has no words for classes; zero-shot classification needs captions")


class Captions(Texts):
    """A sentence with columns of the table of samples in it.

    Args:
        template: ``"{label}, {dynamic}"``: columns in braces.

    Example:
        >>> Captions("a {label} plays {pitch}").say(None, Sample("1", columns={"label": "flute", "pitch": "A4"}), 0)
        'a flute plays A4'
    """

    def __init__(self, template: str):
        self.template = template
        self.columns = [name for _, name, _, _ in string.Formatter().parse(template) if name]
        if not self.columns:
            raise ValueError(f"template: expected columns in braces, such as '{{label}}', got '{template}'")

    def say(self, item: Any, sample: Sample, seed: int) -> str:
        """The sentence."""
        return self._fill({name: sample.columns.get(name) for name in self.columns}, sample)

    def of_class(self, name: str, column: str, sample: Sample) -> str:
        """The sentence with another class."""
        if column not in self.columns:
            raise BadInput(f"zero-shot: expected the class's column {column} in the template, got '{self.template}'")
        return self._fill({**{name: sample.columns.get(name) for name in self.columns}, column: name}, sample)

    def _fill(self, values: dict[str, Any], sample: Sample) -> str:
        missing = [name for name, value in values.items() if value is None]
        if missing:
            have = ", ".join(sample.columns) or "none"
            raise BadInput(
                f"{sample.id}: expected {', '.join(missing)} in its row, which the captions name, got {have}"
            )
        return self.template.format_map({name: str(value) for name, value in values.items()})
