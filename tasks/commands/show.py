"""Samples of a data set by their ids, drawn and made audible as cards of a page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.data.base import PoolingData
from tasks.outputs.gallery import file_name
from tasks.search.page import Card
from tasks.task.base import PoolingTask


class Shower:
    """Draw samples of a data set, each once.

    Args:
        task: Knows how samples look and sound.
        data: Where they are; None = only what can be read from files has pictures.
        folder: Gets the pictures and sounds.
    """

    def __init__(self, task: PoolingTask | None, data: PoolingData | None, folder: Path):
        self.task, self.data, self.folder = task, data, folder
        self._places: dict[str, tuple[str, int]] = {}
        if data is not None:
            data.setup()
            for part in data.datasets:
                names = [sample.id for sample in data.samples(part)]
                self._places |= {name: (part, number) for number, name in enumerate(names)}
        self._drawn: dict[str, tuple[Path, list[Path]]] = {}

    def card(self, name: str, facts: Mapping[str, str], batch: Any = None) -> Card:
        """The card of a sample of the data, or of a batch of one."""
        if self.task is None or (batch is None and name not in self._places):
            return Card(name, facts)
        if name not in self._drawn:
            if batch is None:
                assert self.data is not None
                part, number = self._places[name]
                batch = self.data.collate([self.data.still(part)[number]])
            self.folder.mkdir(parents=True, exist_ok=True)
            picture = self.folder / f"{len(self._drawn):04d}_{file_name(name)}.png"
            batch = self.task.transfer_batch_to_device(batch, self.task.device, 0)
            self._drawn[name] = picture, self.task.show(batch, 0, "", picture)
        return Card(name, facts, *self._drawn[name])
