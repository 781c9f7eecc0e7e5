"""Any modality's data in pairs: each sample beside a text, or beside the sample of another data set that has its id."""

from collections.abc import Hashable
from typing import Any

import torch
from torch.utils.data import Dataset

from tasks.data.around import Around
from tasks.data.base import PoolingData, Sample
from tasks.data.order import seed_of
from tasks.data.problems import BadInput
from tasks.data.texts import Texts


class MatchData(Around):
    """Pairs for two towers.

    Args:
        source: The samples of the first tower, and the parts they are in.
        texts: What is said of them.
        other: Instead of texts, the data of the second tower: samples of the same ids.
        batch_size: Pairs in a batch, which are each other's negatives; the source's unless given.
    """

    def __init__(
        self,
        source: PoolingData,
        *,
        texts: Texts | None = None,
        other: PoolingData | None = None,
        batch_size: int | None = None,
    ):
        super().__init__(source, batch_size=batch_size)
        if (texts is None) == (other is None):
            raise ValueError("expected texts or other, the second half of the pairs, got both or none; give one")
        self.texts, self.other = texts, other
        self._said: dict[str, list[str]] = {}

    def load(self) -> None:
        """Read the source, and find the other half of every sample.

        Raises:
            BadInput: If samples have none.
        """
        self._spec = self.source.spec
        halves: dict[str, tuple[Dataset[Any], int]] = {}
        if self.other is not None:
            for part in self.other.datasets if self.other.spec else ():
                still = self.other.still(part)
                halves |= {one.id: (still, number) for number, one in enumerate(self.other.samples(part))}
        missing = []
        for part, dataset in self.source.datasets.items():
            samples = self.source.samples(part)
            missing += [one.id for one in samples if self.texts is None and one.id not in halves]
            self.datasets[part] = Pairs(dataset, samples, self.texts, halves, drawn=part == "train")
        if missing:
            raise BadInput(
                f"other: expected a sample of each id, got none of {len(missing)} ({', '.join(missing[:3])})"
            )
        if self.batch_size < 2:
            raise BadInput(f"expected a batch_size of 2 or more, as pairs are compared, got {self.batch_size}")

    def samples(self, part: str) -> list[Sample]:
        """The source's."""
        return self.source.samples(part)

    def digests(self, part: str) -> list[int]:
        """The source's."""
        return self.source.digests(part)

    def still(self, part: str) -> "Pairs":
        """The pairs of a part without random changes, each with the text of its number."""
        pairs: Any = self.datasets[part]
        return Pairs(self.source.still(part), pairs.samples, self.texts, pairs.halves, drawn=False)

    def keys(self, part: str) -> list[Hashable]:
        """What a pair is: its text, or its sample's content where texts are drawn."""
        if self.texts is None or self.texts.drawn:
            return list(self.source.contents(part))
        return list(self.said(part))

    def said(self, part: str) -> list[str]:
        """The text of each sample of a part without random changes; found once, as recall asks for it every epoch."""
        if part not in self._said:
            pairs = self.still(part)
            self._said[part] = [pairs[number][1] for number in range(len(pairs))]
        return self._said[part]

    def collate(self, samples: list[tuple[Any, Any]]) -> tuple[Any, Any]:
        """A batch of the source, and a list of texts or a batch of the other."""
        first, second = map(list, zip(*samples, strict=True))
        return self.source.collate(first), second if self.other is None else self.other.collate(second)

    def elements(self, sample: Any) -> int:
        """Of the first of a pair."""
        return super().elements(sample[0])


class Pairs(Dataset[tuple[Any, Any]]):
    """Samples and their other halves.

    Args:
        dataset: The samples.
        samples: What is known of them.
        texts: What is said of them, or None.
        halves: Where the other half of each id is, without texts.
        drawn: Whether a text is drawn anew each time.
    """

    def __init__(self, dataset: Dataset[Any], samples: list[Sample], texts: Texts | None,
                 halves: dict[str, tuple[Dataset[Any], int]], *, drawn: bool):  # fmt: skip
        self.dataset, self.samples, self.texts, self.halves, self.drawn = dataset, samples, texts, halves, drawn

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        item, sample = self.dataset[number], self.samples[number]
        if self.texts is None:
            other, place = self.halves[sample.id]
            return item, other[place]
        seed = int(torch.randint(2**31 - 1, ())) if self.drawn else seed_of(0, number)
        return item, self.texts.say(item, sample, seed)
