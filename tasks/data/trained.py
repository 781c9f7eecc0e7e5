"""Which samples a model was trained on, told by their content, so that other splits, names and folders hide none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from tasks.data.problems import BadInput
from tasks.data.splits import PARTS

ToldBy = Literal["content", "index"]
"""What tells samples from each other: what they hold, or, where not all are read, where a table says that it is."""


@dataclass(frozen=True)
class Trained:
    """What a checkpoint knows of its training.

    Args:
        spec: What the data said of itself.
        samples: Digests of the samples of each part, int64.
        settings: The fold and the seed of the split.
        told_by: What the digests are of.
    """

    spec: dict[str, Any]
    samples: Mapping[str, Tensor]
    settings: Mapping[str, int]
    told_by: ToldBy = "content"

    @staticmethod
    def read(checkpoint: Mapping[str, Any]) -> "Trained":
        """What is in a checkpoint; one that does not say its samples knows of none."""
        stored = checkpoint.get("trained") or {}
        none = torch.empty(0, dtype=torch.long)
        samples = {part: stored.get("samples", {}).get(part, none) for part in PARTS}
        spec, settings = checkpoint["hyper_parameters"]["spec"], stored.get("settings", {})
        return Trained(spec, samples, settings, stored.get("told_by", "content"))

    def stored(self) -> dict[str, Any]:
        """What `read` finds in a checkpoint."""
        return {"samples": dict(self.samples), "settings": dict(self.settings), "told_by": self.told_by}

    @property
    def known(self) -> bool:
        """Whether the checkpoint says what it was trained on."""
        return bool(len(self.samples["train"]))

    def tells(self, told_by: ToldBy) -> bool:
        """Whether it can say of samples that are told so whether it was trained on them."""
        return self.known and self.told_by == told_by

    def saw(self, digests: Sequence[int]) -> list[bool]:
        """Which samples trained or validated the model, those left out that tested it: copies of a training sample."""
        seen = set(self.samples["train"].tolist()) | set(self.samples["val"].tolist())
        seen -= set(self.samples["test"].tolist())
        return [one in seen for one in digests]

    def accept(self, kind: str, targets: Sequence[str] | None = None) -> None:
        """Ask for data of the model's kind and, where targets are columns, of its targets; classes may be fewer.

        Raises:
            BadInput: If they are others.
        """
        expected = self.spec["kind"]
        if kind != expected and {kind, expected} != {"binary", "multiclass"}:
            raise BadInput(f"expected a {expected} target, as the model was trained on, got {kind}; give such data")
        if targets is not None and list(targets) != list(self.spec["classes"]):
            names = ", ".join(self.spec["classes"])
            raise BadInput(f"expected the model's targets, {names}, got {', '.join(targets)}; name them as there")

    def unknown(self, label: str) -> str | None:
        """What is wrong with a label, if the model knows no such class."""
        if label in self.spec["classes"]:
            return None
        names = ", ".join(self.spec["classes"])
        return f"class {label} is none of the model's ({names}); leave the row out, or train with it"

    def and_earlier(self, other: "Trained | None") -> "Trained":
        """Together with the training that this one goes on from."""
        if other is None:
            return self
        both = {part: torch.cat([own, other.samples[part]]) for part, own in self.samples.items()}
        samples = {**both, "test": self.samples["test"]}
        return Trained(self.spec, samples, self.settings, self.told_by)
