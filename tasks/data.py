"""What every modality's data shares: checked once, in three parts, with a spec that tells a task its shape."""

from abc import abstractmethod
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from tasks.problems import OnBad


class PoolingData(LightningDataModule):
    """Data of one modality: three datasets, and a spec that tells a task all it must know about them.

    Subclasses read and check every input in `load`, which runs once, before training, and fills `datasets` and `_spec`.

    Args:
        batch_size: Samples in a batch.
        num_workers: Processes that load batches; 0 loads in the main process.
        fold: The fold held out for testing, where the data has folds.
        seed: Seed of splits and generated data; it does not depend on the training's own seed.
        on_bad: What to do with samples that cannot be used: raise one error that lists them all, or skip them.
    """

    loader_class: type[DataLoader] = DataLoader
    """The loader that is built; modalities name their field's own."""

    def __init__(
        self, *, batch_size: int = 32, num_workers: int = 0, fold: int = 0, seed: int = 0, on_bad: OnBad = "raise"
    ):
        super().__init__()
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.fold = fold
        self.seed = seed
        self.on_bad: OnBad = on_bad
        self.datasets: dict[str, Dataset] = {}
        self._spec: dict[str, Any] = {}

    @abstractmethod
    def load(self) -> None:
        """Read and check all input; set ``self.datasets`` (train, val, test) and ``self._spec``.

        Raises:
            BadInput: Naming every file and row that cannot be used.
        """

    @property
    def folds(self) -> list[int]:
        """The folds that cross-validation runs; one for a fixed split. Asked before any `fold` is known to exist."""
        return [0]

    @property
    def spec(self) -> dict[str, Any]:
        """What a task must know, in plain values: kind, classes, channels, class_counts or target_mean, target_std."""
        self.setup()
        return self._spec

    def setup(self, stage: str | None = None) -> None:
        """Load once, whichever stage asks first."""
        if not self.datasets:
            self.load()

    def collate(self, samples: list[Any]) -> Any:
        """Make a batch of samples; torch's own rule unless a modality needs another."""
        return torch.utils.data.default_collate(samples)

    def loader(self, dataset: Dataset, shuffle: bool) -> DataLoader:
        """Build a loader of the modality's `loader_class`."""
        return self.loader_class(
            dataset=dataset,
            batch_size=self.batch_size,
            shuffle=shuffle,
            num_workers=self.num_workers,
            collate_fn=self.collate,
            # A last batch of one sample has no variance for a batch norm to learn from.
            drop_last=shuffle and self.batch_size > 1 and len(dataset) % self.batch_size == 1,
            persistent_workers=self.num_workers > 0,
        )

    def train_dataloader(self) -> DataLoader:
        """Shuffled training batches."""
        return self.loader(self.datasets["train"], True)

    def val_dataloader(self) -> DataLoader:
        """Validation batches."""
        return self.loader(self.datasets["val"], False)

    def test_dataloader(self) -> DataLoader:
        """Test batches."""
        return self.loader(self.datasets["test"], False)

    def still(self, part: str) -> Dataset:
        """A part of the data as it is looked at in a test: where training changes samples at random, it does not."""
        return self.datasets[part]

    def predict_dataloader(self) -> DataLoader:
        """Batches to predict: a ``"predict"`` dataset where `load` made one, else the test data."""
        return self.loader(self.datasets.get("predict", self.datasets["test"]), False)
