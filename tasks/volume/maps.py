"""Maps back over the file: from the network's voxels to those of the original image.

Two affines say it all. Preprocessing (orientation, spacing, cropping, padding, resizing) leaves the network's volume
with an affine of its own; the file has another; a map is carried from the one to the other through millimetres.
"""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.nifti1 import Nifti1Extension
from scipy import ndimage
from torch import Tensor

_COMMENT = 6  # a NIfTI header's extension for plain text
_AT_ONCE = 2**21  # voxels whose places are in memory together


def to_grid(
    volume: np.ndarray,
    affine: np.ndarray,
    *,
    onto: np.ndarray,
    shape: tuple[int, ...],
    totals: bool = False,
    inside: np.ndarray | None = None,
) -> np.ndarray:
    """Resample a volume to another grid in the same space, by linear interpolation.

    Args:
        volume: ``(D, H, W)``.
        affine: ``(4, 4)``, its voxels to millimetres.
        onto: ``(4, 4)``, the other grid's voxels to millimetres.
        shape: Voxels of the other grid.
        totals: Share each voxel's value out, so that sums stay the same: a voxel's value goes to the voxels of the
            other grid that are interpolated from it, in proportion; to the nearest where none is, as between thick
            slices. What lies beyond the other grid is lost. Otherwise values are kept, and a sum grows as voxels
            shrink.
        inside: ``(D, H, W)``, bool: voxels of the volume that are meant, with ``totals``; only voxels of the other grid
            whose centre lies in one take a share.

    Returns:
        float64, of the other grid's shape; zero where the volume does not reach.

    Example:
        >>> fine = to_grid(np.ones((2, 2, 2)), np.diag([2.0, 2, 2, 1]), onto=np.eye(4), shape=(4, 4, 4), totals=True)
        >>> float(fine.sum().round(9))
        8.0
    """
    volume = np.asarray(volume, dtype=np.float64)
    pull = _snapped(np.linalg.inv(np.asarray(affine, dtype=float)) @ onto)  # its voxel -> ours
    if not totals:
        return _interpolated(volume, pull, shape)
    meant = np.ones(shape) if inside is None else _interpolated(inside.astype(np.float64), pull, shape, order=0)
    given = _collected(pull, meant, volume.shape)
    out: np.ndarray = meant * _interpolated(
        np.divide(volume, given, out=np.zeros_like(volume), where=given > 0), pull, shape
    )
    left = np.argwhere((given == 0) & (volume != 0))
    if len(left):
        push = _snapped(np.linalg.inv(onto) @ np.asarray(affine, dtype=float))
        near = np.rint(left @ push[:3, :3].T + push[:3, 3]).astype(int)
        inside = ((near >= 0) & (near < shape)).all(1)
        np.add.at(out, tuple(near[inside].T), volume[tuple(left[inside].T)])
    return out


def _snapped(affine: np.ndarray) -> np.ndarray:
    """Whole-voxel moves (flips, axes in another order, crops) shall copy values, not blend them by rounding errors."""
    snapped: np.ndarray = np.where(np.abs(affine - affine.round()) < 1e-5, affine.round(), affine)
    return snapped


def _interpolated(volume: np.ndarray, pull: np.ndarray, shape: tuple[int, ...], order: int = 1) -> np.ndarray:
    found: np.ndarray = ndimage.affine_transform(
        volume, pull[:3, :3], pull[:3, 3], shape, order=order, mode="grid-constant", cval=0.0
    )
    return found


def _collected(pull: np.ndarray, meant: np.ndarray, ours: tuple[int, ...]) -> np.ndarray:
    """How much each voxel of ``ours`` gives when those of another grid that are meant are interpolated from it."""
    shape = meant.shape
    found = np.zeros(int(np.prod(ours)))
    rows = max(1, _AT_ONCE // int(np.prod(shape[1:])))
    for start in range(0, shape[0], rows):
        lines = [np.arange(start, min(start + rows, shape[0])), np.arange(shape[1]), np.arange(shape[2])]
        places = [
            pull[axis, 0] * lines[0][:, None, None] + pull[axis, 1] * lines[1][:, None] + pull[axis, 2] * lines[2]
            + pull[axis, 3]
            for axis in range(3)
        ]  # fmt: skip
        low = [np.floor(place).astype(int) for place in places]
        for corner in np.ndindex(2, 2, 2):
            number, there = np.zeros(low[0].shape, int), np.ones(low[0].shape, bool)
            weight = meant[start : start + rows]
            for axis in range(3):
                at = low[axis] + corner[axis]
                weight = weight * (1 - np.abs(places[axis] - at))
                there = there & (at >= 0) & (at < ours[axis])
                number = number * ours[axis] + at
            found += np.bincount(number[there], weights=weight[there], minlength=len(found))
    return found.reshape(ours)


def to_file_space(
    volume: np.ndarray,
    affine: np.ndarray,
    path: str | Path,
    *,
    totals: bool = False,
    inside: np.ndarray | None = None,
) -> nibabel.Nifti1Image:
    """Resample a volume of the network's grid to the grid of a file.

    Args:
        volume: ``(D, H, W)``.
        affine: ``(4, 4)``, voxels of ``volume`` to millimetres.
        path: The file that the volume was made from.
        totals: See `to_grid`: keep the sum, not the values.
        inside: See `to_grid`.

    Returns:
        A float32 image with the file's shape, affine and orientation codes; zero where the network saw nothing.
    """
    file = nibabel.load(path)
    shape = file.shape[:3]
    out = to_grid(volume, affine, onto=file.affine, shape=shape, totals=totals, inside=inside).astype(np.float32)
    # Of a file of several volumes there is one map.
    out = out.reshape(shape if np.prod(file.shape[3:]) > 1 else file.shape)
    header = nibabel.Nifti1Header()
    header.set_xyzt_units("mm")
    image = nibabel.Nifti1Image(out, file.affine, header)
    if isinstance(file.header, nibabel.Nifti1Header):
        image.set_sform(file.affine, int(file.header["sform_code"]) or int(file.header["qform_code"]) or 2)
        image.set_qform(file.affine, int(file.header["qform_code"]))
    return image


def write_map(
    maps: Tensor,
    path: Path,
    *,
    affine: Tensor,
    source: str = "",
    image: Tensor | None = None,
    note: str = "",
    inside: Tensor | None = None,
) -> list[Path]:
    """Write a map as NIfTI, its sum kept: over the file it explains, or beside the image where there is no file.

    Args:
        maps: ``(D, H, W)`` on the network's grid, each voxel's share of a value.
        path: Where to write; ``.nii.gz``.
        affine: ``(4, 4)`` of the network's grid.
        source: The original file; empty for generated data.
        image: ``(C, D, H, W)``, written as ``*_image.nii.gz`` where there is no source.
        note: What the numbers are, for the header: all of it as a comment, its beginning as the description. The sum
            of the file, and what lies beyond it, where the network looked at padding, are added.
        inside: ``(D, H, W)``, bool: where the map may be; the file is zero elsewhere.

    Returns:
        The files written.
    """
    place = affine.cpu().double().numpy()
    if source:
        meant = None if inside is None else inside.cpu().numpy()
        written = to_file_space(maps.cpu().numpy(), place, source, totals=True, inside=meant)
    else:
        written = nibabel.Nifti1Image(maps.cpu().numpy().astype(np.float32), place)
    total = float(written.get_fdata().sum())
    beyond = float(maps.double().sum()) - total
    text = f"{note}; sum {total:.6g}" if note else f"sum {total:.6g}"
    if abs(beyond) > 1e-6 * float(maps.abs().double().sum()):
        text += f"; beyond the file {beyond:.6g}"
    written.header["descrip"] = text.encode()[:79]
    written.header.extensions.append(Nifti1Extension(_COMMENT, text.encode()))
    nibabel.save(written, path)
    if source or image is None:
        return [path]
    beside = path.with_name(f"{path.name.removesuffix('.nii.gz').removesuffix('_map')}_image.nii.gz")
    voxels: Any = image.cpu().numpy().astype(np.float32)
    voxels = voxels[0] if len(voxels) == 1 else np.moveaxis(voxels, 0, -1)
    nibabel.save(nibabel.Nifti1Image(voxels, place), beside)
    return [path, beside]
