"""The pictures of a run and the page that lists them: ``maps/index.html``, which needs no network and no server."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

from tasks.task.base import PoolingTask
from tasks.task.decisions import Decision, decide, number_text

PAGE = Path(__file__).with_suffix(".html")
_NAMED = 12  # classes that the page's head names


@dataclass(frozen=True)
class Entry:
    """A picture: whose decision it shows, and what else was written of it."""

    decision: Decision
    picture: Path
    files: tuple[Path, ...] = ()
    epoch: int | None = None
    """Epochs trained when it was drawn; None for the model that is tested."""


class Gallery:
    """Draw samples with their maps into a folder, and list them in its ``index.html``.

    The page refers to the pictures beside it, so the folder can be copied as a whole and opened from disk.

    Args:
        folder: Where pictures, maps and page go.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.entries: list[Entry] = []

    def add(
        self, task: PoolingTask, batch: Any, *, limit: int, epoch: int | None = None, about: str | None = None
    ) -> list[Entry]:
        """Draw up to ``limit`` samples of a batch.

        Args:
            task: A task in evaluation mode.
            batch: A batch of its data, on its device.
            limit: Largest number of samples.
            epoch: Epochs trained so far, for pictures of a model in training: they go to a folder of their own, and
                only pictures are written, no maps.
            about: The class, label or value that maps are to be about; None = what is predicted.

        Returns:
            The new entries.
        """
        batch = {key: value[:limit] for key, value in batch.items()} if isinstance(batch, dict) else batch
        folder = self.folder if epoch is None else self.folder / f"epoch_{epoch:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        added: list[Entry] = []
        for number, (decision, shown) in enumerate(zip(*decide(task, batch, about), strict=True)):
            if number == limit:
                break
            picture = self._free(folder / f"{file_name(decision.id)}.png")
            picture = task.draw(batch, number, shown, decision, picture) or picture
            files = task.export(batch, number, shown, decision, picture.with_suffix("")) if epoch is None else []
            added.append(Entry(decision, picture, tuple(files), epoch))
            self.entries.append(added[-1])
        return added

    def forget_final(self) -> None:
        """Drop what was drawn of the trained model, before it is tested anew; keep what was drawn in training."""
        self.entries = [entry for entry in self.entries if entry.epoch is not None]

    def _free(self, path: Path) -> Path:
        """A name that no other sample has: ``a/b.wav`` and ``a_b.wav`` are two."""
        taken, stem, number = {entry.picture.with_suffix(".png") for entry in self.entries}, path.stem, 1
        while path in taken:
            number += 1
            path = path.with_name(f"{stem}-{number}.png")
        return path

    def write(self, task: PoolingTask) -> Path:
        """Write the page; returns its path."""
        final = [entry for entry in self.entries if entry.epoch is None]
        learned = [entry for entry in self.entries if entry.epoch is not None]
        reduction = type(task.pool.reduction).__name__.lower()
        classes = ", ".join([*task.classes[:_NAMED], *["…"] * (len(task.classes) > _NAMED)])
        title = " / ".join(self.folder.resolve().parts[-4:-1])
        page = Template(PAGE.read_text(encoding="utf-8")).substitute(
            title=escape(title),
            about=escape(f"{task.kind}: {classes} · {reduction} over {task.pool.layout.text}"),
            number=len(final),
            cards="\n".join(self._card(entry, place) for place, entry in enumerate(final)),
            strips="\n".join(self._strips(learned)),
            learned="" if learned else "hidden",
            judged="" if any(entry.decision.right is not None for entry in final) else "hidden",
        )
        path = self.folder / "index.html"
        path.write_text(page, encoding="utf-8")
        return path

    def _link(self, path: Path) -> str:
        return quote(path.relative_to(self.folder).as_posix())

    def _card(self, entry: Entry, place: int) -> str:
        decision, link = entry.decision, self._link(entry.picture)
        facts = {
            "target": decision.target or "unknown",
            "prediction": decision.prediction + ("" if math.isnan(decision.sure) else f" (p = {decision.sure:.2f})"),
            "loss": "" if math.isnan(decision.loss) else f"{decision.loss:.3g}",
            "gap": number_text(decision.missing),
        }
        keys = {
            "place": place,
            "name": decision.id,
            "loss": "" if math.isnan(decision.loss) else decision.loss,
            "target": decision.target,
            "prediction": decision.prediction,
            "sure": "" if math.isnan(decision.sure) else decision.sure,
            "right": {None: "", True: "yes", False: "no"}[decision.right],
        }
        data = " ".join(f'data-{name}="{escape(str(value))}"' for name, value in keys.items())
        rows = "".join(f"<div><dt>{name}</dt><dd>{escape(text)}</dd></div>" for name, text in facts.items() if text)
        files = " ".join(f'<a href="{self._link(file)}">{escape(file.name)}</a>' for file in entry.files)
        players = "".join(
            f'<figure><audio controls preload="none" src="{self._link(file)}"></audio>'
            f"<figcaption>{escape(file.stem.rpartition('_')[2])}</figcaption></figure>"
            for file in entry.files
            if file.suffix == ".wav"
        )
        players = players and f'<div class="players">{players}</div>'
        return (
            f'<article {data}><h3>{escape(decision.id)}</h3><a href="{link}">'
            f'<img src="{link}" alt="{escape(decision.title)}" loading="lazy"></a>'
            f"<dl>{rows}</dl>{players}<p>{files}</p></article>"
        )

    def _strips(self, entries: list[Entry]) -> Iterable[str]:
        """One row a sample: its pictures from epoch to epoch."""
        for name in dict.fromkeys(entry.decision.id for entry in entries):
            mine = [entry for entry in entries if entry.decision.id == name]
            figures = "".join(
                f'<figure><a href="{self._link(entry.picture)}"><img src="{self._link(entry.picture)}" '
                f'alt="{escape(entry.decision.title)}" loading="lazy"></a>'
                f"<figcaption>epoch {entry.epoch}: {escape(entry.decision.prediction)}</figcaption></figure>"
                for entry in mine
            )
            target = f", target {escape(mine[0].decision.target)}" if mine[0].decision.target else ""
            yield f'<section><h3>{escape(name)}{target}</h3><div class="strip">{figures}</div></section>'


def file_name(name: str) -> str:
    """A sample's name as a file name: odd characters become underscores, an image's ending is dropped.

    Example:
        >>> file_name("a b/c.flac@0.5"), file_name("../sub-01/anat/T1w.nii.gz")
        ('a_b_c.flac_0.5', 'sub-01_anat_T1w')
    """
    name = re.sub(r"[^\w.-]+", "_", re.sub(r"\.nii(\.gz)?$", "", name)).strip("_.")
    return name[-120:].strip("_.") or "sample"
