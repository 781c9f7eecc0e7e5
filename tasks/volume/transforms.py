"""MONAI transforms: one geometry and one intensity scale for all volumes, and random changes for training."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import radians
from typing import Any, Literal

import numpy as np
import torch
from monai import transforms as mt

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
        intensity: ``"percentile"`` maps the 0.5th to 99.5th percentile of the volume to 0 to 1, so that padding looks
            like air; ``"zscore"`` clips to the same and gives mean 0, standard deviation 1; ``"foreground"`` gives
            what is not 0 (in scans without skull) median 0 and spread 1, 1.48 times the median absolute deviation,
            and clips to -3 to 6, so that fluid and background look alike in all scans.
        mask: There is a mask, too, ``{"mask": path}``: bring it to the image's grid, bool, whatever its own grid is.
            With ``fit="brain"`` it says where white matter is.

    Returns:
        Transforms from ``{"image": path, ...}`` to ``{"image": (1, D, H, W), "affine": (4, 4), ...}``. The affine maps
        the result's voxels to millimetres, which is all that is needed to put a map back over the file.
    """
    steps: list[mt.Transform] = [
        mt.LoadImaged("image", ensure_channel_first=True, image_only=True),
        mt.EnsureTyped("image", dtype=torch.float32, track_meta=True),
        mt.Orientationd("image", axcodes="RAS", labels=None),
    ]
    if spacing is not None:
        steps.append(mt.Spacingd("image", pixdim=tuple(spacing), mode="bilinear"))
    if intensity == "percentile":
        steps.append(
            mt.ScaleIntensityRangePercentilesd("image", lower=0.5, upper=99.5, b_min=0.0, b_max=1.0, clip=True)
        )
    elif intensity == "zscore":
        steps += [mt.ClipIntensityPercentilesd("image", lower=0.5, upper=99.5), mt.NormalizeIntensityd("image")]
    elif intensity == "foreground":
        steps.append(mt.Lambdad("image", foreground_scale))
    if size is not None and fit == "crop":
        steps.append(mt.ResizeWithPadOrCropd("image", spatial_size=tuple(size), mode=pad))
    elif size is not None and fit == "resize":
        steps.append(mt.Resized("image", spatial_size=tuple(size), mode="trilinear", anti_aliasing=True))
    if mask:
        steps += [
            mt.LoadImaged("mask", ensure_channel_first=True, image_only=True),
            mt.ResampleToMatchd("mask", key_dst="image", mode="nearest", padding_mode="zeros"),
        ]
    steps.append(mt.Lambda(_without_meta))
    return [*steps, mt.Lambda(AroundTissue(size))] if size is not None and fit == "brain" else steps


def foreground_scale(image: Any) -> Any:
    """Give what is not 0 in an image (array or tensor) median 0 and spread 1 (by the median deviation); clip."""
    inside = np.asarray(image)[np.asarray(image) != 0]
    middle = np.median(inside) if len(inside) else 0.0
    spread = 1.4826 * np.median(np.abs(inside - middle)) if len(inside) else 1.0
    return ((image - float(middle)) / float(spread or 1.0)).clip(-3.0, 6.0)


def _without_meta(sample: dict[str, Any]) -> dict[str, Any]:
    """Keep the affine, drop the rest of the metadata: plain tensors batch, cache and move between devices anywhere."""
    image = sample["image"]
    plain = {"image": image.as_tensor().contiguous(), "affine": image.affine.clone()}
    if "mask" in sample:
        plain["mask"] = sample["mask"].as_tensor().contiguous() > 0
    return {**sample, **plain}


def augmentation(options: Augment | None, *, mask: bool = False) -> list[mt.Transform]:
    """Build the random transforms; none without options.

    Args:
        options: Which.
        mask: There is a mask, too, which moves with the image.
    """
    if options is None:
        return []
    o, p = options, options.probability
    keys = ["image", "mask"] if mask else ["image"]
    steps: list[mt.Transform] = [mt.RandFlipd(keys, prob=p, spatial_axis=axis) for axis in o.flip]
    if o.rotate or o.shift or o.zoom:
        steps.append(
            mt.RandAffined(
                keys,
                prob=p,
                rotate_range=[radians(o.rotate)] * 3,
                translate_range=[o.shift] * 3,
                scale_range=[o.zoom] * 3,
                mode=["bilinear", "nearest"][: len(keys)],
                padding_mode="border",
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
