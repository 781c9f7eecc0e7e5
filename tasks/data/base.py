"""What every modality's data shares: checked once, in three parts, with a spec that tells a task its shape."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import CombinedLoader, rank_zero_info
from torch.utils.data import DataLoader, Dataset, Subset

from tasks.data.buckets import Buckets
from tasks.data.labels import natural, order_classes
from tasks.data.leaks import Identity, OnLeak, look_for_leaks
from tasks.data.problems import BadInput, OnBad, Problems
from tasks.data.views import Views, keep_labels

T = TypeVar("T")


class Sample(NamedTuple):
    """What is known of a sample beside its input and its target."""

    id: str
    """Its name, as it stands in predictions.csv; the same in every split."""
    group: str | None = None
    """Whose it is (a subject, a recording); None = nobody's but its own."""
    columns: Mapping[str, Any] = {}
    """Its row, where a table lists it."""
    target: Any = None
    """Its class, its labels or its values, where they are known without reading it."""


class PoolingData(LightningDataModule):
    """Data of one modality: three datasets, and a spec that tells a task all it must know about them.

    Subclasses read and check every input in `load`, which runs once, before training, and fills `datasets` and `_spec`.

    Args:
        batch_size: Samples in a batch.
        num_workers: Processes that load batches; 0 loads in the main process.
        fold: The fold held out for testing, where the data has folds.
        seed: Seed of splits and generated data; it does not depend on the training's own seed.
        on_bad: What to do with samples that cannot be used: raise one error that lists them all, or skip them.
        buckets: Divide the training samples by size into so many buckets; every batch comes from one, so that its
            samples are of similar size and little of it is padding (`tasks.data.buckets`). 1 = all together.
        labelled: Training samples of each class that keep their labels, drawn by ``seed``. They are shown so often that
            an epoch is as long as with all; the others are used by `consistency` alone. None = all.
        positive: Which of two classes is the positive one: its probability is reported, and sensitivity, precision and
            AUROC are of it. None = the larger number, the finding, or the rarer one (`tasks.data.labels`).
        on_leak: What to do where a validation or test sample has the content, the file or the group of an earlier
            part's: say it and give the results without it too, drop the earlier one, or raise an error.
        case_matters: Whether labels that differ in case or blanks only (Yes, yes) are two classes and not a mistake.
    """

    loader_class: type[DataLoader] = DataLoader
    """The loader that is built; modalities name their field's own."""

    def __init__(
        self,
        *,
        batch_size: int = 32,
        num_workers: int = 0,
        fold: int = 0,
        seed: int = 0,
        on_bad: OnBad = "raise",
        buckets: int = 1,
        labelled: int | None = None,
        positive: str | None = None,
        on_leak: OnLeak = "warn",
        case_matters: bool = False,
    ):
        super().__init__()
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.fold = fold
        self.seed = seed
        self.on_bad: OnBad = on_bad
        self.buckets = buckets
        self.labelled = labelled
        self.positive = positive
        self.positive_because = ""
        self.case_matters = case_matters
        self.on_leak: OnLeak = on_leak
        self.leaked: set[str] | None = (
            None  # names of samples that share something with an earlier part; None = not looked
        )
        self.kept: list[int] = []  # training samples that keep their labels, where not all do
        self.datasets: dict[str, Dataset] = {}
        self._samples: dict[str, list[Sample]] = {}  # by part, where `load` knows more of them than their names
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
        """What a task must know, in plain values.

        Always kind, classes and train_size (training samples with a label); class_counts (how many have each class or
        label), or in regression target_mean and target_std; and whatever the modality's encoder needs.
        """
        self.setup()
        return self._spec

    def setup(self, stage: str | None = None) -> None:
        """Load once, whichever stage asks first."""
        if not self.datasets:
            self.load()
            self._check_positive()
            if self.labelled is not None:
                self._keep_labels(self.labelled)

    def without_leaks(
        self, parts: Mapping[str, Sequence[T]], identify: Callable[[T], Identity], problems: Problems
    ) -> dict[str, list[T]]:
        """The parts of a split after `on_leak` was done to them; `leaked` names what is left."""
        kept, self.leaked = look_for_leaks(parts, identify, self.on_leak, problems, rank_zero_info)
        return kept

    def order_classes(self, problems: Problems, labels: Iterable[str]) -> list[str]:
        """The classes of all samples in order; of two, the positive one last."""
        counts = Counter(labels)
        try:
            classes, self.positive_because = order_classes(counts, self.positive, case_matters=self.case_matters)
        except BadInput as error:
            problems.stop(*str(error).split(": ", 1))
            return sorted(counts, key=natural)
        return classes

    def _check_positive(self) -> None:
        classes, kind = self._spec["classes"], self._spec["kind"]
        if self.positive is not None and (kind != "binary" or classes[1] != self.positive):
            what = f"the classes {' and '.join(classes)}" if kind == "binary" else f"a {kind} target"
            raise BadInput(
                f"positive: expected one of two classes that these data let choose, got '{self.positive}' and {what}; "
                "leave --data.positive out"
            )

    def samples(self, part: str) -> list[Sample]:
        """What is known of a part's samples, in their order; none where there is no such part."""
        self.setup()
        if part not in self._samples:
            dataset = self.still(part) if part in self.datasets else []
            self._samples[part] = [self._sample(dataset[i]) for i in range(len(dataset))]  # type: ignore[arg-type]
        return self._samples[part]

    def _sample(self, sample: Any) -> Sample:
        single = self._spec["kind"] in ("binary", "multiclass")
        return Sample(self.id_of(sample), target=self.class_of(sample) if single else None)

    def id_of(self, sample: Any) -> str:
        """The name of a sample."""
        return str(sample["id"])

    def class_of(self, sample: Any) -> int:
        """The class of a sample."""
        return int(sample["target"])

    def _keep_labels(self, each: int) -> None:
        if self._spec["kind"] not in ("binary", "multiclass"):
            raise BadInput(f"labelled: expected classes, got {self._spec['kind']}; leave it out")
        if self.buckets > 1:
            raise BadInput(
                f"expected 1 bucket where only {each} samples a class are labelled, got {self.buckets}; use 1"
            )
        still = self.still("train")
        labels = [self.class_of(still[number]) for number in range(len(still))]  # type: ignore[arg-type]
        self.kept = keep_labels(labels, self._spec["classes"], each, self.seed)
        self._spec |= {"class_counts": [each] * len(self._spec["classes"]), "train_size": len(self.kept)}

    def collate(self, samples: list[Any]) -> Any:
        """Make a batch of samples; torch's own rule unless a modality needs another.

        A dict holds one entry a sample under every key, in a tensor or a list: who draws a few cuts it to the first.
        """
        return torch.utils.data.default_collate(samples)

    def elements(self, sample: Any) -> int:
        """How many elements a sample has, by which `buckets` sorts.

        Raises:
            BadInput: If the data has no sizes to sort by.
        """
        name = type(self).__name__
        raise BadInput(f"expected 1 bucket, as {name} does not tell its samples' sizes, got {self.buckets}; use 1")

    def _in_buckets(self) -> Buckets | None:
        """The order of the training samples; None = a plain shuffle."""
        if self.buckets == 1:
            return None
        still = self.still("train")
        processes = self.trainer.world_size if self.trainer else 1  # they take turns to take a sample
        sizes = [self.elements(still[number]) for number in range(len(still))]  # type: ignore[arg-type]
        return Buckets(sizes, batch=self.batch_size * processes, buckets=self.buckets)

    def loader(self, dataset: Dataset, shuffle: bool) -> DataLoader:
        """Build a loader of the modality's `loader_class`."""
        sampler = self._in_buckets() if shuffle else None
        return self.loader_class(
            dataset=dataset,
            batch_size=self.batch_size,
            shuffle=shuffle and sampler is None,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=self._collate_views if isinstance(dataset, Views) else self.collate,
            # A last batch of one sample has no variance for a batch norm to learn from.
            drop_last=shuffle and self.batch_size > 1 and len(dataset) % self.batch_size == 1,
            persistent_workers=self.num_workers > 0,
        )

    def train_dataloader(self) -> DataLoader | CombinedLoader:
        """Shuffled training batches, in `buckets`; for a task with `consistency`, each beside two views of others."""
        train = self.datasets["train"]
        size = len(train)  # type: ignore[arg-type]
        labelled = self.loader(Subset(train, (self.kept * size)[:size]) if self.kept else train, True)
        if not (self.trainer and getattr(self.trainer.lightning_module, "consistency", 0)):
            return labelled
        return CombinedLoader({"labelled": labelled, "views": self.loader(Views(train), True)}, "min_size")

    def _collate_views(self, views: Sequence[list[Any]]) -> list[Any]:
        return [self.collate(view) for view in views]

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
