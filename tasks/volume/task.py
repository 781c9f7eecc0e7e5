"""One of MONAI's 3-D networks, a pool over space, a head; maps as pictures and as NIfTI over the original file."""

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.func import functional_call

from tasks.data.problems import BadInput
from tasks.maps.grids import coarsen, upsample
from tasks.task.base import PoolingTask
from tasks.task.decisions import Decision
from tasks.task.embedding import grid_numbers
from tasks.task.fingerprint import fingerprint
from tasks.task.modality import Survey
from tasks.tiles import Parts, View
from tasks.volume.batches import stack_padded, unpadded
from tasks.volume.encoders import OwnNetwork, build_encoder
from tasks.volume.floors import volume_floors
from tasks.volume.maps import write_map
from tasks.volume.read import read_files
from tasks.volume.tiles import image_parts, views_of


class VolumeTask(PoolingTask):
    """Classify or measure volumes.

    Args:
        spec: What the data says of itself (`tasks.data.base.PoolingData.spec`).
        encoder: MONAI's network before the pooling. ``plain`` (residual units, stride 2 to the power of ``levels``)
            is the choice for small volumes and sharp maps, ``resnet10`` and ``resnet18`` (stride 8) for whole heads,
            ``densenet121`` and ``seresnet`` (stride 32) for large ones, ``unet`` (stride 1) for exact boundaries. Any
            other by the path of its class (`tasks.volume.encoders.own_encoder`).
        encoder_args: Arguments of its constructor.
        width: Channels of the encoder's first level.
        depth: Residual units a level (``plain``, ``seresnet``).
        levels: Levels of ``plain``; each halves the grid, and none keeps every voxel.
        kernel: Kernel of ``plain``'s residual units: 3, or 1 for units that look no farther than their cell.
        norm: Normalisation of ``plain``, ``densenet121`` and ``unet``. ``instance`` hides amounts.
        dropout: Dropout in ``plain``, ``densenet121`` and ``unet``.
        pyramid_levels: Parts per axis of each level of a ``pyramid`` (`modalpool.Pool`'s ``levels``, which here are the
            encoder's).
        options: Training, reduction and the pool's options (`tasks.task.base.PoolingTask`).
    """

    element = "voxel"

    def __init__(
        self,
        spec: dict[str, Any],
        *,
        encoder: str = "plain",
        encoder_args: dict[str, Any] | None = None,
        width: int | None = None,
        depth: int | None = None,
        levels: int | None = None,
        kernel: int | None = None,
        norm: Literal["batch", "group", "instance"] | None = None,
        dropout: float | None = None,
        pyramid_levels: list[int | list[int]] | None = None,
        **options: Any,
    ):
        sizes: dict[str, Any] = {"width": width, "depth": depth, "levels": levels, "kernel": kernel}
        sizes |= {"norm": norm, "dropout": dropout}
        built = build_encoder(encoder, spec["channels"], encoder_args, **sizes)
        cells: dict[str, Any] = {"levels": pyramid_levels}  # None is left out
        super().__init__(spec, layout="b c [d h w]", channels=built.channels, **cells, **options)
        self.save_hyperparameters()
        # Weights that lie channels last make convolutions hand on features that do: up to 1.6 times as fast a step.
        self.encoder = built.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.stride, self.first = built.stride, built.first

    def encode(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Features of the images' grid cells, ``(B, C, d, h, w)``, and a mask of them where images differ in size.

        Where the data have voxels to pool in (``pool_mask``), each cell's weight is the share of its voxels that do.

        Images of one size go through the network together, without padding: in evaluation an image has the same
        features whatever is in its batch. In training a batch norm has each size's own statistics.
        """
        whole = self.in_parts(batch)
        if whole is not None:
            return whole[0].features(), whole[1]
        if "shape" not in batch:
            features = self.encoder(batch["image"])
            return features, self._weight(batch, [features.shape[2:]])
        shapes, number = batch["shape"].unique(dim=0, return_inverse=True)
        features = list(batch["image"])
        for group, (d, h, w) in enumerate(shapes.tolist()):
            members = (number == group).nonzero().flatten()
            for place, one in zip(members.tolist(), self.encoder(batch["image"][members, :, :d, :h, :w]), strict=True):
                features[place] = one
        there = [torch.ones_like(one[:1], dtype=torch.bool) for one in features]
        weight = self._weight(batch, [one.shape[1:] for one in features])
        return stack_padded(features), {"mask": stack_padded(there)[:, 0], **weight}

    def _weight(self, batch: dict[str, Any], grids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        if "pool_mask" not in batch:
            return {}
        masks = unpadded(batch, "pool_mask")
        grids = list(grids) * (len(masks) if len(grids) == 1 else 1)
        shares = [coarsen(*one, stride=self.stride, first=self.first) for one in zip(masks, grids, strict=True)]
        return {"weight": stack_padded(shares)[:, 0]}

    def in_parts(self, batch: dict[str, Any]) -> tuple[Parts, dict[str, Any]] | None:
        """The tiles of one image with a side beyond ``tile`` voxels."""
        image, size = batch["image"], round(self.tile or 0)
        if not size or "shape" in batch or len(image) > 1 or max(image.shape[2:]) <= size:
            return None
        cells = self.grid(image.shape[2:])
        sets = self._weight(batch, [cells])
        return image_parts(self.encoder, image, cells, self.views, size, self.ids(batch)[0], sets), sets

    @functools.cached_property
    def views(self) -> tuple[View, ...]:
        """What the encoder's cells see along each axis."""
        same = not isinstance(self.stride, tuple)
        return views_of(self.encoder, self.spec["channels"], same=same)

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Cells along each axis for an image of this shape, which is passed through the network without its numbers."""
        known = self.encoder.grids.get(tuple(shape)) if isinstance(self.encoder, OwnNetwork) else None
        if known is not None:
            return known
        weights = {name: value.to("meta") for name, value in self.encoder.state_dict().items()}
        image = torch.empty(1, self.spec["channels"], *shape, device="meta")
        return tuple(functional_call(self.encoder, weights, image).shape[2:])

    place_names = ("right, mm", "anterior, mm", "superior, mm")

    def places(self, batch: dict[str, Any], x: Tensor) -> Tensor:
        """The centres of the grid's cells in the file's space, ``(B, d, h, w, 3)``."""
        numbers = grid_numbers(self.pool, x)[0]  # (d, h, w, 3)
        voxels = numbers.new_tensor(self.first) + numbers.new_tensor(self.stride) * numbers
        affine = batch["affine"].to(voxels)
        places: Tensor = torch.einsum("bij,dhwj->bdhwi", affine[:, :3, :3], voxels) + affine[:, None, None, None, :3, 3]
        return places

    def target(self, batch: dict[str, Any]) -> Tensor:
        """Class numbers or values."""
        target: Tensor = batch["target"]
        return target

    def ids(self, batch: dict[str, Any]) -> list[str]:
        """The images' relative paths, or the phantoms' numbers."""
        return list(batch["id"])

    def truth(self, batch: dict[str, Any]) -> list[Tensor] | None:
        """The voxels that the data's masks mark, if it has masks."""
        return [one[0].bool() for one in unpadded(batch, "mask")] if "mask" in batch else None

    def to_inputs(self, maps: Tensor, batch: dict[str, Any]) -> list[Tensor]:
        """Maps of the grid's cells ``(B, d, h, w)`` at the voxels of the network's input, whose mean is the cells'.

        Where the data have voxels to pool in, the others have 0.
        """
        images = unpadded(batch)
        found = []
        for number, (one, image) in enumerate(zip(maps, images, strict=True)):
            shape, inside = image.shape[1:], self._inside(batch, number)
            own = one[tuple(slice(cells) for cells in self.grid(shape))] if "shape" in batch else one
            shared = upsample(own, shape, stride=self.stride, first=self.first, totals=True, inside=inside)
            found.append(shared * self.cell)
        return found

    def rival_maps(self, batch: dict[str, Any]) -> dict[str, list[Tensor]]:
        """What an image shows without a network: how bright each voxel of each sequence is, and how dark."""
        images, names = unpadded(batch), self.spec.get("images", [""])
        found: dict[str, list[Tensor]] = {}
        for channel, name in enumerate(names if len(names) > 1 else [""]):
            bright = [one[channel] for one in images]
            found |= {f"intensity {name}".strip(): bright, f"darkness {name}".strip(): [-one for one in bright]}
        return found

    def floors(self, batch: dict[str, Any]) -> dict[str, Sequence[Any]]:
        """The file's size, the image's brightness, its brightest and darkest spot, and the image in a few cells."""
        return volume_floors(unpadded(batch), batch["affine"], batch["path"])

    def fingerprints(self, batch: dict[str, Any]) -> list[Tensor]:
        """What each image is from afar, wherever it lies, mirrored left to right or not."""
        return [fingerprint(image, [1, 2, 3], frequencies=5, mirrored=1) for image in unpadded(batch)]

    def hide(self, batch: dict[str, Any], hidden: list[Tensor]) -> dict[str, Any]:
        """Give hidden voxels their image's median intensity."""
        images = [one.masked_fill(gone, one.median()) for one, gone in zip(unpadded(batch), hidden, strict=True)]
        return {**batch, "image": stack_padded(images)}

    def inputs(self, batch: dict[str, Any]) -> Tensor:
        """The images."""
        image: Tensor = batch["image"]
        return image

    def with_inputs(self, batch: dict[str, Any], x: Tensor) -> dict[str, Any]:
        """Other images."""
        return {**batch, "image": x}

    def draw(self, batch: dict[str, Any], number: int, shown: Tensor, decision: Decision, path: Path) -> None:
        """Draw three slices through the peak of the map."""
        from tasks.volume.pictures import draw_slices

        draw_slices(
            self._sequences(batch, number),
            shown,
            path,
            title=decision.title,
            unit=decision.label,
            affine=batch["affine"][number],
            truth=unpadded(batch, "mask")[number][0] if "mask" in batch else None,
        )

    def paint(self, batch: dict[str, Any], number: int, panels: Mapping[str, Tensor], title: str, path: Path) -> None:
        """Draw three slices through the middle of the image, and below them those of each panel."""
        from tasks.volume.pictures import paint_slices

        paint_slices(self._sequences(batch, number), panels, path, title=title, affine=batch["affine"][number])

    def _sequences(self, batch: dict[str, Any], number: int) -> dict[str, Tensor]:
        """The sequences of a sample by their names."""
        image = unpadded(batch)[number]
        names = self.spec.get("images", ["image"])
        return dict(zip(names if len(names) > 1 else ["image"], image, strict=True))

    def export(self, batch: dict[str, Any], number: int, shown: Tensor, decision: Decision, stem: Path) -> list[Path]:
        """Write the map as NIfTI over the file it explains, its sum kept; for generated images, the image too."""
        path = stem.with_name(f"{stem.name}_map.nii.gz")
        source, image = batch["path"][number], unpadded(batch)[number]
        return write_map(shown, path, affine=batch["affine"][number], source=source, image=image, note=decision.note,
                         inside=self._inside(batch, number))  # fmt: skip

    @staticmethod
    def _inside(batch: dict[str, Any], number: int) -> Tensor | None:
        """The voxels of a sample that are pooled, if not all are."""
        return unpadded(batch, "pool_mask")[number][0] > 0 if "pool_mask" in batch else None

    def survey(self, atlas: str) -> Survey:
        """Sums of maps over the regions of an atlas in the images' space, and group maps on its grid."""
        from tasks.volume.regions import Regions

        return Regions(atlas)

    def read(self, source: str) -> dict[str, Any]:
        """A file, prepared like the training's, as a batch; several of one subject have commas between.

        They stand in the order of the training's sequences, an empty one where it is missing, and last the mask to pool
        in if the training's data named one.
        """
        if "preprocessing" not in self.spec:
            raise BadInput(f"{source}: the checkpoint does not say how its volumes were prepared; train it again")
        return read_files(source, self.spec)

    @property
    def cell(self) -> int:
        """Voxels in a cell of the encoder's grid."""
        stride = self.stride if isinstance(self.stride, tuple) else (self.stride,) * 3
        return round(math.prod(stride))
