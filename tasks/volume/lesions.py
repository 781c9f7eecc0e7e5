"""Lesions of real shape for healthy heads: cut out of masks, put into white matter with a soft edge."""

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage


@dataclass(frozen=True)
class Shape:
    """One lesion, cut out of a mask.

    Args:
        volume: What belongs to it, bool, axes right, anterior, superior, without margins.
        zooms: Voxel sizes in mm.
    """

    volume: np.ndarray
    zooms: tuple[float, float, float]

    @property
    def mm3(self) -> float:
        """Its volume."""
        return float(self.volume.sum() * np.prod(self.zooms))


def lesion_shapes(path: str | Path, *, smallest: float = 0.0, largest: float = np.inf) -> list[Shape]:
    """Cut the lesions out of a mask: voxels that touch, also by an edge or a corner, are one lesion.

    Args:
        path: The mask, any orientation; what is not zero is lesion.
        smallest: Smallest volume in mm³ of a lesion to take.
        largest: Largest volume.
    """
    image = nibabel.as_closest_canonical(nibabel.load(path))
    labels, _ = ndimage.label(np.asanyarray(image.dataobj).squeeze() > 0, np.ones((3, 3, 3)))
    x, y, z = map(float, image.header.get_zooms()[:3])
    boxes = ndimage.find_objects(labels)
    shapes = [Shape(labels[box] == number, (x, y, z)) for number, box in enumerate(boxes, start=1)]
    return [shape for shape in shapes if smallest <= shape.mm3 <= largest]


def insert(
    image: np.ndarray,
    shape: Shape,
    tissue: np.ndarray,
    *,
    zooms: tuple[float, float, float],
    contrast: float,
    edge: float,
    generator: np.random.Generator,
    tries: int = 30,
) -> tuple[np.ndarray, np.ndarray]:
    """Put a lesion into a head, at a random place in the tissue, mirrored or not.

    Of ``tries`` random places it takes the first that has nine tenths of the lesion inside the tissue, else the best.

    Args:
        image: ``(D, H, W)``, axes right, anterior, superior.
        shape: The lesion.
        tissue: Where its middle, and as much as possible of it, shall be, bool ``(D, H, W)``, not empty.
        zooms: Voxel sizes of the image in mm.
        contrast: Relative change of the intensity in the lesion: -0.3 takes three tenths off.
        edge: Standard deviation in mm of the Gaussian that blurs the outline.
        generator: Where all randomness comes from.
        tries: Places to look at.

    Returns:
        The image with the lesion, and the lesion's mask: where at least half of the contrast is reached.
    """
    soft = _soft(shape, zooms, edge, generator)
    solid = soft >= 0.5
    places = np.argwhere(tissue)[generator.integers(int(tissue.sum()), size=tries)] - np.array(soft.shape) // 2
    best, share = None, -1.0
    for place in places:
        there, here = _overlap(place, soft.shape, image.shape)
        inside = float((tissue[there] & solid[here]).sum() / solid.sum())
        if inside > share:
            best, share = (there, here), inside
        if inside >= 0.9:
            break
    assert best is not None
    there, here = best
    changed, mask = image.copy(), np.zeros(image.shape, dtype=bool)
    changed[there] *= 1 + contrast * soft[here]
    mask[there] = solid[here]
    return changed, mask


def _soft(shape: Shape, zooms: tuple[float, float, float], edge: float, generator: np.random.Generator) -> np.ndarray:
    """The lesion on the image's grid, 0 to 1, blurred, its middle anywhere within a voxel."""
    own, new = np.asarray(shape.zooms), np.asarray(zooms)
    volume = shape.volume[::-1] if generator.random() < 0.5 else shape.volume
    # Blurred at least by half a new voxel, so that sampling skips nothing.
    sigma = np.maximum(edge, new / 2) / own
    margin = np.ceil(3 * sigma).astype(int)
    fine = ndimage.gaussian_filter(np.pad(volume.astype(np.float32), [(m, m) for m in margin]), sigma)
    cells = np.ceil(np.array(fine.shape) * own / new).astype(int) + 1
    first = generator.uniform(-0.5, 0.5, 3) * new / own
    axes = [first[i] + np.arange(cells[i]) * new[i] / own[i] for i in range(3)]
    coarse = ndimage.map_coordinates(fine, np.meshgrid(*axes, indexing="ij"), order=1)
    lesion: np.ndarray = coarse / coarse.max()
    return lesion


def _overlap(
    start: np.ndarray, inner: tuple[int, ...], outer: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where a box that starts at ``start`` lies in the outer one, and which part of it does."""
    low, high = np.maximum(start, 0), np.minimum(start + inner, outer)
    there = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    here = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
    return there, here
