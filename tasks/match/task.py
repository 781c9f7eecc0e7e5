"""The module that trains two towers on pairs, and what it makes of samples, texts, and queries of either kind."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional

from modalpool import Pool
from tasks.data.problems import BadInput
from tasks.match.loss import info_nce
from tasks.match.retrieval import recall
from tasks.match.text import CharacterTransformer, TextEncoder
from tasks.pretrain.task import build, described
from tasks.task.base import PoolingTask
from tasks.task.finite import FiniteLosses
from tasks.task.optimiser import adamw

LARGEST_SCALE = 100.0  # CLIP's


class MatchTask(LightningModule):
    """Two towers that put a sample and what is said of it near each other (Radford et al. 2021, CLIP).

    The first is a task of any modality, of which `encode` and `pool` are used; the second a text encoder whose
    positions the same `modalpool.Pool` pools, or another task. Each ends in a projection to vectors of length one. CLIP
    itself takes the class token of its vision transformer, attention pooling in its ResNet, and the end-of-text token
    of a text, which is ``--model.text_pool last``.

    Args:
        task: The first tower, or its class path and options, as checkpoints hold them.
        text: The second tower; a `CharacterTransformer` unless given.
        other: Instead of it a task of another modality.
        text_pool: How a text's positions become a vector: mean, attention, max, any reduction without options, or last
            for the last position.
        width: Numbers of the shared vectors.
        temperature: The first; it is learned, and never below 1/100.
        lr: Peak learning rate of AdamW.
        weight_decay: Of AdamW.
        warmup: Share of the steps in which the learning rate rises.
        sizes: Numbers of the towers' pooled vectors; measured unless given.
    """

    def __init__(
        self,
        task: PoolingTask,
        *,
        text: TextEncoder | None = None,
        other: PoolingTask | None = None,
        text_pool: str = "mean",
        width: int = 128,
        temperature: float = 0.07,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup: float = 0.1,
        sizes: Sequence[int] | None = None,
    ):
        super().__init__()
        if text is not None and other is not None:
            raise ValueError("expected text or other, the second tower, got both; leave one out")
        if not temperature > 0:
            raise ValueError(f"temperature: expected a number above 0, got {temperature}; change it")
        self.first: PoolingTask = task if isinstance(task, PoolingTask) else build(task)
        self.other: PoolingTask | None = build(other) if isinstance(other, dict) else other
        self.text: TextEncoder | None = None
        if self.other is None:
            self.text = CharacterTransformer() if text is None else text
        for tower in (self.first, *([] if self.other is None else [self.other])):
            tower.head.requires_grad_(False)  # no label, no use
        self.spec, self.width = self.first.spec, width
        self.lr, self.weight_decay, self.warmup = lr, weight_decay, warmup
        self.save_hyperparameters({
            "match": True, "task": described(self.first), "spec": self.spec, "sizes": sizes, "text_pool": text_pool,
            "width": width, "temperature": temperature, "lr": lr, "weight_decay": weight_decay, "warmup": warmup,
            "other": None if self.other is None else described(self.other),
            "text": None if self.text is None else _described(self.text),
        })  # fmt: skip
        self.last = text_pool == "last"
        if self.text is not None:
            self.text_pool = Pool("b [n] c", "mean" if self.last else text_pool, channels=self.text.channels)
        self.scale = nn.Parameter(torch.tensor(1 / temperature).log())
        self.finite = FiniteLosses()
        self.seen: list[tuple[Tensor, Tensor]] = []
        self.projections: nn.ModuleList | None = None
        if sizes is not None:
            self._build(sizes)

    def _build(self, sizes: Sequence[int]) -> None:
        self.hparams["sizes"] = list(sizes)
        self.projections = nn.ModuleList([nn.Linear(size, self.width, bias=False) for size in sizes])

    def setup(self, stage: str) -> None:
        """Measure the towers' vectors, and build the projections."""
        if self.projections is not None:
            return
        data: Any = getattr(self.trainer, "datamodule", None)
        if data is None:
            raise ValueError("expected `sizes` where no MatchData is given, got None; give them")
        samples, others = data.few()
        training = self.training
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            self.eval()
            sizes = [_pooled(self.first, samples).shape[1], self._said(others).shape[1]]
            self.train(training)
            torch.manual_seed(0)  # one start, whatever was drawn before
            self._build(sizes)

    def _said(self, batch: Any) -> Tensor:
        if self.text is None:
            assert self.other is not None
            return _pooled(self.other, batch)
        x, lengths = self.text(batch)
        sets = {"lengths": lengths}
        if self.last:
            sets = {"mask": torch.arange(x.shape[1], device=x.device) == lengths[:, None] - 1}
        pooled: Tensor = self.text_pool(x, **sets)
        return pooled.flatten(1)

    def samples(self, batch: Any) -> Tensor:
        """Vectors of length one of a batch of the first tower, (B, D)."""
        assert self.projections is not None
        return functional.normalize(self.projections[0](_pooled(self.first, batch)).float(), dim=1)

    def others(self, batch: Any) -> Tensor:
        """The same of texts, or of a batch of the other task."""
        assert self.projections is not None
        return functional.normalize(self.projections[1](self._said(batch)).float(), dim=1)

    @torch.no_grad()
    def query(self, text: str) -> Tensor:
        """The vector of what `search` is asked for, (D,): of a sample where it is a file, else of a text.

        Raises:
            BadInput: If the file cannot be read, or the towers know no text.
        """
        if Path(text).is_file() or self.text is None:
            return self.samples(self.first.read(text))[0]
        return self.others([text])[0]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """InfoNCE of a batch of pairs."""
        samples, others = batch
        loss = info_nce(self.samples(samples), self.others(others), self.scale.exp().clamp(max=LARGEST_SCALE))
        shown: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": len(self.first.ids(samples))}
        self.log_dict({"train/loss": loss, "train/temperature": (-self.scale.detach()).exp()}, **shown)
        self.finite.add(loss, batch_idx, self.first.ids(samples))
        return loss

    def on_train_epoch_end(self) -> None:
        """See that losses are numbers."""
        self.finite.look()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Remember the vectors of pairs."""
        samples, others = batch
        self.seen.append((self.samples(samples).cpu(), self.others(others).cpu()))

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Recall within the validation part."""
        self._recall("val")

    def on_test_epoch_end(self) -> None:
        """Recall within the test part."""
        self._recall("test")

    def _recall(self, part: str) -> None:
        a, b = (torch.cat(vectors) for vectors in zip(*self.seen, strict=True))
        self.seen.clear()
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        keys = data.keys(part)
        if len(keys) == len(a):  # not where a run is cut short
            self.log_dict({f"{part}/{name}": value for name, value in recall(a @ b.T, keys).items()})

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with linear warm-up and cosine decay, stepped at every batch."""
        steps = self.trainer.estimated_stepping_batches
        return adamw(self.parameters(), lr=self.lr, weight_decay=self.weight_decay, warmup=self.warmup, steps=steps)


def load_match(path: str | Path) -> MatchTask:
    """The towers of a checkpoint that `python -m tasks match` wrote, in evaluation mode, on the CPU.

    Raises:
        BadInput: If it is none.
    """
    stored = torch.load(path, map_location="cpu", weights_only=True)
    options = dict(stored.get("hyper_parameters", {}))
    if not options.pop("match", False):
        raise BadInput(f"{path}: expected a checkpoint of two towers, got another; give one that match wrote")
    options.pop("spec")
    text = options.pop("text")
    match = MatchTask(**options, text=None if text is None else build(text))
    match.load_state_dict(stored["state_dict"])
    return match.eval()


def _pooled(task: PoolingTask, batch: Any) -> Tensor:
    return task.pooled(batch)[0].flatten(1)


def _described(text: TextEncoder) -> dict[str, Any]:
    return {"class_path": f"{type(text).__module__}.{type(text).__qualname__}", "init_args": text.options}
