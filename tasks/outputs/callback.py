"""What a run leaves behind besides checkpoints: predictions.csv, summary.json, curves.png and maps/."""

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from tasks.data.base import PoolingData, Sample
from tasks.data.describe import describe
from tasks.data.problems import BadInput
from tasks.outputs.curves import draw_curves
from tasks.outputs.diagrams import draw_test
from tasks.outputs.files import whole
from tasks.outputs.gallery import Entry, Gallery
from tasks.outputs.origin import origin
from tasks.outputs.predictions import Row, groups_of, report, summarise, worst_mistakes, write_predictions
from tasks.outputs.stopping import how_it_ended, sentence
from tasks.task.base import PoolingTask
from tasks.task.decisions import decide
from tasks.task.modality import Survey


class Outputs(Callback):
    """Write the results of a test or a prediction into the run folder, and list the files in `written`, page first.

    Args:
        maps: Number of samples whose maps are drawn into ``maps/``.
        every: While fitting, draw the same few validation samples each so many epochs; 0 draws none.
        followed: How many they are, evenly spread over the validation data.
        bootstrap: Resamples behind the intervals in ``summary.json``; 0 leaves them out.
        permutations: How often labels are shuffled for a p value of each test metric; 0 leaves it out.
        mistakes: How many of the worst mistakes of a test are drawn, too, for ``report.html``.
        atlas: A volume of labels in the images' space: ``regions/`` gets the sums of all test samples' maps over its
            regions, and mean and t maps of each class on its grid.
        by: Columns of the table by whose values the test metrics are given too, such as a site; comma between several.
    """

    def __init__(
        self,
        *,
        maps: int = 8,
        every: int = 10,
        followed: int = 3,
        bootstrap: int = 500,
        permutations: int = 0,
        mistakes: int = 4,
        by: str | None = None,
        atlas: str | None = None,
    ):
        self.maps = maps
        self.every, self.followed = every, followed
        self.bootstrap, self.permutations = bootstrap, permutations
        self.by = [] if by is None else [name.strip() for name in by.split(",")]
        self.mistakes, self.atlas = mistakes, atlas
        self._survey: Survey | None = None
        self._rows: list[Row] = []
        self._described: list[str] = []
        self._repeated: list[str] = []
        self._known: dict[str, tuple[str, Sample]] = {}
        self._gallery: Gallery | None = None
        self._drawn = 0
        self.folder = Path()
        self.written: list[Path] = []

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Say what is trained on what."""
        data = getattr(trainer, "datamodule", None)
        if self.atlas:
            pl_module.survey(self.atlas)  # what is wrong with it is said before training
        if isinstance(data, PoolingData):
            self._described = list(describe(data))
            for line in self._described:
                rank_zero_info(line)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Draw the followed samples."""
        fitting = (
            trainer.state.fn == "fit" and not trainer.sanity_checking and not getattr(trainer, "fast_dev_run", False)
        )
        epoch = trainer.current_epoch + 1
        if not fitting or not self.every or epoch % self.every or not self.followed:
            return
        self.folder = run_folder(trainer)
        if trainer.is_global_zero:
            validation: Any = trainer.val_dataloaders
            batch = trainer.precision_plugin.convert_input(spread_evenly(validation, self.followed))
            self._draw(pl_module, trainer.strategy.batch_to_device(batch), self.followed, epoch=epoch)

    def on_test_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Refuse data whose classes are not the model's; forget an earlier test."""
        self._start(trainer, pl_module, ["test"])
        spec = getattr(getattr(trainer, "datamodule", None), "spec", pl_module.spec)
        if list(spec["classes"]) != pl_module.classes:
            raise BadInput(
                f"expected data with the model's classes {pl_module.classes}, got {list(spec['classes'])}; "
                "test on data with the same labels, or train on this data"
            )

    def on_predict_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Forget an earlier prediction."""
        data = getattr(trainer, "datamodule", None)
        self._start(trainer, pl_module, list(data.datasets) if isinstance(data, PoolingData) else [])

    def _start(self, trainer: Trainer, task: PoolingTask, parts: list[str]) -> None:
        data = getattr(trainer, "datamodule", None)
        known = [(part, one) for part in parts for one in data.samples(part)] if isinstance(data, PoolingData) else []
        self._known = {sample.id: (part, sample) for part, sample in known}
        missing = [name for name in self.by if not any(name in sample.columns for _, sample in known)]
        if missing:
            columns = ", ".join(dict.fromkeys(name for _, sample in known for name in sample.columns)) or "none"
            raise BadInput(
                f"by: expected columns of the table, which are {columns}, got {', '.join(missing)}; correct --by"
            )
        self._repeated = data.repeated if isinstance(data, PoolingData) else []
        self._rows, self.written, self._drawn = [], [], 0
        if self.atlas and trainer.world_size > 1:
            raise BadInput(f"atlas: expected one process, got {trainer.world_size}; test with --trainer.devices 1")
        self._survey = task.survey(self.atlas) if self.atlas else None
        if self._gallery is not None:
            self._gallery.forget_final()
        self.folder = run_folder(trainer)  # asks all ranks, so not later, where one rank acts alone

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the batch's predictions and draw its maps while any are wanted."""
        self._keep(trainer, pl_module, outputs, batch)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the batch's predictions and draw its maps while any are wanted."""
        self._keep(trainer, pl_module, outputs, batch)

    def on_test_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Write everything."""
        rows = self._of_all_ranks()
        if trainer.is_global_zero and rows:
            folder = self.folder
            write_predictions(folder / "predictions.csv", rows, pl_module, by=[*self._repeated, *self.by])
            summary = summarise(rows, pl_module, resamples=self.bootstrap, permutations=self.permutations, by=self.by)
            ended = how_it_ended(trainer)
            summary["run"] = {"data": self._described, "ended": sentence(ended) if ended else "", **origin()}
            data = getattr(trainer, "datamodule", None)
            summary["run"] |= {"dropped": data.dropped} if isinstance(data, PoolingData) and data.dropped else {}
            summary["mistakes"] = self._draw_mistakes(trainer, pl_module, rows)
            self._draw_test(rows, pl_module)
            with whole(folder / "summary.json") as place:
                place.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
            self.written += [*draw_curves(folder, ended["best"] if ended else None), folder / "predictions.csv"]
            self._write_survey()
            for line in report(summary):
                rank_zero_info(line)

    def _draw_test(self, rows: list[Row], task: PoolingTask) -> None:
        predictions = torch.stack([row.predictions for row in rows]).numpy()
        target = torch.stack([row.target for row in rows if row.target is not None]).numpy()
        draw_test(self.folder / "test.png", task.kind, task.classes, predictions, target, groups_of(rows))

    def _draw_mistakes(self, trainer: Trainer, task: PoolingTask, rows: list[Row]) -> list[dict[str, str]]:
        """Draw the worst mistakes, which need not be among the first samples, and say where their pictures are."""
        data = getattr(trainer, "datamodule", None)
        worst = worst_mistakes(rows, task)[: min(self.mistakes, self.maps)]
        if not worst or not isinstance(data, PoolingData):
            return []
        numbers = {sample.id: number for number, sample in enumerate(data.samples("test"))}
        drawn = {entry.decision.id for entry in self._pages().entries if entry.epoch is None}
        chosen = Subset(data.still("test"), [numbers[row.id] for row in worst if row.id not in drawn])
        for batch in data.loader(chosen, False) if len(chosen) else ():
            batch = trainer.precision_plugin.convert_input(batch)
            self._add(task, trainer.strategy.batch_to_device(batch), len(worst))
        known = {entry.decision.id: entry for entry in self._pages().entries if entry.epoch is None}
        return [
            {
                "id": row.id,
                "target": known[row.id].decision.target,
                "prediction": known[row.id].decision.prediction,
                "picture": known[row.id].picture.relative_to(self.folder).as_posix(),
            }
            for row in worst
        ]

    def on_predict_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Write the predictions."""
        rows = self._of_all_ranks()
        if trainer.is_global_zero and rows:
            folder = self.folder
            write_predictions(folder / "predictions.csv", rows, pl_module, by=[*self._repeated, *self.by])
            self.written.append(folder / "predictions.csv")
            self._write_survey()

    def _write_survey(self) -> None:
        if self._survey is not None:
            self.written += self._survey.write(self.folder / "regions")

    def _keep(self, trainer: Trainer, task: PoolingTask, outputs: dict[str, Any], batch: Any) -> None:
        target = outputs.get("target")
        data = getattr(trainer, "datamodule", None)
        fold, leaked = getattr(data, "fold", None), getattr(data, "leaked", None)
        for i, name in enumerate(outputs["ids"]):
            part, sample = self._known.get(name, ("", Sample(name)))
            self._rows.append(
                Row(
                    name,
                    outputs["predictions"][i].cpu(),
                    target=None if target is None else target[i].cpu(),
                    part=part,
                    fold=fold,
                    sample=sample,
                    leaked=None if leaked is None else name in leaked,
                )
            )
        if self._survey is not None:
            with torch.inference_mode(False):
                _survey(self._survey, task, _copy(batch))
        if self._drawn < self.maps and trainer.is_global_zero:
            self._draw(task, batch, self.maps - self._drawn)

    def _draw(self, task: PoolingTask, batch: Any, limit: int, *, epoch: int | None = None) -> None:
        """Add pictures to the run's gallery, which goes on from fit to test."""
        added = self._add(task, batch, limit, epoch=epoch)
        if epoch is None:
            self._drawn += len(added)
            files = [path for entry in added for path in (entry.picture, *entry.files)]
            self.written = [self.folder / "maps" / "index.html", *self.written[1:], *files]

    def _add(self, task: PoolingTask, batch: Any, limit: int, *, epoch: int | None = None) -> list[Entry]:
        # Testing runs in inference mode, where the maps of a head that is not linear have no gradient.
        with torch.inference_mode(False):
            added = self._pages().add(task, _copy(batch), limit=limit, epoch=epoch)
        self._pages().write(task)
        return added

    def _of_all_ranks(self) -> list[Row]:
        """Every rank's rows in the data's order, each sample once: a distributed sampler repeats some."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return self._rows
        parts: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, self._rows)
        rows = {row.id: row for part in parts for row in part}
        places = {name: place for place, name in enumerate(self._known)}
        return sorted(rows.values(), key=lambda row: places.get(row.id, len(places)))

    def _pages(self) -> Gallery:
        if self._gallery is None or self._gallery.folder != self.folder / "maps":
            self._gallery = Gallery(self.folder / "maps")
        return self._gallery


def _survey(into: Survey, task: PoolingTask, batch: Any) -> None:
    """Gather the maps of a batch: of the target's class where there are several."""
    target = task.target(batch)
    known = task.kind == "multiclass" and bool(target.isfinite().all())
    about = [task.classes[number] for number in target.tolist()] if known else None
    for number, (decision, shown) in enumerate(zip(*decide(task, batch, about), strict=True)):
        into.add(batch, number, shown, decision)


def spread_evenly(loader: DataLoader[Any], number: int) -> Any:
    """A batch of up to ``number`` samples, evenly spread over a loader's data; no random number is drawn."""
    size = len(loader.dataset)  # type: ignore[arg-type]
    chosen = torch.linspace(0, size - 1, min(number, size)).round().long().tolist()
    few = DataLoader(
        loader.dataset, batch_size=number, sampler=chosen, collate_fn=loader.collate_fn, generator=torch.Generator()
    )
    return next(iter(few))


def _copy(batch: Any) -> Any:
    """Tensors made in inference mode cannot take part in autograd; copies can."""
    if isinstance(batch, Tensor):
        return batch.clone()
    if isinstance(batch, dict):
        return {key: _copy(value) for key, value in batch.items()}
    return batch.clone() if hasattr(batch, "clone") else batch


def run_folder(trainer: Trainer) -> Path:
    """The folder of this run; without a logger, the trainer's root folder."""
    folder = Path(trainer.log_dir or trainer.default_root_dir)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
