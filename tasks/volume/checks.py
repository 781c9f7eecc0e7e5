"""What can be wrong with a volume's file, said in words that tell what to do."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import nibabel
import numpy as np
from nibabel.affines import voxel_sizes

from tasks.data.threads import side_by_side
from tasks.volume.files import Orientation, check_gzip, has_orientation, open_volume, short, what_is_packed

Role = Literal["image", "mask", "inside"]
_FEW = 8  # voxels along an axis, fewer than which a network hardly sees


class Wanted(NamedTuple):
    """What a file's voxels are brought to, as far as it may leave little of them."""

    spacing: Sequence[float] | None = None
    size: Sequence[int] | None = None
    """Of a crop around the centre; None = no crop."""


WHOLE = Wanted()
"""As the files are."""


class Found(NamedTuple):
    """What a look at a file found."""

    wrong: str | None = None
    """Why it cannot be used, and what to do."""
    odd: str | None = None
    """What the user would want to know of a file that can."""


def check_volume(
    path: Path,
    *,
    voxels: bool = True,
    role: Role = "image",
    volumes: int = 1,
    orientation: Orientation = "check",
) -> str | None:
    """Find out why a file cannot be used; see `look_at`, which tells what is odd, too."""
    return look_at(path, voxels=voxels, role=role, volumes=volumes, orientation=orientation).wrong


def look_at(
    path: Path,
    *,
    voxels: bool = True,
    role: Role = "image",
    volumes: int = 1,
    orientation: Orientation = "check",
    wanted: Wanted = WHOLE,
) -> Found:
    """Look at a file before it is used: what is accepted here can be read.

    Args:
        path: The file.
        voxels: Read every voxel; otherwise only the header, which misses truncated files, NaN and constant volumes.
        role: An ``"image"`` may not be constant, a ``"mask"`` of what is looked for may be empty, one of what is
            ``"inside"`` may not.
        volumes: How many volumes the file is to hold: more than one are 4-D.
        orientation: ``"trust"`` accepts a header that does not say how the voxels lie.
        wanted: What the voxels are brought to.

    Returns:
        What is wrong and what is odd with it.
    """
    image, wrong = open_volume(path)
    wrong = wrong or _wrong_header(path, image, volumes, orientation)
    if wrong:
        return Found(wrong)
    if not voxels:
        return Found(odd=_small(image, wanted))
    wrong = check_gzip(path)
    if wrong:
        return Found(wrong)
    try:
        data = np.asanyarray(image.dataobj)
    except Exception as error:  # whatever a format's reader raises
        return Found(
            f"its voxels cannot be read, it is truncated or damaged ({short(error)}); copy or download the file again"
        )
    wrong = _wrong_voxels(data, role)
    odd = None if wrong or role != "image" else _small(image, wanted) or _lost(image, data, wanted)
    return Found(wrong, odd)


def look_at_all(
    roles: Mapping[Path, Role], *, voxels: bool, volumes: int, orientation: Orientation, wanted: Wanted
) -> dict[Path, Found]:
    """Look at files side by side, each once; see `look_at`. Only images hold several volumes."""

    def look(path: Path) -> Found:
        count = volumes if roles[path] == "image" else 1
        return look_at(path, voxels=voxels, role=roles[path], volumes=count, orientation=orientation, wanted=wanted)

    return dict(zip(roles, side_by_side(look, roles, "files"), strict=True))


def _wrong_header(path: Path, image: Any, volumes: int, orientation: Orientation) -> str | None:
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
    if orientation == "check" and not has_orientation(image):
        return (
            "its header does not say how its voxels lie (sform and qform are 0, or there is none); repair it, or "
            f"confirm that its axes point to {''.join(nibabel.aff2axcodes(image.affine))} with --data.orientation trust"
        )
    return what_is_packed(path, image)


def _wrong_voxels(data: np.ndarray, role: Role) -> str | None:
    bad = data.size - int(np.isfinite(data).sum())
    if bad:
        return f"{bad} of {data.size} voxels are NaN or infinite; replace them (by 0 if they are background)"
    if role == "inside" and not data.any():
        return "is empty; mark the voxels that count"
    if role == "image" and data.min() == data.max():
        return f"every voxel is {data.flat[0]:g}; a constant volume holds nothing to learn from"
    return None


def _small(image: Any, wanted: Wanted) -> str | None:
    """Voxels after resampling; the axes are the file's, which lie nearest to the network's."""
    shape, axes = image.shape[:3], nibabel.io_orientation(image.affine)[:, 0].astype(int)
    sides = voxel_sizes(image.affine) * shape
    spacing = voxel_sizes(image.affine) if wanted.spacing is None else np.asarray(wanted.spacing, dtype=float)[axes]
    left = np.rint(sides / spacing).astype(int)
    return f"has only {_times(left)} voxels after resampling" if min(left) < _FEW else None


def _lost(image: Any, data: np.ndarray, wanted: Wanted) -> str | None:
    """Whether most of what is not background is cropped away."""
    if wanted.size is None:
        return None
    axes = nibabel.io_orientation(image.affine)[:, 0].astype(int)
    zooms = voxel_sizes(image.affine)
    spacing = zooms if wanted.spacing is None else np.asarray(wanted.spacing, dtype=float)[axes]
    kept = np.minimum(np.rint(np.asarray(wanted.size)[axes] * spacing / zooms), data.shape[:3]).astype(int)
    starts = (np.asarray(data.shape[:3]) - kept) // 2
    there = data > data.min()
    inside = there[tuple(slice(start, start + side) for start, side in zip(starts, kept, strict=True))]
    share = 1 - inside.sum() / there.sum()
    return f"loses {share:.0%} of its foreground to the crop; choose a larger --data.size" if share > 0.5 else None


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
