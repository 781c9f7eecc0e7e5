"""A small convolutional network whose time steps are pooled, and what each of them added."""

import csv
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from examples.timeseries.data import channel_names, collate, read_series
from tasks.data.manifest import read_manifest
from tasks.data.problems import BadInput, Problems
from tasks.outputs.drawing import TRUTH, bar, canvas, centred, save
from tasks.task.base import PoolingTask
from tasks.task.decisions import Decision


class SeriesTask(PoolingTask):
    """Classify series of several channels.

    Args:
        spec: What the data says of itself (`SeriesData.spec`).
        hidden: Channels of both convolutions, and of what is pooled.
        width: Steps that one convolution sees, an odd number.
        options: Options of `tasks.task.base.PoolingTask` and of the pool.
    """

    element = "step"
    place_names = ("step",)

    def __init__(self, spec: dict[str, Any], *, hidden: int = 16, width: int = 7, **options):
        super().__init__(spec, layout="b c [t]", channels=hidden, **options)
        self.save_hyperparameters()
        self.first = nn.Conv1d(len(spec["channels"]), hidden, width, padding="same")
        self.second = nn.Conv1d(hidden, hidden, width, padding="same")
        self.register_buffer("mean", torch.tensor(spec["mean"]), persistent=False)
        self.register_buffer("std", torch.tensor(spec["std"]), persistent=False)

    # What every task says.

    def encode(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Features of every step, (B, C, T); padding is zero before each layer, so that a series stands for itself."""
        there = (torch.arange(batch["x"].shape[1], device=self.device) < batch["lengths"][:, None])[:, None]
        x = ((batch["x"] - self.mean) / self.std).mT * there
        x = self.first(x).relu() * there
        return self.second(x).relu(), {"lengths": batch["lengths"]}

    def target(self, batch: dict[str, Any]) -> Tensor:
        """Class numbers."""
        return batch["target"]

    def ids(self, batch: dict[str, Any]) -> list[str]:
        """The column ``id``."""
        return batch["id"]

    def draw(self, batch: dict[str, Any], number: int, shown: Tensor, decision: Decision, path: Path) -> None:
        """Draw the channels over the colour of what each step added."""
        x, added = batch["x"][number, : len(shown)].cpu().numpy(), shown.cpu().numpy()
        figure = canvas(8, 3)
        axes = figure.add_subplot(title=decision.title, xlabel="step")
        colours = centred(added)
        low, high = float(x.min()), float(x.max())
        axes.imshow(
            added[None], cmap=colours.cmap, norm=colours.norm, aspect="auto", extent=(-0.5, len(x) - 0.5, low, high)
        )
        for channel, name in enumerate(self.spec["channels"]):
            axes.plot(x[:, channel], color="black", alpha=1 / (1 + channel), label=name)
        if "truth" in batch:
            steps = batch["truth"][number].nonzero()[:, 0].cpu()
            axes.plot(steps, [low] * len(steps), color=TRUTH, lw=4, label="truth")
        axes.legend(loc="upper right")
        bar(figure, colours, axes, decision.label)
        save(figure, path)

    # What `explain` needs: a file in, a table of the map out.

    def read(self, source: str) -> dict[str, Any]:
        """A CSV of one series, its label perhaps empty."""
        rows, problems = read_manifest(source, required=("id",)), Problems(source)
        missing = [name for name in self.spec["channels"] if name not in channel_names(rows)]
        if missing:
            raise BadInput(f"{source}: expected the columns {', '.join(self.spec['channels'])}; add {missing}")
        kept = ("id", *self.spec["channels"])
        for row in rows:
            for column in set(row) - set(kept):
                del row[column]
            row["label"] = ""
        series = read_series(rows, problems)
        problems.finish(total=len(rows))
        if len(series) != 1:
            raise BadInput(f"{source}: expected one series, got {len(series)}; write each into a file of its own")
        return collate([series[0] | {"target": torch.nan}])

    def export(self, batch: dict[str, Any], number: int, shown: Tensor, decision: Decision, stem: Path) -> list[Path]:
        """Write what each step added as CSV."""
        path = stem.with_name(f"{stem.name}_map.csv")
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("step", "value"), *enumerate(shown.tolist())])
        return [path]

    # What `judge` needs.

    def truth(self, batch: dict[str, Any]) -> list[Tensor] | None:
        """The column ``truth``."""
        return batch.get("truth")

    def to_inputs(self, maps: Tensor, batch: dict[str, Any]) -> list[Tensor]:
        """Cut the padding off."""
        return [one[:length] for one, length in zip(maps, batch["lengths"].tolist(), strict=True)]

    def rival_maps(self, batch: dict[str, Any]) -> dict[str, list[Tensor]]:
        """How far a step is from the mean: a floor that knows no network."""
        return {"size": self.to_inputs(((batch["x"] - self.mean) / self.std).norm(dim=-1), batch)}

    def hide(self, batch: dict[str, Any], hidden: list[Tensor]) -> dict[str, Any]:
        """Put the training series' mean in the place of the ``hidden`` steps."""
        gone = nn.utils.rnn.pad_sequence(hidden, batch_first=True)[..., None]
        return {**batch, "x": torch.where(gone, self.mean, batch["x"])}

    # What `diagnose` needs.

    def inputs(self, batch: dict[str, Any]) -> Tensor:
        """The series, (B, C, T)."""
        return batch["x"].mT

    def with_inputs(self, batch: dict[str, Any], x: Tensor) -> dict[str, Any]:
        """The same batch with other series."""
        return {**batch, "x": x.mT, "lengths": batch["lengths"].expand(len(x))}
