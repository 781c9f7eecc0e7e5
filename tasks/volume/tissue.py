"""Where white matter is in a T1-weighted head: lesions are put there, and heads are cropped around it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from monai import transforms as mt
from monai.data import MetaTensor
from scipy import ndimage

from tasks.data.problems import BadInput


def white_matter(image: np.ndarray, zooms: tuple[float, float, float]) -> np.ndarray:
    """Find the bright core of the brain in a T1-weighted head, the skull still around it.

    Three Gaussians (fluid, grey, white) are fitted to what lies within 50 mm of the brain's middle, taken to be 75 mm
    under the vertex. What is bright within 95 mm loses a layer of voxels, so that scalp and brain part, and the largest
    piece stays. It is deep white matter and some of thalamus and brain stem: where lesions may be put, no segmentation.

    Args:
        image: ``(D, H, W)``, axes right, anterior, superior, air near 0.
        zooms: Voxel sizes in mm.

    Returns:
        A bool array of the same shape; empty where no such core is found.
    """
    from sklearn.mixture import GaussianMixture

    size = np.asarray(zooms)
    head: np.ndarray = image > 0.1 * np.percentile(image, 99.5)
    if not head.any():
        return head
    middle = int(max(np.flatnonzero(head.any((0, 1))).max() - 75 / size[2], 0))
    centre = np.array([*ndimage.center_of_mass(head[:, :, middle] + 1e-9), middle])
    away = np.linalg.norm((np.indices(image.shape).reshape(3, -1).T - centre) * size, axis=1).reshape(image.shape)
    values = image[away < 50]
    if len(np.unique(values)) < 3:
        return np.zeros_like(head)
    starts = np.percentile(values, [5, 40, 80])[:, None]
    means = np.sort(GaussianMixture(3, means_init=starts, random_state=0).fit(values[:, None]).means_.ravel())
    low, high = (means[1] + means[2]) / 2, means[2] + 1.5 * (means[2] - means[1])
    core, _ = ndimage.label(ndimage.binary_erosion((image > low) & (image < high) & (away < 95)))
    sizes = np.bincount(core.ravel())[1:]
    largest: np.ndarray = core == sizes.argmax() + 1 if len(sizes) else np.zeros_like(head)
    return largest


class AroundTissue:
    """Find where lesions may be (or take the given mask), and crop a head around it.

    Args:
        size: Voxels of the result.
    """

    def __init__(self, size: Sequence[int]):
        self.size = size

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        """``{"image", "affine", ["mask"]}`` to ``{"image", "affine", "tissue"}``."""
        zooms = tuple(sample["affine"][:3, :3].norm(dim=0).tolist())
        given = "mask" in sample
        tissue = sample.pop("mask").numpy() if given else white_matter(sample["image"][0].numpy(), zooms)[None]
        if not tissue.any():
            cause = (
                "its tissue mask is empty" if given else "expected a T1-weighted head with a bright core, found none"
            )
            raise BadInput(f"{sample['id']}: {cause}; give a white-matter mask with --data.tissue COLUMN")
        centre = np.argwhere(tissue[0]).mean(0).round().astype(int)
        place = {"affine": sample["affine"]}
        both: Any = {
            "image": MetaTensor(sample["image"], **place),
            "tissue": MetaTensor(tissue.astype(np.uint8), **place),
        }
        both = mt.SpatialCropd(list(both), roi_center=centre, roi_size=self.size)(both)
        both = mt.SpatialPadd(list(both), spatial_size=self.size)(both)
        plain = {"image": both["image"].as_tensor().contiguous(), "tissue": both["tissue"].as_tensor().bool()}
        return {**sample, **plain, "affine": both["image"].affine}
