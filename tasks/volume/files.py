"""Volumes in files, of every format that nibabel reads: NIfTI, Analyze, MGH, MINC and more."""

import gzip
import math
import zlib
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.spatialimages import SpatialImage

LARGEST = 2**30  # voxels that are read: 1024³, 4 GiB as float32
_DENSEST = 1032  # bytes that one byte of gzip can stand for
_BLOCK = 2**20

Orientation = Literal["check", "trust"]


def read_volume(path: str | Path) -> MetaTensor:
    """A file's voxels, ``(C, D, H, W)`` float32, a channel for each of its volumes, with their affine to millimetres.

    The file has passed `tasks.volume.checks.check_volume`.
    """
    image: Any = nibabel.load(path)
    voxels = np.asanyarray(image.dataobj, dtype=np.float32)
    voxels = np.moveaxis(voxels.reshape(*image.shape[:3], -1), -1, 0)
    return MetaTensor(np.ascontiguousarray(voxels), affine=torch.as_tensor(image.affine, dtype=torch.float64))


def open_volume(path: Path) -> tuple[Any, str | None]:
    """The image of a file, whose voxels are not read yet, and why it cannot be used.

    Returns:
        ``(image, None)``, or ``(None, what is wrong and what to do)``.
    """
    if path.is_dir():
        inside = next((file for file in sorted(path.iterdir()) if file.is_file() and _is_dicom(file)), None)
        if inside is None:
            return None, "is a folder; name the file in it"
        return None, f"is a folder of DICOM files; run dcm2niix -z y -o OUT '{path.name}', and name what it writes"
    if not path.is_file():
        return None, "file does not exist; correct the path or leave it out"
    if _is_dicom(path):
        return None, f"is one DICOM file; run dcm2niix -z y -o OUT '{path.parent.name}', and name what it writes"
    try:
        image: Any = nibabel.load(path)
        if not isinstance(image, SpatialImage) or isinstance(image, nibabel.Cifti2Image):
            return None, f"holds no volume but a {type(image).__name__}; give an image of voxels"
        math.prod(image.shape), np.asarray(image.affine), image.get_data_dtype()
    except ImportError as error:
        return None, f"needs {error.name} to be read; run pip install {error.name}, or convert it to NIfTI"
    except Exception as error:  # nibabel lets through what its parsers, numpy, gzip and xml raise
        return None, f"cannot be read as an image ({short(error)}); convert or copy the file again"
    return image, None


def has_orientation(image: Any) -> bool:
    """Whether the header says how the voxels lie in space, and nibabel need not guess."""
    if isinstance(image, nibabel.Nifti1Pair):  # and NIfTI-2, and single files
        return bool(image.header["sform_code"] or image.header["qform_code"])
    if isinstance(image, nibabel.AnalyzeImage):
        return "mat" in getattr(image, "file_map", {}) and Path(image.file_map["mat"].filename or "").is_file()
    return True


def what_is_packed(path: Path, image: Any) -> str | None:
    """Why a file cannot hold the voxels that its header promises, told without reading any."""
    voxels = math.prod(image.shape)
    if voxels > LARGEST:
        return f"expected at most {LARGEST:,} voxels, its header promises {voxels:,}; crop or resample it first"
    holder = Path(image.file_map["image"].filename or path)
    if not holder.is_file():
        return f"its voxels are missing; put {holder.name} beside it"
    size, needed = holder.stat().st_size, voxels * image.get_data_dtype().itemsize
    packed = is_gzip(holder)
    if not packed and holder.suffix.lower() in (".bz2", ".zst"):
        return None
    if needed > size * (_DENSEST if packed else 1):
        held = f"{size:,} bytes{' of gzip' * packed}"
        return (
            f"its header promises {needed:,} bytes of voxels, which {held} cannot hold, it is truncated or damaged; "
            "copy or download the file again"
        )
    return None


def check_gzip(path: Path) -> str | None:
    """Read a gzip file to its end, where its checksum stands, which those who read voxels never reach."""
    if not is_gzip(path):
        return None
    try:
        with gzip.open(path) as file:
            while file.read(_BLOCK):
                pass
    except (OSError, EOFError, zlib.error) as error:
        return f"its gzip stream is truncated or damaged ({short(error)}); copy or download the file again"
    return None


def is_gzip(path: Path) -> bool:
    """Whether a file begins as gzip does."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _is_dicom(path: Path) -> bool:
    if path.suffix.lower() in (".dcm", ".ima"):
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def short(error: Exception) -> str:
    """The first line of what an error says."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text if len(text) <= 100 else text[:97] + "..."
