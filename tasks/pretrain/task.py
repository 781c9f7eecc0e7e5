"""The module that trains a task's encoder and pool without labels, and the task that comes out of it."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from tasks.data.order import seed_of
from tasks.data.problems import BadInput
from tasks.pretrain.alarms import deviation, verdict
from tasks.pretrain.contrast import Contrast
from tasks.pretrain.distil import Distil
from tasks.pretrain.elements import Sizes, measure
from tasks.pretrain.objective import Objective
from tasks.pretrain.reconstruct import Reconstruct
from tasks.pretrain.teacher import follow, momentum_of, teacher_of
from tasks.pretrain.watch import Watch
from tasks.task.base import PoolingTask
from tasks.task.finite import FiniteLosses
from tasks.task.optimiser import adamw, keep_options


class PretrainTask(LightningModule):
    """Train the encoder and the pool of a task of any modality by an objective that needs no labels.

    The task is `student`; DINO's teacher, an average of its past, is `teacher`, and is what comes out
    (`load_pretrained`). Of the task only `encode` and `pool` are used, and, where elements are hidden, `inputs`,
    `with_inputs` and `edges`.

    Args:
        task: The task to pretrain, or its class path and options, as checkpoints hold them.
        objective: "ntxent" contrasts samples (`Contrast`), "dino" distils a teacher (`Distil`), "masked" guesses what
            is hidden (`Reconstruct`).
        lr: Peak learning rate of AdamW.
        weight_decay: Of AdamW.
        warmup: Share of the steps in which the learning rate rises.
        hidden: Neurons of the heads' hidden layers.
        temperature: Of the contrast, or of DINO's student; None = 0.2 and 0.1.
        projected: Numbers of a projected vector (ntxent).
        prototypes: Prototypes of a head (dino).
        bottleneck: Numbers of the vectors that are held against them.
        centring: What keeps DINO's teacher from giving all samples the same word.
        teacher_temperature: DINO's teacher's, at the beginning and after its warm-up.
        temperature_warmup: Share of the training in which it rises.
        half_life: Share of the training in which the teacher forgets half; its momentum rises to 1 at the end.
        freeze: Share of the training in which the prototypes do not learn.
        koleo: Weight of KoLeo (dino); DINOv2 has .1, which did harm where it was measured (docs/labelfree.md).
        ibot: Weight of iBOT (dino).
        tied: One head for samples and elements (dino with ibot).
        mask: Share of a sample's elements that is hidden (masked, ibot).
        measure: What a guess is held against: squared error, or cosine (masked); None = cosine of nodes, else squared.
        probe_every: Epochs between two kNN probes; None = about ten in a training, 0 = none.
        sizes: What the encoder makes of the data (`Sizes`); measured unless given.
    """

    def __init__(
        self,
        task: PoolingTask,
        *,
        objective: Literal["ntxent", "dino", "masked"] = "ntxent",
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        warmup: float = 0.1,
        hidden: int = 256,
        temperature: float | None = None,
        projected: int = 64,
        prototypes: int = 256,
        bottleneck: int = 64,
        centring: Literal["sinkhorn", "centre"] = "sinkhorn",
        teacher_temperature: tuple[float, float] = (0.04, 0.07),
        temperature_warmup: float = 0.3,
        half_life: float = 0.05,
        freeze: float = 0.02,
        koleo: float = 0.0,
        ibot: float = 0.0,
        tied: bool = False,
        mask: float = 0.5,
        measure: Literal["mse", "cosine"] | None = None,
        probe_every: int | None = None,
        sizes: dict[str, Any] | None = None,
    ):
        super().__init__()
        given = {name: value for name, value in locals().items() if name not in ("self", "task", "__class__")}
        if objective not in ("ntxent", "dino", "masked"):
            raise ValueError(f"expected objective ntxent, dino or masked, got '{objective}'; choose one of them")
        if not half_life > 0 or not 0 < mask < 1:
            raise ValueError(
                f"expected half_life above 0 and mask between 0 and 1, got {half_life} and {mask}; change it"
            )
        self.student: PoolingTask = task if isinstance(task, PoolingTask) else build(task)
        if self.student.weights or self.student.frozen:
            raise ValueError("weights and freeze are for fit, got them in a training without labels; leave them out")
        self.student.head.requires_grad_(False)  # no label, no use
        self.spec = self.student.spec
        self.options = given
        self.lr, self.weight_decay, self.warmup, self.half_life = lr, weight_decay, warmup, half_life
        stored = {"task": described(self.student), "spec": self.spec, **given}
        self.save_hyperparameters({name: _plain(value) for name, value in stored.items()})
        self.finite = FiniteLosses()
        self.watch = Watch(probe_every)
        self.found: list[str] = []  # what the alarms say at the end
        self.teacher: PoolingTask | None = None
        if objective == "dino":
            self.teacher = teacher_of(self.student)
        self.objective: Objective | None = None
        if sizes is not None:
            self.build_objective(Sizes(**sizes))

    def setup(self, stage: str) -> None:
        """Measure what the encoder makes of the data, and build the heads."""
        data = getattr(self.trainer, "datamodule", None)
        if self.objective is None and data is not None:
            sizes = measure(self.student, data.few())
            with torch.random.fork_rng(devices=[]):  # one start, whatever a strategy has drawn in its processes
                torch.manual_seed(seed_of(torch.initial_seed(), 1))
                self.build_objective(sizes)
        if self.objective is None:
            raise ValueError("expected `sizes` where no PretrainData is given, got None; give it")

    def build_objective(self, sizes: Sizes) -> None:
        """Build the heads for vectors and elements of these sizes."""
        o = self.options
        self.hparams["sizes"] = {name: _plain(value) for name, value in sizes._asdict().items()}
        if o["objective"] == "ntxent":
            temperature = 0.2 if o["temperature"] is None else o["temperature"]
            self.objective = Contrast(
                sizes.width, hidden=o["hidden"], outputs=o["projected"], temperature=temperature
            )  # fmt: skip
        elif o["objective"] == "masked":
            self._needs_inputs(sizes)
            self.objective = Reconstruct(sizes, hidden=o["hidden"], share=o["mask"], measure=o["measure"])
        else:
            if o["ibot"]:
                self._needs_inputs(sizes)
            self.objective = Distil(
                sizes,
                temperature=0.1 if o["temperature"] is None else o["temperature"],
                koleo_weight=o["koleo"],
                ibot_weight=o["ibot"],
                share=o["mask"],
                **{
                    name: o[name]
                    for name in (
                        "prototypes", "hidden", "bottleneck", "centring", "teacher_temperature", "temperature_warmup",
                        "tied", "freeze",
                    )
                },
            )  # fmt: skip

    def _needs_inputs(self, sizes: Sizes) -> None:
        if sizes.inputs is None:
            raise BadInput(
                f"expected a task that shows its inputs, so that elements can be hidden, got "
                f"{type(self.student).__name__} without; write its `inputs` and `with_inputs`, or take "
                "--model.objective ntxent, or dino with --model.ibot 0"
            )

    @property
    def result(self) -> PoolingTask:
        """What is trained: the teacher where there is one."""
        return self.student if self.teacher is None else self.teacher

    @property
    def progress(self) -> float:
        """How much of the training is over, 0 to 1."""
        return float(self.trainer.global_step / max(1.0, float(self.trainer.estimated_stepping_batches)))

    def train(self, mode: bool = True) -> "PretrainTask":
        """The teacher always stays as in evaluation."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def training_step(self, batch: Sequence[Any], batch_idx: int) -> Tensor:
        """The loss of a batch of views."""
        assert self.objective is not None
        step = self.objective.step(self.student, self.teacher, batch, self.progress)
        shown: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": len(step.vectors)}
        logged = {"loss": step.loss, "deviation": deviation(step.vectors.detach()), **step.logged}
        self.log_dict({f"train/{name}": value.detach() for name, value in logged.items()}, sync_dist=True, **shown)
        self.finite.add(step.loss, batch_idx, self.student.ids(batch[0]))
        return step.loss

    def on_after_backward(self) -> None:
        """Let no gradient reach what is frozen."""
        assert self.objective is not None
        for parameter in self.objective.frozen(self.progress):
            parameter.grad = None

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """After a step the teacher follows: once a step, not once a batch whose gradients are accumulated."""
        progress, steps = self.progress, float(self.trainer.estimated_stepping_batches)
        super().optimizer_step(*args, **kwargs)
        if self.teacher is not None and self.objective is not None:
            momentum = momentum_of(self.half_life, steps, progress)
            follow(self.teacher, self.student, momentum)
            self.objective.follow(momentum)

    def on_train_epoch_end(self) -> None:
        """See that losses are numbers, and probe now and then."""
        self.finite.look()
        found = self.watch.probe(self)
        if found:
            self.log_dict(found, sync_dist=True)

    def on_fit_start(self) -> None:
        """Probe the network as it was made, which is what a trained one has to beat."""
        self.watch.begin(self)

    def on_train_start(self) -> None:
        """Let this task's lr and weight_decay hold when a checkpoint brought the optimizer's state with other ones."""
        self.finite.forget()
        keep_options(self, self.lr, self.weight_decay)

    def on_train_end(self) -> None:
        """Say what the alarms found."""
        self.found = verdict({name: float(value) for name, value in self.trainer.callback_metrics.items()})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what a random network reached."""
        checkpoint["random_knn"] = self.watch.random

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Bring it back, with heads of the sizes that the weights are for."""
        self.watch.random = checkpoint.get("random_knn")
        sizes = checkpoint["hyper_parameters"].get("sizes")
        if self.objective is None and sizes:
            self.build_objective(Sizes(**sizes))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with linear warm-up and cosine decay, stepped at every batch."""
        steps = self.trainer.estimated_stepping_batches
        return adamw(self.parameters(), lr=self.lr, weight_decay=self.weight_decay, warmup=self.warmup, steps=steps)


def described(task: PoolingTask) -> dict[str, Any]:
    """A task's class path and options in plain values; `build` makes it again."""
    options = {name: _plain(value) for name, value in task.hparams.items() if not name.startswith("_")}
    return {"class_path": f"{type(task).__module__}.{type(task).__qualname__}", "init_args": options}


def build(described: dict[str, Any]) -> Any:
    """The task that `described` describes, or whatever else has class path and options so, with new weights."""
    module, _, name = described["class_path"].rpartition(".")
    return getattr(importlib.import_module(module), name)(**described["init_args"])


def load_pretrained(path: str | Path) -> PoolingTask:
    """The task that a pretraining made: the teacher where it had one, else the student; its head is as it began.

    Args:
        path: A checkpoint of `PretrainTask`.

    Returns:
        An ordinary task in evaluation mode, on the CPU.

    Raises:
        BadInput: If the checkpoint is none of a pretraining.
    """
    stored = torch.load(path, map_location="cpu", weights_only=True)
    options = stored.get("hyper_parameters", {})
    if not isinstance(options.get("task"), dict):
        raise BadInput(f"{path}: expected a checkpoint of a pretraining, got another; give one that pretrain wrote")
    task: PoolingTask = build(options["task"])
    weights = stored["state_dict"]
    prefix = "teacher." if any(name.startswith("teacher.") for name in weights) else "student."
    task.load_state_dict({name[len(prefix) :]: one for name, one in weights.items() if name.startswith(prefix)})
    return task.eval()


def _plain(value: Any) -> Any:
    """Tuples as lists: checkpoints hold plain values."""
    return list(value) if isinstance(value, tuple) else value
