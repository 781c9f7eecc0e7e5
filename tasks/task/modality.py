"""What a modality writes of a task: how batches are encoded, and what their elements are and look like."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from modalpool import Pool
from tasks.data.problems import BadInput
from tasks.task.decisions import Decision
from tasks.task.embedding import grid_numbers
from tasks.tiles import Parts

Counts = Mapping[int, int]
"""How often each of some words, whole numbers, is in a sample."""


class Survey(Protocol):
    """Gathers maps over samples."""

    def add(self, batch: Any, number: int, shown: Tensor, decision: Decision) -> None:
        """Add sample ``number`` of a batch, whose map is ``shown``."""

    def write(self, folder: Path) -> list[Path]:
        """Write what was gathered; return the files."""


class ForForest(list[Any]):
    """Vectors, one a sample, that a random forest (Breiman 2001) is to learn from, where a linear model is none."""


class Modality(ABC):
    """The part of `PoolingTask` that a modality writes: `encode`, `target`, `ids`, `draw`, and of the rest what it has.

    For `python -m tasks judge` it implements `truth`, `rival_maps` and `hide`, and `to_inputs` where its features have
    a coarser grid; for `diagnose` `inputs` and `with_inputs`, so that its input can be changed; for `floors` `floors`.
    """

    pool: Pool

    element = "element"
    """What an element of the input is called under a colour bar: node, bin, voxel."""

    place_names: tuple[str, ...] = ()
    """What `places` are, with units; none where they are numbers along the axes of the features."""

    sizes_vary = False
    """Whether hardly two batches have the same size, so that a network is compiled for any size."""

    @property
    def cell(self) -> int:
        """Elements of the input that one element of the features stands for."""
        return 1

    @abstractmethod
    def encode(self, batch: Any) -> tuple[Tensor, dict[str, Any]]:
        """Element features in the pool's layout, and the pool's keyword arguments (mask, lengths, index, dim_size)."""

    @abstractmethod
    def target(self, batch: Any) -> Tensor:
        """Targets: (B,) class numbers, (B, K) zeros and ones (multilabel), or (B, T) values in original units."""

    @abstractmethod
    def ids(self, batch: Any) -> list[str]:
        """A stable name for each sample, as it stands in predictions.csv."""

    @abstractmethod
    def draw(self, batch: Any, number: int, shown: Tensor, decision: Decision, path: Path) -> Path | None:
        """Draw sample ``number`` of a batch with its map into a PNG, or into a file of another kind that it returns.

        ``shown`` is the map on the grid of the sample's input (`to_inputs`), each element's share of the logit.
        """

    def paint(self, batch: Any, number: int, panels: Mapping[str, Tensor], title: str, path: Path) -> None:
        """Draw sample ``number`` of a batch into a PNG, and beside it each of its elements in a colour of its own.

        ``panels`` has by name the colours, red, green and blue from 0 to 1 in the last axis, on the grid of the
        sample's input.
        """
        raise BadInput(f"{type(self).__name__} draws no elements: it has no `paint`; write one, or leave --figures out")

    def show(self, batch: Any, number: int, title: str, path: Path) -> list[Path]:
        """Draw sample ``number`` of a batch into a PNG without any map; return what was written to be heard."""
        self.paint(batch, number, {}, title, path)
        return []

    def export(self, batch: Any, number: int, shown: Tensor, decision: Decision, stem: Path) -> list[Path]:
        """Write a sample's map in the field's own format beside its picture, ``stem``.png; return the files."""
        return []

    def survey(self, atlas: str) -> Survey:
        """Gather maps over all samples in a space that they share, whose regions ``atlas`` names.

        Raises:
            BadInput: If samples share no space, or the atlas cannot be used.
        """
        raise BadInput(f"atlas: {type(self).__name__}'s samples share no space; leave --outputs.atlas out")

    def read(self, source: str) -> Any:
        """Read one input of the user's, prepared like the data that the task was trained on, as a batch of one.

        Its target is NaN where it is not known.

        Raises:
            BadInput: If it cannot be used.
        """
        raise BadInput(f"{type(self).__name__} cannot read {source}: it has no `read`; write one, or run predict")

    def places(self, batch: Any, x: Tensor) -> Tensor:
        """Where the elements of ``x``, which `encode` made of this batch, are in the input.

        Returns:
            The axes of ``x`` without channels, sizes of 1 broadcast, and one more for the coordinates. NaN is for what
            `encode` put beside the input's elements and its mask has to leave out, like a class token.
        """
        return grid_numbers(self.pool, x)

    def to_inputs(self, maps: Tensor, batch: Any) -> list[Tensor]:
        """Divide a map of the encoder's elements (the features' layout without channels) into samples, on their inputs.

        The default is right where the encoder keeps the elements as they came; a task whose features have a coarser
        grid or whose batches are padded interpolates to the input's grid and cuts the padding off.
        """
        if self.pool.layout.axes(maps.ndim + 1).ragged:
            _, sets = self.encode(batch)
            return [maps[sets["index"] == i] for i in range(sets["dim_size"])]
        return list(maps)

    # What is too large to be encoded at once: `tasks.tiles`.

    tile: float | None = None
    """Size of a tile in the modality's unit, where `read` and `encode` are to work by tiles; None = its own choice."""

    def in_parts(self, batch: Any) -> tuple[Parts, dict[str, Any]] | None:
        """The parts of a batch of one that is encoded by tiles, and the pool's keyword arguments; None = at once."""
        return None

    def pooled(self, batch: Any) -> tuple[Tensor, dict[str, Any]]:
        """Pooled vectors, and the pool's keyword arguments; what is too large to be encoded at once comes in parts."""
        whole = self.in_parts(batch)
        if whole is not None:
            parts, sets = whole
            return parts.pooled(self.pool), sets
        x, sets = self.encode(batch)
        return self.pool(x, **sets), sets

    def windows(self, source: str, window: float, hop: float) -> Iterator[tuple[list[float], list[float], Any]]:
        """Cut a file into windows of ``window`` seconds, one every ``hop``: when they begin and end, in s, as batches.

        Raises:
            BadInput: If it cannot be used, or has no time.
        """
        raise BadInput(f"{type(self).__name__} has no windows in time; leave --window out")

    # Truth and rivals of the maps: `python -m tasks judge`.

    def truth(self, batch: Any) -> list[Tensor] | None:
        """Which elements of each sample made its target, bool on the grid of the sample's *input*; None = unknown.

        Nodes ``(n,)``, spectrogram bins ``(mel, frames)``, voxels ``(D, H, W)``; all False where nothing did.
        """
        return None

    def rival_maps(self, batch: Any) -> dict[str, list[Tensor]]:
        """Maps to hold ours against, by name ("intensity", ...), each as `PoolingTask.sample_maps`.

        What a modality has of its own: `tasks.maps.other_maps` has Grad-CAM, the pool's weights alone and random
        numbers, which need no modality.
        """
        return {}

    def floors(self, batch: Any) -> dict[str, Sequence[Tensor | Counts]]:
        """What simple baselines are told of each sample of a batch, by their name (`tasks.task.floors`).

        A vector of each sample (`ForForest` for a forest instead of a linear model), or how often each of some words
        (whole numbers) is in it; nothing that is learned has a part in it. A baseline that knows only the targets needs
        no telling.
        """
        return {}

    def fingerprints(self, batch: Any) -> list[Tensor] | None:
        """A vector of each sample that hardly differs for its copies (`tasks.task.fingerprint`), without any network.

        None = copies are what `tasks.data.base.PoolingData.contents` says, or are found by a network's vectors.
        """
        return None

    def hide(self, batch: Any, hidden: list[Tensor]) -> Any:
        """A copy of the batch whose ``hidden`` elements say nothing, for deletion and insertion curves; None = cannot.

        ``hidden`` is bool on the grid of `truth`, one tensor a sample; what is hidden takes a value that carries no
        evidence in the modality (the mean feature of a node, silence, the median intensity).
        """
        return None

    # Changes of the input: `python -m tasks diagnose`.

    def inputs(self, batch: Any) -> Tensor | None:
        """What the encoder is given, in the pool's layout with the input's own channels; None = cannot tell."""
        return None

    def with_inputs(self, batch: Any, x: Tensor) -> Any:
        """A copy of the batch that has ``x`` for its `inputs`."""
        raise NotImplementedError(f"{type(self).__name__} has no `with_inputs`; write one beside `inputs`")

    def edges(self, batch: Any) -> Tensor | None:
        """Which elements are neighbours, (2, E), both ways; None = those that are beside each other on their grid."""
        return None
