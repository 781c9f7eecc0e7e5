"""One intensity scale for the volumes of all scanners: functions of one sequence, (D, H, W)."""

from collections.abc import Callable
from typing import Any

import numpy as np
from monai import transforms as mt
from monai.transforms.utils_pytorch_numpy_unification import percentile
from monai.utils import convert_to_tensor
from torch import Tensor


def percentile_scale(image: Tensor) -> Tensor:
    """Map the 0.5th to 99.5th percentile to 0 to 1, and clip: padding with 0 looks like air.

    Where they are the same, as in an image that is nearly all 0, the smallest and the largest value take their place.
    """
    scaled = mt.ScaleIntensityRangePercentiles(lower=0.5, upper=99.5, b_min=0.0, b_max=1.0, clip=True)
    low, high = (float(percentile(image, q)) for q in (0.5, 99.5))
    if low == high:
        return _plain(mt.ScaleIntensity(0.0, 1.0)(image))
    return _plain(scaled(image))


def standard_scale(image: Tensor) -> Tensor:
    """Clip to the 0.5th to 99.5th percentile, and give mean 0 and standard deviation 1."""
    return _plain(mt.NormalizeIntensity()(mt.ClipIntensityPercentiles(lower=0.5, upper=99.5)(image)))


def foreground_scale(image: Tensor) -> Tensor:
    """Give what is not 0 (in scans without skull) median 0 and spread 1, and clip to -3 to 6.

    The spread is 1.48 times the median absolute deviation, which lesions do not shift. Fluid and background look alike
    in all scans.
    """
    inside = image[image != 0].numpy()
    middle = float(np.median(inside)) if len(inside) else 0.0
    spread = 1.4826 * float(np.median(np.abs(inside - middle))) if len(inside) else 1.0
    return ((image - middle) / (spread or 1.0)).clip(-3.0, 6.0)


def _plain(image: Any) -> Tensor:
    plain: Tensor = convert_to_tensor(image, track_meta=False)
    return plain


INTENSITY: dict[str, Callable[[Tensor], Tensor]] = {
    "percentile": percentile_scale,
    "zscore": standard_scale,
    "foreground": foreground_scale,
    "none": lambda image: image,
}
"""The scales by their names."""
