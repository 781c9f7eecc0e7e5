"""Any modality's data as pretraining hears them: batches of views of samples, whose labels nobody looks at."""

import itertools
from collections.abc import Sequence
from typing import Any

from torch.utils.data import ConcatDataset, DataLoader, Dataset

from tasks.data.around import Around
from tasks.data.base import PoolingData, Sample
from tasks.data.crops import Crops
from tasks.data.problems import BadInput
from tasks.data.splits import PARTS
from tasks.data.views import Views


class PretrainData(Around):
    """Batches of views: two global ones of each sample and some local ones, which show less of it.

    Multi-crop, Caron et al. 2020 (SwAV, arXiv 2006.09882), section 3.3. What the data themselves draw at random is
    drawn anew for the two global views; local views are parts of these.

    Args:
        source: The data; their labels are used by the kNN probe alone, which watches.
        crops: What is done to a view; the modality's own unless given.
        heard: Parts that are trained on. With the test part in it, probes on it are transductive: the samples were
            heard, without their labels.
        local_views: Local views of each sample.
        global_size: Smallest and largest share of a sample's elements in a global view.
        local_size: The same of a local view.
        final_size: The same of global views in the last part of the training, which sees larger volumes, longer clips,
            more nodes (DINOv2, section 5: high-resolution adaptation); None = as before.
        final_share: How much of the training that is.
        batch_size: Samples in a batch; the source's unless given.
    """

    def __init__(
        self,
        source: PoolingData,
        *,
        crops: Crops | None = None,
        heard: Sequence[str] = ("train",),
        local_views: int = 0,
        global_size: tuple[float, float] = (0.5, 1.0),
        local_size: tuple[float, float] = (0.2, 0.5),
        final_size: tuple[float, float] | None = None,
        final_share: float = 0.15,
        batch_size: int | None = None,
    ):
        super().__init__(source, batch_size=batch_size)
        unknown = sorted(set(heard) - {*PARTS, "predict"})
        if unknown or not heard:
            got = ", ".join(heard) or "none"
            raise ValueError(f"expected heard of train, val, test, predict, got {got}; change it")
        for name, size in (("global_size", global_size), ("local_size", local_size), ("final_size", final_size)):
            if size is not None and not 0 < size[0] <= size[1] <= 1:
                raise ValueError(f"expected {name} of two shares, 0 < low <= high <= 1, got {list(size)}; change it")
        if local_views < 0 or not 0 <= final_share <= 1:
            raise ValueError(
                f"expected local_views of 0 or more and final_share from 0 to 1, got {local_views} and {final_share}"
            )
        self.heard = tuple(heard)
        self.crops_used: Crops = source.crops() if crops is None else crops
        self.local_views, self.global_size, self.local_size = local_views, tuple(global_size), tuple(local_size)
        self.final_size, self.final_share = final_size, final_share
        self.loader_class = source.loader_class

    def load(self) -> None:
        """Read the source."""
        self._spec = self.source.spec
        missing = [part for part in self.heard if part not in self.source.datasets]
        if missing:
            raise BadInput(f"heard: expected parts of {', '.join(self.source.datasets)}, got {', '.join(missing)}")
        parts: list[Dataset[Any]] = [self.source.datasets[part] for part in self.heard]
        self.datasets = {"train": parts[0] if len(parts) == 1 else _Together(parts)}
        if self.batch_size < 2:
            raise BadInput(f"expected a batch_size of 2 or more, as samples are compared, got {self.batch_size}")

    def samples(self, part: str) -> list[Sample]:
        """All that are heard train; no other part is there."""
        self.setup()
        return [one for name in self.heard for one in self.source.samples(name)] if part == "train" else []

    def digests(self, part: str) -> list[int]:
        """The same of their contents."""
        self.setup()
        return [one for name in self.heard for one in self.source.digests(name)] if part == "train" else []

    def still(self, part: str) -> Dataset[Any]:
        """Without random changes."""
        return _Together([self.source.still(name) for name in self.heard])

    def collate(self, samples: list[Any]) -> Any:
        """As the source does."""
        return self.source.collate(samples)

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of the heard samples, each drawn twice."""
        return self.loader(Views(self.datasets["train"]), True, dealt=True)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Make the views, on the device: two global ones first."""
        if not isinstance(batch, list) or not self.trainer or not self.trainer.training:
            return batch
        return self.make_views(batch, self._progress)

    def make_views(self, drawn: Sequence[Any], progress: float = 0.0) -> list[Any]:
        """The views of a batch that was drawn twice.

        Args:
            drawn: The same samples twice.
            progress: How much of the training is over, 0 to 1.
        """
        final = self.final_size is not None and progress >= 1 - self.final_share
        size: Any = self.final_size if final else self.global_size
        views = [self.crops_used.view(batch, size) for batch in drawn]
        local: Any = self.local_size
        return views + [
            self.crops_used.view(batch, local) for batch, _ in zip(itertools.cycle(drawn), range(self.local_views))
        ]

    @property
    def _progress(self) -> float:
        assert self.trainer is not None
        return self.trainer.global_step / max(1.0, float(self.trainer.estimated_stepping_batches))


class _Together(ConcatDataset[Any]):
    """Parts one behind the other, which a loader may ask for several samples at once."""

    def __getitems__(self, numbers: list[int]) -> list[Any]:
        return [self[number] for number in numbers]
