"""Checkpoints that are whole, say what they were trained on, and go on as if nothing had happened."""

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from tasks.data.base import PoolingData
from tasks.data.order import seed_of
from tasks.data.problems import BadInput
from tasks.data.trained import Trained
from tasks.outputs.files import whole


class WholeFiles(TorchCheckpointIO):
    """Write a checkpoint beside the old one, and put it in its place when it is on the disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write it.

        Raises:
            BadInput: If it cannot be written, because the disk is full for example; the old one is as it was.
        """
        try:
            with whole(path) as place, place.open("wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch's writer wraps the system's error
            cause = error if isinstance(error, OSError) else error.__context__ or error
            kept = "the last one that was is as before" if Path(path).is_file() else "there is none yet"
            raise BadInput(f"checkpoint {path} could not be written ({cause}); {kept}; make room and resume") from error


class Best(ModelCheckpoint):
    """The best checkpoint of a whole training, also where it was interrupted and goes on in another folder."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take nothing: it names files of another folder. `on_load_checkpoint` brings them here."""

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """When a training is resumed, bring along what was best before, with its score."""
        if trainer.state.fn != TrainerFn.FITTING or self.monitor is None:
            return
        earlier = checkpoint["callbacks"].get(self.state_key)
        if earlier is None:
            rank_zero_warn(
                f"the resumed checkpoint was not monitored by {self.monitor}; best is of the epochs from now"
            )
            return
        assert trainer.ckpt_path is not None
        assert self.dirpath is not None
        for name in earlier["best_k_models"]:
            file, own = Path(trainer.ckpt_path).with_name(Path(name).name), Path(self.dirpath, Path(name).name)
            if not file.is_file():
                rank_zero_warn(f"{file} is not there any more; best is of the epochs from now")
                continue
            # The file's own score: it may be an epoch ahead of the resumed one, where a run was killed in between.
            score = torch.load(file, map_location="cpu", weights_only=True)["callbacks"][self.state_key][
                "current_score"
            ]
            if trainer.is_global_zero and file.resolve() != own.resolve():
                with whole(own) as place:
                    shutil.copyfile(file, place)
            self.best_k_models[str(own)] = score
        if self.best_k_models:
            worst, best = (max, min) if self.mode == "min" else (min, max)
            self.kth_best_model_path = worst(self.best_k_models, key=lambda path: self.best_k_models[path])
            self.kth_value = self.best_k_models[self.kth_best_model_path]
            self.best_model_path = best(self.best_k_models, key=lambda path: self.best_k_models[path])
            self.best_model_score = self.best_k_models[self.best_model_path]


class Last(Best):
    """The state after the last whole epoch, ``last.ckpt``, which a training goes on from.

    Args:
        every: Write it after each so many steps, too, where an epoch takes hours; a training then goes on within it.
    """

    def __init__(self, every: int | None = None) -> None:
        super().__init__(filename="last", monitor=None, save_on_train_epoch_end=True, enable_version_counter=False)
        if every is not None and every < 1:
            raise BadInput(f"run.save_every: expected 1 step or more, got {every}; leave it out to save after epochs")
        self.every = every

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within an epoch."""
        step, last = trainer.global_step, trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if self.every and not last and step % self.every == 0 and step != self._last_global_step_saved:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))


class Resumable(Callback):
    """Let every epoch's random numbers follow from its number, and put into checkpoints what they were trained on."""

    def __init__(self) -> None:
        self.seed = 0
        self.trained: Trained | None = None
        self.earlier: Trained | None = None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember what the resumed training had seen."""
        self.earlier = Trained.read(checkpoint)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the training's seed, and write ``split.csv`` into the run's folder: who is in which part."""
        self.seed = torch.initial_seed()
        data = getattr(trainer, "datamodule", None)
        if isinstance(data, PoolingData) and not getattr(trainer, "fast_dev_run", False):
            self.trained = data.training().and_earlier(self.earlier)
            folder = trainer.log_dir  # asks all processes
            if folder and trainer.is_global_zero:
                write_split(Path(folder) / "split.csv", data)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin where the training is that is resumed.

        Lightning has begun to load before it knew where, and processes that load have drawn their samples. Within an
        epoch random numbers are those of its next batch, as those of its beginning are used up.
        """
        loop = trainer.fit_loop
        batches = loop.epoch_loop.batch_progress
        if trainer.ckpt_path and loop._data_fetcher is not None:
            iter(loop._data_fetcher)
        if batches.current.ready and not batches.is_last_batch:
            self._reseed(trainer, batches.current.ready)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw on from here as a training that was not interrupted would."""
        self._reseed(trainer)

    def _reseed(self, trainer: Trainer, *more: int) -> None:
        data = getattr(trainer, "datamodule", None)
        if isinstance(data, PoolingData):
            data.reseed(seed_of(self.seed, trainer.current_epoch, trainer.global_rank, *more))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Say what the weights were trained on, and what the epoch's curves are: they are drawn after this."""
        if self.trained is not None:
            checkpoint["trained"] = self.trained.stored()
        checkpoint["logged"] = {
            name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("train/")
        }


def write_split(path: Path, data: PoolingData) -> None:
    """Write who is in which part: id, part, fold (the one that is held out), group, and a digest of the content."""
    with whole(path) as place, place.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "part", "fold", "group", "digest"])
        for part in data.datasets:
            for sample, number in zip(data.samples(part), data.digests(part), strict=True):
                fold = data.fold if part == "test" else ""
                writer.writerow([sample.id, part, fold, sample.group or "", f"{number % 2**64:016x}"])


def history(path: Path, checkpoint: dict[str, Any]) -> list[dict[str, float]]:
    """The rows of metrics.csv up to a checkpoint, from the folder of the run that wrote it; none if it is not there."""
    table = path.parent.parent / "metrics.csv"
    if not table.is_file():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        rows = [{name: _number(text) for name, text in row.items() if text} for row in csv.DictReader(file)]
    rows = [row for row in rows if row["step"] < checkpoint["global_step"]]
    last = checkpoint["global_step"] - 1
    if checkpoint.get("logged") and not any(
        row["step"] == last and checkpoint["logged"].keys() <= row.keys() for row in rows
    ):
        rows.append({"epoch": checkpoint["epoch"], "step": last, **checkpoint["logged"]})  # killed before it was drawn
    return rows


def _number(text: str) -> float:
    return int(text) if text.isdecimal() else float(text)


def continue_history(loggers: Sequence[Logger], rows: Sequence[dict[str, float]]) -> None:
    """Let the curves of a resumed training begin where the whole training did."""
    for logger in loggers:
        for row in rows:
            logger.log_metrics({name: value for name, value in row.items() if name != "step"}, step=int(row["step"]))
        logger.save()
