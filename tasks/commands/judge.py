"""``python -m tasks judge -c CONFIG --ckpt_path best``: a trained task's maps beside the truth and other maps."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tasks.commands.checkpoints import checkpoint, load_task, run_of
from tasks.commands.cli import CLI, run_cli
from tasks.commands.seen import ALLOW, check
from tasks.commands.tables import write_csv
from tasks.data.problems import BadInput
from tasks.maps.faithfulness import area, deletion, insertion, randomised, similarity
from tasks.maps.localisation import BestIoU, EnergyInside, MapAveragePrecision, PointingGame
from tasks.maps.other_maps import grad_cam, mean_truth, pool_weights, random_maps
from tasks.task.base import PoolingTask

OURS = "contributions"
UNTRAINED = "contributions, random weights"
COLUMNS = ("pointing", "precision", "iou", "energy", "deletion", "insertion", "similarity")
_RANKED = 2**16  # up to how many elements of a map are ranked: neighbouring voxels tell the same
NO_CAPTUM = "judge: Grad-CAM is left out; it needs captum: run pip install -c constraints.txt captum"


def judge(args: list[str]) -> Path:
    """Measure on the test data how well maps point at the truth, and print a row for each kind of map.

    ``contributions`` are ours; the others are Grad-CAM (captum), the pool's weights alone (where they differ), what a
    modality shows without a network (intensity, degree), where training samples have their truth on average
    (position), random numbers, and contributions of the network with random weights. Columns: pointing game, average
    precision, best IoU (its threshold chosen on the validation data), energy inside, areas under the deletion and
    insertion curves (of the target's probability; in regression of the value), and the rank correlation with ours.

    Args:
        args: What `test` takes, and ``--curves 32`` (samples behind the two curves), ``--tolerance 0`` (how many
            elements beside the truth is a hit), ``--rule relative|top|otsu`` (how the IoU marks elements).

    Returns:
        The table, ``localisation.csv`` in the folder of the run that is judged.

    Raises:
        BadInput: If there is no checkpoint, it was trained on test samples, or the data does not know which elements
            made its targets.
    """
    own = argparse.ArgumentParser(prog="python -m tasks judge", description=__doc__, epilog="All flags of test, too.")
    own.add_argument(
        "--ckpt_path", default="best", help="the trained task: a .ckpt file, best or last of the newest run"
    )
    own.add_argument("--allow_trained", action="store_true", help=ALLOW)
    own.add_argument("--curves", type=int, default=32, help="test samples behind deletion and insertion; 0 = none")
    own.add_argument("--tolerance", type=float, default=0, help="how far beside the truth the largest value is a hit")
    own.add_argument("--rule", choices=("relative", "top", "otsu"), default="relative", help="how the IoU marks")
    chosen, rest = own.parse_known_args(args)

    built: CLI = run_cli([*rest, "--trainer.enable_model_summary=false"], run=False)
    path = checkpoint(chosen.ckpt_path, built.config["run"])
    folder = run_of(path)
    check("judge", path, built.datamodule, allow=chosen.allow_trained)
    device = built.trainer.strategy.root_device
    task = load_task(path, built.config["model"]["class_path"]).to(device)
    judged = Judged(task, chosen, device)
    judged.position = mean_truth(truths for _, truths in judged.batches(built.datamodule.train_dataloader()))
    for batch, truths in judged.batches(built.datamodule.val_dataloader()):
        judged.calibrate(batch, truths)
    judged.check_calibration()
    for batch, truths in judged.batches(built.datamodule.test_dataloader()):
        judged.measure(batch, truths)
    rows = judged.rows()
    table = folder / "localisation.csv"
    write_csv(table, rows)
    _print(rows)
    print(f"Look at: {table}")
    return table


class Judged:
    """A trained task whose maps, and those of its rivals, are measured batch by batch.

    Args:
        task: The task, in evaluation mode.
        options: ``curves``, ``tolerance`` and ``rule``, see `judge`.
        device: Where the task is.
    """

    def __init__(self, task: PoolingTask, options: argparse.Namespace, device: torch.device):
        self.task, self.blank = task, randomised(task)
        self.position: Tensor | None = None
        self.options, self.device = options, device
        self.generator = torch.Generator().manual_seed(0)
        self.search: dict[str, BestIoU] = {}
        self.metrics: dict[str, dict[str, Any]] = {}
        self.areas: dict[str, dict[str, list[Tensor]]] = {}
        self.alike: dict[str, list[float]] = {}
        self.curved = 0

    def batches(self, loader: DataLoader[Any]) -> Iterator[tuple[Any, list[Tensor]]]:
        """The batches of a loader, on the device, and their truth.

        Raises:
            BadInput: If the data has no truth.
        """
        for batch in loader:
            batch = self.task.transfer_batch_to_device(batch, self.device, 0)
            truths = self.task.truth(batch)
            if truths is None:
                raise BadInput(
                    "judge: expected data that knows which elements made its targets, got none for "
                    f"{', '.join(self.task.ids(batch)[:3])}, ...; take generated data or data with masks (docs/maps.md)"
                )
            yield batch, truths

    @torch.no_grad()
    def maps(self, batch: Any) -> dict[str, list[Tensor]]:
        """All maps of a batch by name."""
        ours = self.task.sample_maps(batch)
        others = {"Grad-CAM": grad_cam(self.task, batch), "weights alone": pool_weights(self.task, batch)}
        others |= self.task.rival_maps(batch)
        if self.position is not None and all(one.shape == self.position.shape for one in ours):
            others["position"] = [self.position] * len(ours)
        others |= {"random": random_maps(ours, self.generator), UNTRAINED: self.blank.sample_maps(batch)}
        return {OURS: ours} | {name: maps for name, maps in others.items() if maps is not None}

    def calibrate(self, batch: Any, truths: list[Tensor]) -> None:
        """Let a validation batch take part in choosing the IoU's threshold."""
        for name, maps in self.maps(batch).items():
            metric = self.search.setdefault(name, BestIoU(rule=self.options.rule))
            for one, truth in zip(maps, truths, strict=True):
                metric.update(one.cpu(), truth.cpu())

    def check_calibration(self) -> None:
        """Ask for a threshold.

        Raises:
            BadInput: If no validation sample has a truth.
        """
        if not self.search or not int(self.search[OURS].count):
            raise BadInput(
                "judge: expected validation samples with true elements, to choose the IoU's threshold on, got none; "
                "judge another fold or data set"
            )

    def measure(self, batch: Any, truths: list[Tensor]) -> None:
        """Add a test batch."""
        all_maps = self.maps(batch)
        there = [bool(truth.any()) for truth in truths]
        for name, maps in all_maps.items():
            metrics = self.metrics.setdefault(name, self._metrics(name))
            alike = self.alike.setdefault(name, [])
            for one, truth, ours in zip(maps, truths, all_maps[OURS], strict=True):
                for metric in metrics.values():
                    metric.update(one.cpu(), truth.cpu())
                if truth.any():
                    step = -(-one.numel() // _RANKED)
                    alike.append(similarity(one.flatten()[::step], ours.flatten()[::step]))
        if self.curved < self.options.curves and any(there):
            self._curves(batch, all_maps, torch.tensor(there))

    def _metrics(self, name: str) -> dict[str, Any]:
        return {
            "pointing": PointingGame(self.options.tolerance),
            "precision": MapAveragePrecision(),
            "iou": BestIoU(self.search[name].threshold, rule=self.options.rule),
            "energy": EnergyInside(),
        }

    def _curves(self, batch: Any, all_maps: dict[str, list[Tensor]], there: Tensor) -> None:
        """Add the areas of those samples of a batch that have a truth, if the task can hide elements."""
        if self.task.hide(batch, [torch.zeros_like(one, dtype=torch.bool) for one in all_maps[OURS]]) is None:
            return
        outputs, signs = self.task.explained(batch)
        columns = (signs > 0).long() if self.task.kind == "binary" else outputs

        ends: dict[bool, Tensor] = {}  # with everything shown, or hidden, all maps are alike

        def score(hidden: list[Tensor]) -> Tensor:
            states = {bool(one.any()) for one in hidden} | {bool(one.all()) for one in hidden}
            end = states.pop() if len(states) == 1 else None
            if end in ends:
                return ends[end]
            with torch.no_grad():
                predictions = self.task.predictions(self.task(self.task.hide(batch, hidden)))
            scores = predictions.gather(1, columns[:, None])[:, 0].cpu()
            if end is not None:
                ends[end] = scores
            return scores

        for name, maps in all_maps.items():
            areas = self.areas.setdefault(name, {"deletion": [], "insertion": []})
            areas["deletion"].append(area(deletion(score, maps))[there])
            areas["insertion"].append(area(insertion(score, maps))[there])
        self.curved += int(there.sum())

    def rows(self) -> list[dict[str, Any]]:
        """The table: a row for each kind of map, NaN where a column could not be measured.

        Raises:
            BadInput: If no test sample has a truth.
        """
        if not self.metrics or not int(self.metrics[OURS]["pointing"].count):
            raise BadInput("judge: expected test samples with true elements, got none; judge another fold or data set")
        rows = []
        for name, metrics in self.metrics.items():
            row: dict[str, Any] = {"map": name, "samples": int(metrics["pointing"].count)}
            row |= {column: float(metric.compute()) for column, metric in metrics.items()}
            for column in ("deletion", "insertion"):
                areas = self.areas.get(name, {}).get(column)
                row[column] = float(torch.cat(areas).mean()) if areas else float("nan")
            row["similarity"] = sum(self.alike[name]) / len(self.alike[name])
            row["threshold"] = round(metrics["iou"].threshold, 4)
            rows.append(row)
        return rows


def _print(rows: list[dict[str, Any]]) -> None:
    if all(row["map"] != "Grad-CAM" for row in rows):
        print(NO_CAPTUM)
    wide = max(len(row["map"]) for row in rows)
    print(f"{rows[0]['samples']} test samples with a truth")
    print(" " * wide + "".join(f"{column:>12}" for column in COLUMNS))
    for row in rows:
        print(f"{row['map']:<{wide}}" + "".join(f"{row[column]:>12.3f}" for column in COLUMNS))
