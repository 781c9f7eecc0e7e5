"""What a task knows of its input beside the maps that it makes: for `python -m tasks judge` and `diagnose`."""

from typing import Any

import torch
from torch import Tensor


class JudgedMaps:
    """Maps on the grid of a sample's input, the truth they are held against, and their rivals: a part of `PoolingTask`.

    A modality implements `truth`, `rival_maps` and `hide`, and `to_inputs` where its features have a coarser grid; and
    `inputs` and `with_inputs`, so that its input can be changed.
    """

    def truth(self, batch: Any) -> list[Tensor] | None:
        """Which elements of each sample made its target, bool on the grid of the sample's *input*; None = unknown.

        Nodes ``(n,)``, spectrogram bins ``(mel, frames)``, voxels ``(D, H, W)``; all False where nothing did.
        """
        return None

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
        first = target.argmax(1) if self.kind == "multilabel" else torch.zeros_like(target[:, 0], dtype=torch.long)
        return first, torch.ones_like(first)

    def sample_maps(self, batch: Any) -> list[Tensor]:
        """For each sample the signed map of what speaks for its target (`explained`), on the grid of `truth`."""
        outputs, signs = self.explained(batch)
        chosen = self.choose(self.explain(batch)[1], outputs, batch)
        return [one * sign for one, sign in zip(chosen, signs, strict=True)]

    def choose(self, maps: Tensor, outputs: Tensor, batch: Any) -> list[Tensor]:
        """Of each sample the map of one output, ``outputs`` (B,), on the grid of its input."""
        axes = self.pool.layout.axes(maps.ndim)
        if axes.ragged:  # every element looks its own sample up
            outputs = outputs[self.encode(batch)[1]["index"]]
        maps = maps.movedim(axes.channel, -1) if axes.ragged else maps.movedim((axes.batch, axes.channel), (0, -1))
        chosen = maps.take_along_dim(outputs.view(-1, *[1] * (maps.ndim - 1)), -1).squeeze(-1)
        return self.to_inputs(chosen, batch)

    def to_inputs(self, maps: Tensor, batch: Any) -> list[Tensor]:
        """Divide a map of the encoder's elements (the features' layout without channels) into samples, on their inputs.

        The default is right where the encoder keeps the elements as they came; a task whose features have a coarser
        grid or whose batches are padded interpolates to the input's grid and cuts the padding off.
        """
        if self.pool.layout.axes(maps.ndim + 1).ragged:
            _, sets = self.encode(batch)
            return [maps[sets["index"] == i] for i in range(sets["dim_size"])]
        return list(maps)

    def rival_maps(self, batch: Any) -> dict[str, list[Tensor]]:
        """Maps to hold ours against, by name ("intensity", ...), each as `sample_maps`; what a modality has of its own.

        `tasks.commands.judge` adds Grad-CAM, the pool's weights alone and random numbers, which need no modality.
        """
        return {}

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
