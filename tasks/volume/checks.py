"""What can be wrong with a NIfTI file, said in words that tell what to do."""

import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError


def check_volume(path: Path, *, voxels: bool = True, constant: bool = False, volumes: int = 1) -> str | None:
    """Find out why an image cannot be used.

    Args:
        path: The file.
        voxels: Read every voxel; otherwise only the header, which misses truncated files, NaN and constant volumes.
        constant: Accept a constant volume: a mask may be empty.
        volumes: How many volumes the file is to hold: more than one are 4-D.

    Returns:
        What is wrong and what to do, or None for a good volume.
    """
    if not path.is_file():
        return "file does not exist; correct the path or leave it out"
    try:
        image = nibabel.load(path)
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error) as error:
        return f"cannot be read as an image ({_short(error)}); convert or copy the file again"
    shape = image.shape
    if volumes > 1 and (len(shape) < 4 or shape[3] != volumes or any(n != 1 for n in shape[4:])):
        return f"expected {volumes} volumes in one file, got shape {_times(shape)}; put them together with fslmerge -t"
    if volumes == 1 and (len(shape) < 3 or any(n != 1 for n in shape[3:])):
        return f"expected one 3-D volume, got shape {_times(shape)}; save one volume, or their mean, as 3-D"
    if min(shape[:3]) < 2:
        return f"expected at least 2 voxels along every axis, got {_times(shape)}; leave out slices and localisers"
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine[:3, :3])) < 1e-9:
        return "its affine is singular or not finite, so its voxels have no place in space; repair the header"
    if image.get_data_dtype().kind not in "iuf":
        return f"expected numbers as voxels, got {image.get_data_dtype()}; convert it to a grey-scale image"
    return _check_voxels(image, constant) if voxels else None


def check_inside(path: Path, *, voxels: bool = True) -> str | None:
    """The same for a mask of the voxels that count, which must not be empty."""
    wrong = check_volume(path, voxels=voxels, constant=True)
    if wrong or not voxels or np.asanyarray(nibabel.load(path).dataobj).any():
        return wrong
    return "is empty; mark the voxels that count"


def _check_voxels(image: Any, constant: bool) -> str | None:
    try:
        data = np.asanyarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        return (
            f"its voxels cannot be read, it is truncated or damaged ({_short(error)}); copy or download the file again"
        )
    bad = data.size - int(np.isfinite(data).sum())
    if bad:
        return f"{bad} of {data.size} voxels are NaN or infinite; replace them (by 0 if they are background)"
    if not constant and data.min() == data.max():
        return f"every voxel is {data.flat[0]:g}; a constant volume holds nothing to learn from"
    return None


def _short(error: Exception) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text if len(text) <= 100 else text[:97] + "..."


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
