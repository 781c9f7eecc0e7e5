"""The task every modality shares: encoder, pool and head, with loss, metrics and maps.

A batch goes through the encoder (the field's library) to features (element axes kept), the pool and the head, and from
there to loss, metrics and maps.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torchmetrics.aggregation import MeanMetric

from modalpool import Pool
from tasks.data.splits import PARTS
from tasks.task.class_weights import class_weights
from tasks.task.embedding import Embedding, embed_batch
from tasks.task.evidence import Evidence, choose_maps, find_evidence
from tasks.task.finite import FiniteLosses
from tasks.task.flatten import flatten_pool, fully_connected
from tasks.task.logged import LoggedBriefly
from tasks.task.metrics import build_metrics
from tasks.task.modality import Modality
from tasks.task.operating_point import OperatingPoint
from tasks.task.optimiser import adamw, keep_options
from tasks.task.ranks import check_norms, own_samples
from tasks.task.regularise import Mixture, disagreement, own_share
from tasks.task.weights import FromWeights


class PoolingTask(Modality, LoggedBriefly, FromWeights):
    """Encoder, pool and head, with loss, metrics and maps, for classification and regression.

    Subclasses call ``super().__init__`` with their layout and channels, then ``save_hyperparameters()``, then build the
    encoder; what they implement is in `tasks.task.modality.Modality`.

    Args:
        spec: What the data says of itself (`tasks.data.base.PoolingData.spec`).
        layout: Axis names of the encoder's output, pooled axes in brackets (`modalpool.Pool`).
        channels: Channels of the encoder's output.
        lr: Peak learning rate of AdamW.
        weight_decay: Weight decay of AdamW; biases and norms are left out.
        warmup: Share of the steps in which the learning rate rises to its peak; a cosine takes it to zero.
        balance: Weigh classes by the inverse of their number of training samples.
        label_smoothing: Share of the target that is spread over all classes (classification).
        regression_loss: Loss on standardised targets (regression).
        head_dropout: Dropout on the pooled vector.
        head_norm: Batch norm of the pooled vector: sums over sets of very different sizes need it.
        flatten: Do not pool, as a rival: sizes of the features that are flattened for fully connected layers instead.
        flatten_layers: Neurons of these layers before the last.
        consistency: Weight of the disagreement of two views of a sample, which augmentation and dropout make different
            (`tasks.task.regularise`); samples need no label for it (``labelled`` of the data).
        pooled_mixup: Strength α of mixup of the pooled vectors (`tasks.task.regularise`); 0 turns it off.
        weights: Begin the encoder with this state dict, a .safetensors file or one that torch.save wrote.
        freeze: Keep the encoder as it begins: no gradients, its norms and dropout in evaluation mode.
        pretrained: Checkpoint whose network `fit` begins with, whatever its head was for (`tasks.task.pretrained`).
        pool_options: Reduction and options of the pool; None leaves out what a config has set for another pool.
    """

    class_weights: Tensor | None
    target_mean: Tensor
    target_std: Tensor

    def __init__(
        self,
        spec: dict[str, Any],
        *,
        layout: str,
        channels: int,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        warmup: float = 0.05,
        balance: bool = False,
        label_smoothing: float = 0.0,
        regression_loss: Literal["mse", "l1", "huber"] = "mse",
        head_dropout: float = 0.0,
        head_norm: bool = False,
        flatten: Sequence[int] | None = None,
        flatten_layers: Sequence[int] = (),
        consistency: float = 0.0,
        pooled_mixup: float = 0.0,
        weights: str | None = None,
        freeze: bool = False,
        pretrained: str | None = None,
        **pool_options: Any,
    ):
        super().__init__()
        self.spec = spec
        self.kind: str = spec["kind"]
        self.classes: list[str] = list(spec["classes"])
        self.outputs = 1 if self.kind == "binary" else len(self.classes)
        self.lr, self.weight_decay, self.warmup = lr, weight_decay, warmup
        self.label_smoothing, self.regression_loss = label_smoothing, regression_loss
        self.head_dropout, self.head_norm = head_dropout, head_norm
        self.weights, self.frozen = weights, freeze
        if weights and pretrained:
            raise ValueError("expected weights or pretrained, got both; the encoder begins with one of them")
        self.consistency, self.pooled_mixup, self.pretrained = consistency, pooled_mixup, pretrained
        self.finite = FiniteLosses()
        for name in [name for name, value in pool_options.items() if value is None]:
            del pool_options[name]
        if flatten:
            self.pool: Pool = flatten_pool(layout, flatten, channels)
            widths = [channels * math.prod(flatten), *flatten_layers]
            self.head: nn.Module = fully_connected(widths, dropout=head_dropout).append(self.linear_head(widths[-1]))
        else:
            self.pool = Pool(layout, channels=channels, **pool_options)
            self.head = self.build_head()
        self.metrics = nn.ModuleDict(
            {f"{part}_metrics": build_metrics(self.kind, len(self.classes), f"{part}/") for part in PARTS}
        )
        self.losses = nn.ModuleDict({part: MeanMetric(nan_strategy="disable") for part in ("val", "test")})
        self.operating_point = OperatingPoint() if self.kind == "binary" else None
        self.register_buffer("class_weights", class_weights(spec) if balance else None, persistent=False)
        mean, std = spec.get("target_mean", [0.0] * self.outputs), spec.get("target_std", [1.0] * self.outputs)
        self.register_buffer("target_mean", torch.tensor(mean), persistent=False)
        self.register_buffer("target_std", torch.tensor(std), persistent=False)

    # What a modality may change.

    def build_head(self) -> nn.Module:
        """Map the pooled vectors to the outputs; linear unless a modality needs another."""
        return self.linear_head(self.pooled_size)

    @property
    def pooled_size(self) -> int:
        """Numbers of a pooled vector, or of all of them where the pool has several."""
        return (self.pool.out_channels or 0) * (self.pool.vectors or 1)

    def linear_head(self, features: int) -> nn.Module:
        """Flatten, normalise if asked to, drop out, and map ``features`` numbers to the outputs."""
        norm = [nn.BatchNorm1d(features)] if self.head_norm else []
        return nn.Sequential(nn.Flatten(1), *norm, nn.Dropout(self.head_dropout), nn.Linear(features, self.outputs))

    def readout(self, sets: dict[str, Any]) -> Callable[[Tensor], Tensor]:
        """The head for a batch whose `encode` returned ``sets``; the same for every batch unless it must know them."""
        return self.head

    def mixed(self, batch: Any) -> Any:
        """A training batch whose samples are mixed with each other; as it is unless a modality does."""
        return batch

    def batch_loss(self, logits: Tensor, batch: Any) -> Tensor:
        """The loss of a batch against its targets; mixed samples have more than their own."""
        return self.loss(logits, self.target(batch))

    # What follows from it.

    def forward(self, batch: Any) -> Tensor:
        """Logits of a batch, (B, outputs); standardised values in regression."""
        z, sets = self.pooled(batch)
        return self.readout(sets)(z)

    def predictions(self, logits: Tensor) -> Tensor:
        """Turn logits into what is reported: (B, K) probabilities, or (B, T) values in original units."""
        logits = logits.float()
        if self.kind == "binary":
            positive = logits.sigmoid()
            return torch.cat([1 - positive, positive], 1)
        if self.kind == "multiclass":
            return logits.softmax(1)
        if self.kind == "multilabel":
            return logits.sigmoid()
        return logits * self.target_std + self.target_mean

    def explain(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Predictions (as `predictions`) and signed maps of which element made them.

        Summed over a sample's elements, plus the head's bias, a map gives the logit; in regression maps are in the
        target's units. A binary task has one map: evidence for its second class.
        """
        evidence = self.evidence(batch)
        return self.predictions(evidence.logits), evidence.maps

    def evidence(self, batch: Any) -> Evidence:
        """The logits, the maps of `explain`, their sums, and what they miss of the logits."""
        x, sets = self.encode(batch)
        unit = self.target_std if self.kind == "regression" else None
        return find_evidence(self.pool, self.readout(sets), x, sets, unit=unit)

    def explained(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The output whose map is judged, ``(B,)``, and the sign with which it speaks for the target, ``(B,)`` of ±1.

        The target's class; in a binary task its one output, turned around for the first class; the first label that
        holds; in regression the first value.
        """
        target = self.target(batch)
        if self.kind == "binary":
            return torch.zeros_like(target), target * 2 - 1
        if self.kind == "multiclass":
            return target, torch.ones_like(target)
        first = (
            (target == 1).int().argmax(1)
            if self.kind == "multilabel"
            else torch.zeros_like(target[:, 0], dtype=torch.long)
        )
        return first, torch.ones_like(first)

    def sample_maps(self, batch: Any) -> list[Tensor]:
        """For each sample the signed map of what speaks for its target (`explained`), on the grid of `truth`."""
        outputs, signs = self.explained(batch)
        chosen = self.choose(self.explain(batch)[1], outputs, batch)
        return [one * sign for one, sign in zip(chosen, signs, strict=True)]

    def choose(self, maps: Tensor, outputs: Tensor, batch: Any) -> list[Tensor]:
        """Of each sample the map of one output, ``outputs`` (B,), on the grid of its input."""
        sets = self.encode(batch)[1] if self.pool.layout.axes(maps.ndim).ragged else {}
        return self.to_inputs(choose_maps(self.pool, maps, outputs, sets), batch)

    def embed(self, batch: Any) -> Embedding:
        """The dual features of a batch: a vector of each sample, and of each of its elements with its place.

        The vectors are what the head reads: what is close in them is alike to the task. `python -m tasks embed` writes
        them as a table. Elements are nodes of a graph, or cells of a spectrogram or volume, and ``places`` says which
        (`place_names`). Padding and class tokens, which the pool does not count, are not among them.

        Raises:
            ValueError: If the pool counts an element that has no place in the input.
        """
        return embed_batch(self, batch)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The kind's own loss: cross-entropy, or the chosen regression loss on standardised targets.

        Labels or values that are NaN are not known; the loss is the mean over the others.
        """
        if self.kind == "multiclass":
            return nn.functional.cross_entropy(
                logits, target, weight=self.class_weights, label_smoothing=self.label_smoothing
            )
        if self.kind == "regression":
            losses: dict[str, Callable[..., Tensor]] = {
                "mse": nn.functional.mse_loss,
                "l1": nn.functional.l1_loss,
                "huber": nn.functional.smooth_l1_loss,
            }
            target = ((target - self.target_mean) / self.target_std).to(logits)
            known = ~target.isnan()
            return _mean(losses[self.regression_loss](logits, target.nan_to_num(), reduction="none"), known)
        target = target.reshape(logits.shape).to(logits)
        known = ~target.isnan()
        target = target.nan_to_num() * (1 - self.label_smoothing) + self.label_smoothing / 2
        each = nn.functional.binary_cross_entropy_with_logits(
            logits, target, pos_weight=self.class_weights, reduction="none"
        )
        return _mean(each, known)

    def mix_pooled(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Logits and loss of a batch whose pooled vectors are mixed in pairs (`tasks.task.regularise.Mixture`)."""
        x, sets = self.encode(batch)
        z = self.pool(x, **sets)
        mixture = Mixture(share=own_share(self.pooled_mixup), partner=torch.randperm(len(z), device=z.device))
        if "mask" in sets and not self.pool.layout.axes(x.ndim).ragged:  # a mixture is as long as the longer of the two
            sets = {**sets, "mask": sets["mask"] | sets["mask"][mixture.partner]}
        logits = self.readout(sets)(mixture.mix(z))
        return logits, mixture.loss(self.loss, logits, self.target(batch))

    def _step(self, batch: Any, part: str, batch_idx: int = 0) -> dict[str, Any]:
        ids, target = self.ids(batch), self.target(batch)
        own = len(ids) if part == "train" else own_samples(self._trainer, part, batch_idx, len(ids))
        if part == "train" and self.pooled_mixup:
            logits, loss = self.mix_pooled(batch)
        else:
            logits = self(batch)
            first = slice(own or 1)
            loss = self.batch_loss(logits, batch) if own == len(ids) else self.loss(logits[first], target[first])
        predictions = self.predictions(logits.detach())
        metrics: Any = self.metrics[f"{part}_metrics"]
        if own:
            metrics.update((predictions[:, 1] if self.kind == "binary" else predictions)[:own], target[:own])
            if part == "val" and self.operating_point is not None:
                self.operating_point.update(predictions[:own, 1], target[:own])
        shown: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": own, "prog_bar": part == "val"}
        joined: Any = self.losses  # of all processes by their samples: Lightning would round the samples' mean number
        if part != "train":
            joined[part].update(loss.detach().expand(own))
        self.log(f"{part}/loss", loss if part == "train" else joined[part], sync_dist=True, **shown)
        self.log_dict(metrics, **shown)
        return {"loss": loss, "ids": ids, "target": target, "predictions": predictions}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Loss of a training batch; with `consistency` it comes with two views of samples, labelled or not."""
        views = ()
        if self.consistency:
            batch, views = batch["labelled"], batch["views"]
        loss: Tensor = self._step(self.mixed(batch), "train")["loss"]
        if views:
            gap = disagreement(self.kind, *(self(view) for view in views))
            self.log("train/disagreement", gap, on_step=False, on_epoch=True, batch_size=len(self.ids(views[0])))
            loss = loss + self.consistency * gap
        self.finite.add(loss, batch_idx, self.ids(batch))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Metrics of a validation batch."""
        return self._step(batch, "val", batch_idx)

    def on_validation_start(self) -> None:
        """Stop before validation and its checkpoint if a training loss was not finite."""
        self.finite.look()

    def on_validation_epoch_end(self) -> None:
        """Choose the threshold of a binary task's decisions, which the epoch's checkpoint keeps."""
        if self.operating_point is not None:
            self.operating_point.choose()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the threshold beside the weights that it was chosen for."""
        if self.operating_point is not None:
            checkpoint["threshold"] = self.operating_point.threshold

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Bring it back; earlier checkpoints have none."""
        super().on_load_checkpoint(checkpoint)
        if self.operating_point is not None:
            self.operating_point.threshold = checkpoint.get("threshold", math.nan)

    def on_train_epoch_end(self) -> None:
        """The same where nothing is validated."""
        self.finite.look()

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Metrics and predictions of a test batch."""
        return self._step(batch, "test", batch_idx)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Predictions of a batch, without targets."""
        return {"ids": self.ids(batch), "predictions": self.predictions(self(batch))}

    def setup(self, stage: str) -> None:
        """See that the trainer can do what it is asked for."""
        super().setup(stage)
        check_norms(self.trainer)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with linear warm-up and cosine decay, stepped at every batch."""
        steps = self.trainer.estimated_stepping_batches
        return adamw(self.parameters(), lr=self.lr, weight_decay=self.weight_decay, warmup=self.warmup, steps=steps)

    def on_train_start(self) -> None:
        """Let this task's lr and weight_decay hold when a checkpoint brought the optimizer's state with other ones."""
        self.finite.forget()
        keep_options(self, self.lr, self.weight_decay)


def _mean(losses: Tensor, known: Tensor) -> Tensor:
    """The mean of the losses whose targets are known; zero where none is."""
    return torch.where(known, losses, 0.0).sum() / known.sum().clamp(min=1)
