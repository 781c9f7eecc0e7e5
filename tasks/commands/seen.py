"""Whether a model is looked at on samples that it was trained on: the one check of all commands that look."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tasks.commands.checkpoints import pretrained, read
from tasks.data.base import PoolingData
from tasks.data.problems import BadInput
from tasks.data.trained import Trained

ALLOW = "look also at samples that the checkpoint was trained on"


def expect(data: PoolingData, stored: dict[str, Any]) -> None:
    """Tell data, before they are read, which model they are for."""
    data.trained = Trained.read(stored)


def check(command: str, path: Path, data: PoolingData, parts: Sequence[str] = ("test", "predict"), *,
          allow: bool = False) -> None:  # fmt: skip
    """Refuse to look at samples that a checkpoint was trained on.

    Args:
        command: Stands before the error's message.
        path: The checkpoint, which says what it was trained on.
        data: The data that are looked at.
        parts: The parts of them that are.
        allow: Look all the same (``--allow_trained``).

    Raises:
        BadInput: If any of the samples trained or validated it, whatever split, seed or name they have now.
    """
    trained = data.trained or Trained.read(read(path))
    data.setup()
    if parts[0] == "test" and command != "predict" and not len(data.samples("test")):
        raise BadInput(f"{command}: expected samples to test, got none; mark some with split test, or mark none at all")
    names, all_of_them = [], 0
    for part in parts if trained.tells(data.told_by) and not allow else ():
        if part in data.datasets:
            saw = trained.saw(data.digests(part))
            names += [sample.id for sample, seen in zip(data.samples(part), saw, strict=True) if seen]
            all_of_them += len(saw)
    if names and pretrained(read(path)):
        print(f"{command}: {path} has heard {len(names)} of these {all_of_them} samples, without their labels")
    elif names:
        was = " ".join(f"--data.{name} {value}" for name, value in trained.settings.items())
        now = " ".join(f"--data.{name} {getattr(data, name)}" for name in trained.settings)
        differs = f"it had {was}, now {now}" if was != now else "their split is another"
        raise BadInput(
            f"{command}: {path} was trained on {len(names)} of these {all_of_them} samples ({_few(names)}); {differs}. "
            "Give the split of the training or other data, or insist with --allow_trained"
        )
    data.tell()
    if not trained.tells(data.told_by) and not allow:
        why = "does not say what it was trained on"
        if trained.known:
            why = f"knows its samples by {trained.told_by}, these are told by {data.told_by} (--data.check)"
        print(f"{command}: {path} {why}, so that nothing can be checked")


class Heard(NamedTuple):
    """What a checkpoint knew of the samples that test its features."""

    labels: bool
    """Whether it was trained with labels."""
    share: float
    """Of how many of the test samples it was trained on, 0 to 1; NaN where it does not say."""

    @property
    def fair(self) -> bool:
        """Whether its features may be judged on them: it knew none, or all without labels; some is neither."""
        return not 0 < self.share < 1 and not (self.labels and self.share == 1)

    @property
    def name(self) -> str:
        """How its features are called."""
        if self.labels:
            return "trained with labels"
        heard = {0.0: "inductive", 1.0: "transductive"}.get(self.share, "what it heard is not known")
        return f"pretrained, {heard}"

    def __str__(self) -> str:
        """What is said of it."""
        how = "with labels" if self.labels else "without labels"
        if math.isnan(self.share):
            return f"trained {how}; which samples it was trained on it does not say"
        return f"trained {how}; {self.share:.0%} of the test samples were among them"


def heard(path: Path, data: PoolingData) -> Heard:
    """What a checkpoint knew of the test samples of the data.

    A copy of a training or validation sample of the same data does not count: it is these data's leak, and no sample
    is learned from that was not theirs to learn from.
    """
    stored = read(path)
    trained = Trained.read(stored)
    data.setup()
    known = {one for part in ("train", "val") if part in data.datasets for one in data.digests(part)}
    tells = trained.tells(data.told_by)
    saw = trained.saw([one for one in data.digests("test") if one not in known]) if tells else []
    return Heard(not pretrained(stored), sum(saw) / len(saw) if saw else math.nan)


def unseen(data: PoolingData, *, allow: bool = False, say: bool = True) -> dict[str, list[int]]:
    """Which samples of each part a model predicts: every one that it was not trained on.

    Args:
        data: The data, which know the model (`expect`).
        allow: Predict also what it was trained on.
        say: Print how many are left out.
    """
    data.setup()
    assert data.trained is not None
    chosen, left_out = {}, 0
    for part in data.datasets:
        digests = data.digests(part)
        saw = [False] * len(digests) if allow else data.trained.saw(digests)
        chosen[part] = [number for number, seen in enumerate(saw) if not seen]
        left_out += sum(saw)
    if left_out and say:
        print(
            f"predict: {left_out} samples that the checkpoint was trained on are left out; --allow_trained takes them"
        )
    if not any(chosen.values()):
        raise BadInput("predict: the checkpoint was trained on every row; give others, or insist with --allow_trained")
    return {part: numbers for part, numbers in chosen.items() if numbers}


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
