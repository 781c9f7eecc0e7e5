"""Maps back over the file: from the network's voxels to those of the original image.

Two affines say it all. Preprocessing (orientation, spacing, cropping, padding, resizing) leaves the network's volume
with an affine of its own; the file has another; a map is carried from the one to the other through millimetres.
"""

from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage
from torch import Tensor


def to_file_space(volume: np.ndarray, affine: np.ndarray, path: str | Path) -> nibabel.Nifti1Image:
    """Resample a volume of the network's grid to the grid of a file.

    Args:
        volume: ``(D, H, W)``.
        affine: ``(4, 4)``, voxels of ``volume`` to millimetres.
        path: The file that the volume was made from.

    Returns:
        A float32 image with the file's shape, affine and orientation codes; zero where the network saw nothing.
    """
    file = nibabel.load(path)
    pull = np.linalg.inv(np.asarray(affine, dtype=float)) @ file.affine  # file voxel -> network voxel
    # Whole-voxel moves (flips, axes in another order, crops) shall copy values, not blend them by rounding errors.
    pull = np.where(np.abs(pull - pull.round()) < 1e-5, pull.round(), pull)
    shape = file.shape[:3]
    out = ndimage.affine_transform(
        np.asarray(volume, dtype=np.float64), pull[:3, :3], pull[:3, 3], shape, order=1, mode="grid-constant", cval=0.0
    )
    header = nibabel.Nifti1Header()
    header.set_xyzt_units("mm")
    image = nibabel.Nifti1Image(out.astype(np.float32).reshape(file.shape), file.affine, header)
    if isinstance(file.header, nibabel.Nifti1Header):
        image.set_sform(file.affine, int(file.header["sform_code"]) or int(file.header["qform_code"]) or 2)
        image.set_qform(file.affine, int(file.header["qform_code"]))
    return image


def write_map(maps: Tensor, path: Path, *, affine: Tensor, source: str = "", image: Tensor | None = None) -> list[Path]:
    """Write a map as NIfTI: over the file it explains, or beside the image where there is no file.

    Args:
        maps: ``(D, H, W)`` on the network's grid.
        path: Where to write; ``.nii.gz``.
        affine: ``(4, 4)`` of the network's grid.
        source: The original file; empty for generated data.
        image: ``(D, H, W)``, written as ``*_image.nii.gz`` where there is no source.

    Returns:
        The files written.
    """
    place = affine.cpu().double().numpy()
    if source:
        nibabel.save(to_file_space(maps.cpu().numpy(), place, source), path)
        return [path]
    written = {path: maps}
    if image is not None:
        written[path.with_name(f"{path.name.removesuffix('.nii.gz').removesuffix('_map')}_image.nii.gz")] = image
    for name, volume in written.items():
        nibabel.save(nibabel.Nifti1Image(volume.cpu().numpy().astype(np.float32), place), name)
    return list(written)
