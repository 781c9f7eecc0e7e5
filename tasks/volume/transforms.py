"""MONAI transforms: one geometry and one intensity scale for all volumes, and random changes for training."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import radians
from typing import Any, Literal

from monai import transforms as mt

from tasks.data.problems import BadInput
from tasks.volume.files import read_volume
from tasks.volume.intensity import INTENSITY
from tasks.volume.load import BODIES, LoadSequences
from tasks.volume.tissue import AroundTissue

Fit = Literal["crop", "resize"]
Pad = Literal["constant", "edge"]
Intensity = Literal["zscore", "percentile", "foreground", "none"]


@dataclass(frozen=True)
class Augment:
    """Random changes of training volumes; 0 or an empty list turns one off.

    Args:
        probability: Chance of each change.
        flip: Axes that may be mirrored: 0 left-right, 1 posterior-anterior, 2 inferior-superior. Leave it empty if
            the side matters.
        rotate: Largest rotation about each axis, in degrees.
        shift: Largest shift along each axis, in voxels.
        zoom: Largest relative change of size. Leave it at 0 where the target is itself a size.
        bias_field: Largest coefficient of the multiplicative bias field.
        contrast: Largest relative change of contrast, and largest shift of brightness.
        noise: Largest standard deviation of added noise, in units of the normalised intensity.
    """

    probability: float = 0.5
    flip: tuple[int, ...] = ()
    rotate: float = 10.0
    shift: float = 3.0
    zoom: float = 0.0
    bias_field: float = 0.2
    contrast: float = 0.1
    noise: float = 0.05


def preprocessing(
    *,
    size: Sequence[int] | None,
    spacing: Sequence[float] | None,
    fit: Fit | Literal["brain"],
    pad: Pad = "constant",
    intensity: Intensity,
    take: Sequence[int] | None = None,
    pool_mask: str | None = None,
    mask: bool = False,
) -> list[mt.Transform]:
    """Load a volume and bring it to one orientation, voxel size, intensity scale and shape.

    Args:
        size: Voxels of the result, (right, anterior, superior); None keeps what there is.
        spacing: Voxel size in mm to resample to; None keeps each file's own.
        fit: ``"crop"`` crops or pads symmetrically, ``"resize"`` stretches the field of view to ``size``, ``"brain"``
            crops around white matter (`tasks.volume.tissue`), which is then the sample's ``tissue``.
        pad: ``"constant"`` pads with 0; ``"edge"`` goes on with the outermost voxels, so that the shape of a file that
            was cut around an organ shows less.
        intensity: How each sequence is scaled (`tasks.volume.intensity`).
        take: Which volumes of a 4-D file become channels; None = all.
        pool_mask: The voxels to pool are the body's (`tasks.volume.load.find_body`); or, of any other name, those of
            the mask ``{"pool_mask": path}``.
        mask: There is a mask, too, ``{"mask": path}``: bring it to the image's grid, bool, whatever its own grid is.
            With ``fit="brain"`` it says where white matter is.

    Returns:
        Transforms from ``{"image": path or paths, ...}`` to ``{"image": (C, D, H, W), "affine": (4, 4), ...}``, and
        with ``pool_mask`` a float of 0 and 1, (1, D, H, W). The affine maps the result's voxels to millimetres, which
        is all that is needed to put a map back over the file.
    """
    body = pool_mask if pool_mask in BODIES else None
    steps: list[mt.Transform] = [mt.Lambda(LoadSequences(INTENSITY[intensity], spacing=spacing, take=take, body=body))]
    if size is not None and fit == "crop":
        steps.append(mt.ResizeWithPadOrCropd("image", spatial_size=tuple(size), mode=pad))
    elif size is not None and fit == "resize":
        steps.append(mt.Resized("image", spatial_size=tuple(size), mode="trilinear", anti_aliasing=True))
    files = [*["mask"] * mask, *["pool_mask"] * (pool_mask is not None and body is None)]
    if files:
        steps.append(mt.Lambda(lambda sample: sample | {name: read_volume(sample[name]) for name in files}))
    masks = [*["mask"] * mask, *["pool_mask"] * (pool_mask is not None)]
    if masks:
        steps.append(mt.ResampleToMatchd(masks, key_dst="image", mode="nearest", padding_mode="zeros"))
    steps.append(mt.Lambda(_without_meta))
    return [*steps, mt.Lambda(AroundTissue(size))] if size is not None and fit == "brain" else steps


def _without_meta(sample: dict[str, Any]) -> dict[str, Any]:
    """Keep the affine, drop the rest of the metadata: plain tensors batch, cache and move between devices anywhere."""
    image = sample["image"]
    plain = {"image": image.as_tensor().contiguous(), "affine": image.affine.clone()}
    if "mask" in sample:
        plain["mask"] = sample["mask"].as_tensor().contiguous() > 0
    if "pool_mask" in sample:
        plain["pool_mask"] = (sample["pool_mask"].as_tensor() > 0).float().contiguous()
        if not plain["pool_mask"].any():
            raise BadInput(
                f"{sample['id']}: no voxel of the mask to pool in lies in the image; correct the mask or --data.size"
            )
    return {**sample, **plain}


def augmentation(options: Augment | None, masks: Sequence[str] = ()) -> list[mt.Transform]:
    """Build the random transforms; none without options.

    Args:
        options: Which.
        masks: What moves with the image: 0 and 1, zero beyond its borders.
    """
    if options is None:
        return []
    o, p = options, options.probability
    keys = ["image", *masks]
    steps: list[mt.Transform] = [mt.RandFlipd(keys, prob=p, spatial_axis=axis) for axis in o.flip]
    if o.rotate or o.shift or o.zoom:
        steps.append(
            mt.RandAffined(
                keys,
                prob=p,
                rotate_range=[radians(o.rotate)] * 3,
                translate_range=[o.shift] * 3,
                scale_range=[o.zoom] * 3,
                mode=["bilinear", *["nearest"] * len(masks)],
                padding_mode=["border", *["zeros"] * len(masks)],
            )
        )
    if o.bias_field:
        steps.append(mt.RandBiasFieldd("image", prob=p, coeff_range=(0.0, o.bias_field)))
    if o.contrast:
        steps.append(mt.RandScaleIntensityd("image", factors=o.contrast, prob=p))
        steps.append(mt.RandShiftIntensityd("image", offsets=o.contrast, prob=p))
    if o.noise:
        steps.append(mt.RandGaussianNoised("image", prob=p, std=o.noise))
    return steps
