"""A modality without a field's library: sets of vectors whose mean gives the target away."""

from pathlib import Path

import torch
from lightning.pytorch import Callback
from torch import nn
from torch.utils.data import Dataset

from tasks.data.base import PoolingData
from tasks.data.problems import BadInput
from tasks.task.base import PoolingTask

ROOT = Path(__file__).resolve().parents[2]


class ToySets(Dataset):
    def __init__(self, count, kind, first, located=False):
        generator = torch.Generator().manual_seed(first)
        self.x = torch.randn(count, 7, 4, generator=generator)
        self.truth = None
        if located:  # two elements decide
            place = torch.rand(count, 7, generator=generator).argsort(1)[:, :2]
            self.truth = torch.zeros(count, 7, dtype=torch.bool).scatter(1, place, True)
            strength = torch.randn(count, 1, 2, generator=generator).sign() * 3
            self.x[..., :2] = torch.where(self.truth[..., None], strength, 0.1 * self.x[..., :2])
        score = self.x.mean(1)[:, :2] * 4  # (count, 2)
        self.y = {
            "binary": (score[:, 0] > 0).long(),
            "multiclass": torch.bucketize(score[:, 0].contiguous(), torch.tensor([-1.0, 1.0])),
            "multilabel": (score > 0).float(),
            "regression": score * 10 + 100,
        }[kind]
        self.first = first

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        sample = {"x": self.x[i], "y": self.y[i], "id": f"set {self.first + i}"}
        return sample if self.truth is None else sample | {"truth": self.truth[i]}


class ToyData(PoolingData):
    """Random sets.

    Args:
        kind: Kind of target.
        train: Number of training samples.
        first_fold: The first of the two folds.
        located: Whether two known elements of each set decide.
        tested: Number of validation samples, and of test samples.
        shared: Whether the folds are of the same sets: those that test in one train in the other.
    """

    def __init__(
        self,
        kind: str = "binary",
        train: int = 96,
        first_fold: int = 0,
        located: bool = False,
        shared: bool = False,
        tested: int = 32,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.kind, self.train, self.first_fold, self.located = kind, train, first_fold, located
        self.shared, self.tested = shared, tested

    @property
    def folds(self):
        return [self.first_fold, self.first_fold + 1]

    def load(self):
        if self.fold not in self.folds:
            raise BadInput(f"toy: expected a fold of {self.folds}, got {self.fold}")
        if not self.train:
            raise BadInput("toy: expected training sets, got none")
        sizes = {"train": self.train, "val": self.tested, "test": self.tested}
        self.datasets = {
            name: ToySets(size, self.kind, 1000 * i + 10000 * self.fold, self.located)
            for i, (name, size) in enumerate(sizes.items())
        }
        if self.shared and self.fold != self.first_fold:
            self.datasets = {"train": self.datasets["train"], "val": self.datasets["val"]}
            self.datasets["test"] = ToySets(self.train, self.kind, 10000 * self.first_fold, self.located)
        y = self.datasets["train"].y
        classes = {"binary": ["low", "high"], "multiclass": ["low", "mid", "high"]}.get(self.kind, ["first", "second"])
        self._spec = {"kind": self.kind, "classes": classes, "channels": 4, "train_size": self.train}
        if self.kind == "regression":
            self._spec |= {"target_mean": y.mean(0).tolist(), "target_std": y.std(0).tolist()}
        elif self.kind == "multilabel":
            self._spec["class_counts"] = y.sum(0).int().tolist()
        else:
            self._spec["class_counts"] = torch.bincount(y, minlength=len(classes)).tolist()

    def class_of(self, sample):
        return int(sample["y"])


class ToyTask(PoolingTask):
    """A linear encoder.

    Args:
        spec: What the data says of itself.
        hidden: Channels of the encoder.
    """

    def __init__(self, spec: dict, *, hidden: int = 8, **options):
        super().__init__(spec, layout="b [n] c", channels=hidden, **options)
        self.save_hyperparameters()
        self.encoder = nn.Linear(spec["channels"], hidden)

    def encode(self, batch):
        return self.encoder(batch["x"]), {}

    def target(self, batch):
        return batch["y"]

    def ids(self, batch):
        return batch["id"]

    def truth(self, batch):
        return list(batch["truth"]) if "truth" in batch else None

    def hide(self, batch, hidden):
        return {**batch, "x": batch["x"].masked_fill(torch.stack(hidden)[..., None], 0.0)}

    def inputs(self, batch):
        return batch["x"]

    def with_inputs(self, batch, x):
        return {**batch, "x": x}

    def rival_maps(self, batch):
        return {"size": list(batch["x"].norm(dim=-1))}

    def read(self, source):
        try:
            values = [float(value) for value in Path(source).read_text().split()]
        except (OSError, ValueError) as error:
            raise BadInput(f"{source}: {error}") from error
        return {"x": torch.tensor(values).view(1, -1, 4), "y": torch.tensor([torch.nan]), "id": [Path(source).stem]}

    def draw(self, batch, number, shown, decision, path: Path):
        values = " ".join(f"{value:.4f}" for value in shown.tolist())
        path.write_text(f"{decision.title}\n{values}\n")


class StopEarly(Callback):
    """Interrupt a training after its first epoch."""

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = True
