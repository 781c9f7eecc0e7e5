"""What every modality's data shares: checked once, in three parts, with a spec that tells a task its shape."""

import math
import random
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import CombinedLoader, rank_zero_info
from torch.utils.data import DataLoader, Dataset, Subset

from tasks.data.balance import balanced
from tasks.data.buckets import Buckets
from tasks.data.crops import Crops, Whole
from tasks.data.digests import digest_arrays
from tasks.data.labels import natural, order_classes
from tasks.data.leaks import Identity, OnLeak, look_for_leaks
from tasks.data.order import Dealt, Shuffle, seed_of
from tasks.data.problems import BadInput, OnBad, Problems
from tasks.data.splits import PARTS
from tasks.data.trained import ToldBy, Trained
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
        sampling: Show all training samples once an epoch, or draw as many with replacement, each class or label as
            often as the others (`tasks.data.balance`); the task's ``balance`` weighs the loss instead.
        labelled: Training samples of each class that keep their labels; below 1 a share of each class's. They are shown
            so often that an epoch is as long as with all; the others are used by `consistency` alone. None = all.
        labelled_seed: Seed of their draw; None = ``seed``.
        positive: Which of two classes is the positive one: its probability is reported, and sensitivity, precision and
            AUROC are of it. None = the larger number, the finding, or the rarer one (`tasks.data.labels`).
        on_leak: What to do where a validation or test sample has the content, the file or the group of an earlier
            part's: say it and give the results without it too, drop the earlier one, or raise an error.
        case_matters: Whether labels that differ in case or blanks only (Yes, yes) are two classes and not a mistake.
    """

    loader_class: type[DataLoader[Any]] = DataLoader
    """The loader that is built; modalities name their field's own."""
    told_by: ToldBy = "content"  # what `digests` are of

    def __init__(
        self,
        *,
        batch_size: int = 32,
        num_workers: int = 0,
        fold: int = 0,
        seed: int = 0,
        on_bad: OnBad = "raise",
        buckets: int = 1,
        sampling: Literal["all", "balanced"] = "all",
        labelled: int | float | None = None,
        labelled_seed: int | None = None,
        positive: str | None = None,
        on_leak: OnLeak = "warn",
        case_matters: bool = False,
    ):
        super().__init__()
        self.batch_size, self.num_workers, self.fold, self.seed = batch_size, num_workers, fold, seed
        self.on_bad: OnBad = on_bad
        self.buckets, self.sampling = buckets, sampling
        self.labelled, self.labelled_seed = labelled, seed if labelled_seed is None else labelled_seed
        self.positive, self.positive_because = positive, ""
        self.case_matters = case_matters
        self.on_leak: OnLeak = on_leak
        # Names of samples that share something with an earlier part; None = not looked.
        self.leaked: set[str] | None = None
        self.dropped: dict[str, list[str]] = {}  # names of samples that `on_leak` left out, by part
        self.unsaid: list[str] = []  # what a model's data have to say once they are not refused (`tell`)
        self.kept: list[int] = []  # training samples that keep their labels, where not all do
        self.datasets: dict[str, Dataset[Any]] = {}
        self._samples: dict[str, list[Sample]] = {}  # by part, where `load` knows more of them than their names
        self._spec: dict[str, Any] = {}
        self._order_seed: int | None = None
        self.predicted: dict[str, list[int]] = {}  # numbers of samples, by part
        self.trained: Trained | None = None  # what a model that is tested on these data, not trained, knows

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
    def fold_names(self) -> dict[int, str]:
        """What folds are called, where their numbers are not what the user calls them."""
        return {}

    @property
    def repeated(self) -> list[str]:
        """Columns of the table of samples that predictions.csv repeats: what a reader knows a sample by."""
        return []

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
            if self.trained is None:
                self._spec.setdefault("train_size", len(self.datasets.get("train", ())))  # type: ignore[arg-type]
                if self.labelled is not None:
                    self._keep_labels(self.labelled)

    def without_leaks(
        self, parts: Mapping[str, Sequence[T]], identify: Callable[[T], Identity], problems: Problems
    ) -> dict[str, list[T]]:
        """The parts of a split after `on_leak` was done to them; `leaked` names what is left, `dropped` what is not."""
        say = rank_zero_info if self.trained is None else self.unsaid.append
        kept, self.leaked, self.dropped = look_for_leaks(parts, identify, self.on_leak, problems, say)
        return kept

    def tell(self) -> None:
        """Say what was found in data for a trained model, which may be refused first."""
        for text in self.unsaid:
            rank_zero_info(text)
        self.unsaid = []

    def order_classes(self, problems: Problems, labels: Iterable[str]) -> list[str]:
        """The classes in order; of two, the positive one last."""
        if self.trained is not None:
            return list(self.trained.spec["classes"])
        counts = Counter(labels)
        try:
            classes, self.positive_because = order_classes(counts, self.positive, case_matters=self.case_matters)
        except BadInput as error:
            problems.stop(*str(error).split(": ", 1))
            return sorted(counts, key=natural)
        return classes

    def all_new(self, digests: Sequence[int]) -> bool:
        """Whether the data are for a model that has seen none of them: then all test, whatever folds would hold out."""
        return self.trained is not None and self.trained.known and not any(self.trained.saw(digests))

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
            dataset: Any = self.still(part) if part in self.datasets else []
            self._samples[part] = [self._sample(dataset[i]) for i in range(len(dataset))]
        return self._samples[part]

    def _sample(self, sample: Any) -> Sample:
        single = self._spec["kind"] in ("binary", "multiclass")
        return Sample(self.id_of(sample), target=self.class_of(sample) if single else None)

    def id_of(self, sample: Any) -> str:
        """The name of a sample."""
        return str(sample["id"])

    def digests(self, part: str) -> list[int]:
        """What tells each sample of a part from others (`told_by`), in their order."""
        still = self.still(part)
        return [digest_arrays(still[i]) for i in range(len(still))]  # type: ignore[arg-type]

    def contents(self, part: str) -> Sequence[Hashable]:
        """The same, whatever the order in which a sample lists its elements."""
        return self.digests(part)

    def training(self) -> Trained:
        """What is trained on these data, as checkpoints say it."""
        self.setup()
        none = torch.empty(0, dtype=torch.long)
        samples = {
            part: torch.tensor(self.digests(part), dtype=torch.long) if part in self.datasets else none
            for part in PARTS
        }
        return Trained(self._spec, samples, {"fold": self.fold, "seed": self.seed}, self.told_by)

    def crops(self) -> Crops:
        """What makes views of a batch for training without labels (`tasks.pretrain`)."""
        return Whole()

    def class_of(self, sample: Any) -> int:
        """The class of a sample."""
        return int(sample["target"])

    def _keep_labels(self, each: float) -> None:
        if self._spec["kind"] not in ("binary", "multiclass"):
            raise BadInput(f"labelled: expected classes, got {self._spec['kind']}; leave it out")
        if self.buckets > 1:
            raise BadInput(
                f"expected 1 bucket where only {each} samples a class are labelled, got {self.buckets}; use 1"
            )
        labels, classes = self.training_classes(), self._spec["classes"]
        self.kept = keep_labels(labels, classes, each, self.labelled_seed)
        counts = Counter(labels[number] for number in self.kept)
        self._spec |= {"class_counts": [counts[one] for one in range(len(classes))], "train_size": len(self.kept)}

    def training_classes(self) -> list[int]:
        """The class of each training sample."""
        still = self.still("train")
        return [self.class_of(still[number]) for number in range(len(still))]  # type: ignore[arg-type]

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

    def _order(self, size: int, *, number: int) -> Shuffle:
        """The order of the ``number``-th loader of training samples."""
        if self._order_seed is None:
            self._order_seed = torch.initial_seed()  # the training's: epochs have seeds of their own later
        seed = seed_of(self._order_seed, number)
        if self.sampling == "balanced":
            order: Shuffle = balanced(self, seed=seed)
        elif self.buckets == 1:
            order = Shuffle(size, seed=seed)
        else:
            still = self.still("train")
            sizes = [self.elements(still[i]) for i in range(len(still))]  # type: ignore[arg-type]
            order = Buckets(sizes, batch=self.batch_size * self._processes, buckets=self.buckets, seed=seed)
        order.follow(self.trainer, self.batch_size * self._processes)
        return order

    @property
    def _processes(self) -> int:
        """Processes that take turns to take a sample."""
        return self.trainer.world_size if self.trainer else 1

    def reseed(self, seed: int) -> None:
        """Let all that is random in a training from now on, in this process, depend on ``seed`` alone."""
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - what libraries draw from
        random.seed(seed)

    def loader(self, dataset: Dataset[Any], shuffle: bool, *, number: int = 0, dealt: bool = False) -> DataLoader[Any]:
        """Build a `loader_class`; loaders that shuffle side by side have other numbers; ``dealt``: to all processes."""
        size = len(dataset)  # type: ignore[arg-type]
        order = self._order(size, number=number) if shuffle else None
        sampler: Shuffle | Dealt | None = order
        if dealt and self.trainer and self._processes > 1:
            sampler = Dealt(order or range(size), processes=self._processes, rank=self.trainer.global_rank)
        each = math.ceil(size / self._processes)
        return self.loader_class(
            dataset=dataset,
            batch_size=self.batch_size,
            shuffle=False,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=self._collate_views if isinstance(dataset, Views) else self.collate,
            # A last batch of one sample has no variance for a batch norm to learn from.
            drop_last=shuffle and each > self.batch_size > 1 and each % self.batch_size == 1,
            persistent_workers=self.num_workers > 0,
            # Its own: what a loader draws, once an iterator, would change what an epoch draws after it.
            generator=torch.Generator().manual_seed(order.seed) if order else None,
        )

    def train_dataloader(self) -> DataLoader[Any] | CombinedLoader:
        """Shuffled training batches, in `buckets`; for a task with `consistency`, each beside two views of others."""
        train = self.datasets["train"]
        size = len(train)  # type: ignore[arg-type]
        labelled = self.loader(Subset(train, (self.kept * size)[:size]) if self.kept else train, True, dealt=True)
        task: Any = self.trainer.lightning_module if self.trainer else None
        if not getattr(task, "consistency", 0):
            return labelled
        views = self.loader(Views(train), True, number=1, dealt=True)
        return CombinedLoader({"labelled": labelled, "views": views}, "min_size")

    def _collate_views(self, views: Sequence[list[Any]]) -> list[Any]:
        return [self.collate(view) for view in views]

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation batches."""
        return self.loader(self.datasets["val"], False, dealt=True)

    def test_dataloader(self) -> DataLoader[Any]:
        """Test batches."""
        return self.loader(self.datasets["test"], False, dealt=True)

    def still(self, part: str) -> Dataset[Any]:
        """A part of the data as it is looked at in a test: where training changes samples at random, it does not."""
        return self.datasets[part]

    def predict_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """Batches to predict: the samples in `predicted`; else all that are to be predicted, or the test data."""
        part = "predict" if "predict" in self.datasets else "test"
        chosen = self.predicted or {part: list(range(len(self.datasets[part])))}  # type: ignore[arg-type]
        subsets = [Subset(self.still(part), numbers) for part, numbers in chosen.items()]
        loaders = [self.loader(subset, False, dealt=True) for subset in subsets]
        return loaders[0] if len(loaders) == 1 else loaders
