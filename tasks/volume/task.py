"""One of MONAI's 3-D networks, a pool over space, a head; maps as pictures and as NIfTI over the original file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from tasks.base import PoolingTask
from tasks.localisation import upsample
from tasks.volume.encoders import build_encoder
from tasks.volume.maps import to_network_grid, write_map
from tasks.volume.pictures import draw_slices


class VolumeTask(PoolingTask):
    """Classify or measure volumes.

    Args:
        spec: What the data says of itself (`tasks.base.PoolingData.spec`).
        encoder: MONAI's network before the pooling. ``plain`` (residual units, stride 2 to the power of ``levels``)
            is the choice for small volumes and sharp maps, ``resnet10`` and ``resnet18`` (stride 8) for whole heads,
            ``densenet121`` and ``seresnet`` (stride 32) for large ones, ``unet`` (stride 1) for exact boundaries.
        width: Channels of the encoder's first level.
        depth: Residual units a level (``plain``, ``seresnet``).
        levels: Levels of ``plain``; each halves the grid.
        norm: Normalisation of ``plain``, ``densenet121`` and ``unet``. ``instance`` hides amounts.
        dropout: Dropout in ``plain``, ``densenet121`` and ``unet``.
        options: Training, reduction and the pool's options (`tasks.base.PoolingTask`).
    """

    def __init__(
        self,
        spec: dict[str, Any],
        *,
        encoder: Literal["plain", "resnet10", "resnet18", "densenet121", "seresnet", "unet"] = "plain",
        width: int | None = None,
        depth: int | None = None,
        levels: int | None = None,
        norm: Literal["batch", "group", "instance"] | None = None,
        dropout: float | None = None,
        **options,
    ):
        built = build_encoder(
            encoder, spec["channels"], width=width, depth=depth, levels=levels, norm=norm, dropout=dropout
        )
        super().__init__(spec, layout="b c [d h w]", channels=built.channels, **options)
        self.save_hyperparameters()
        self.encoder = built.network
        self.stride, self.first = built.stride, built.first

    def encode(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Features of the images' grid cells, ``(B, C, d, h, w)``."""
        return self.encoder(batch["image"]), {}

    def target(self, batch: dict[str, Any]) -> Tensor:
        """Class numbers or values."""
        return batch["target"]

    def ids(self, batch: dict[str, Any]) -> list[str]:
        """The images' relative paths, or the phantoms' numbers."""
        return list(batch["id"])

    def truth(self, batch: dict[str, Any]) -> list[Tensor] | None:
        """The voxels that the data's masks mark, if it has masks."""
        return list(batch["mask"][:, 0].bool()) if "mask" in batch else None

    def to_inputs(self, maps: Tensor, batch: dict[str, Any]) -> list[Tensor]:
        """Maps of the grid's cells ``(B, d, h, w)`` interpolated to the voxels of the network's input."""
        return list(upsample(maps, batch["image"].shape[2:], stride=self.stride, first=self.first))

    def rival_maps(self, batch: dict[str, Any]) -> dict[str, list[Tensor]]:
        """What an image shows without a network: how bright each voxel is."""
        return {"intensity": list(batch["image"][:, 0])}

    def hide(self, batch: dict[str, Any], hidden: list[Tensor]) -> dict[str, Any]:
        """Give hidden voxels their image's median intensity."""
        image = batch["image"]
        median = image.flatten(1).median(1).values.view(-1, 1, 1, 1, 1)
        return {**batch, "image": torch.where(torch.stack(hidden)[:, None], median, image)}

    def save_maps(self, batch: dict[str, Any], folder: Path, limit: int) -> list[Path]:
        """Draw the map of the predicted class (or first target) and write it as NIfTI beside the picture."""
        ids = self.ids(batch)[:limit]
        part = {key: value[: len(ids)] for key, value in batch.items()}
        predictions, maps = self.explain(part)
        pictures = []
        for i, name in enumerate(ids):
            prediction, image, affine = (
                predictions[i].detach().cpu(),
                part["image"][i, 0].detach(),
                part["affine"][i].cpu(),
            )
            output = 0 if self.kind in ("binary", "regression") else int(prediction.argmax())
            shown = to_network_grid(maps[i, output : output + 1], image.shape, stride=self.stride, first=self.first)[0]
            stem = folder / _stem(name)
            write_map(
                shown, stem.with_name(f"{stem.name}_map.nii.gz"), affine=affine, source=part["path"][i], image=image
            )
            title, unit = self._words(name, prediction, part["target"][i], output)
            pictures.append(
                draw_slices(
                    image,
                    shown,
                    stem.with_name(f"{stem.name}.png"),
                    title=title,
                    unit=unit,
                    zooms=tuple(affine[:3, :3].norm(dim=0).tolist()),
                    truth=part["mask"][i, 0] if "mask" in part else None,
                )
            )
        return pictures

    def _words(self, name: str, prediction: Tensor, target: Tensor, output: int) -> tuple[str, str]:
        """Title of a picture, and the unit of its map."""
        known = not torch.isnan(torch.as_tensor(target).float()).any()
        if self.kind == "regression":
            told = f", target {target[0]:.4g}" if known else ""
            return f"{name}: predicted {self.classes[0]} {prediction[0]:.4g}{told}", f"{self.classes[0]} per voxel"
        best = int(prediction.argmax())
        if self.kind == "multilabel":
            told = f", target {_names(target, self.classes)}" if known else ""
            return (
                f"{name}: p({self.classes[best]}) = {prediction[best]:.2f}{told}",
                f"evidence for {self.classes[output]}",
            )
        told = f", target {self.classes[int(target)]}" if known else ""
        shown = self.classes[1] if self.kind == "binary" else self.classes[output]
        return (
            f"{name}: predicted {self.classes[best]} (p = {prediction[best]:.2f}){told}",
            f"evidence for {shown} (logit per voxel)",
        )


def _names(target: Tensor, classes: Sequence[str]) -> str:
    return "|".join(name for name, hit in zip(classes, target.tolist(), strict=True) if hit) or "none"


def _stem(name: str) -> str:
    """A file name for a sample: its path without folders' slashes and NIfTI endings."""
    return name.removesuffix(".gz").removesuffix(".nii").replace("/", "_").replace("\\", "_").replace("..", "_")
