"""A volume with its map over it: three orthogonal slices through the voxel that says most."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.patheffects import withStroke
from torch import Tensor

from tasks.outputs.drawing import TRUTH, bar, canvas, centred, outline_legend, save

# Name of the plane, what is at the ends of its horizontal axis, and of its vertical one.
PLANES = (("sagittal", "PA", "IS"), ("coronal", "LR", "IS"), ("axial", "LR", "PA"))
_HEIGHT = 2.5  # inches of the tallest slice
_EDGE = [withStroke(linewidth=2, foreground="black")]  # around letters, for bright images


def draw_slices(
    images: Mapping[str, Tensor],
    contribution: Tensor,
    path: Path,
    *,
    title: str,
    unit: str,
    affine: Tensor,
    truth: Tensor | None = None,
) -> Path:
    """Draw images in grey, the map over each in red (for) and blue (against), transparent where it is near zero.

    Thin lines mark where the other two slices are. Places are in millimetres, as viewers show them; in an image that is
    turned against the scanner's axes they hold at the peak.

    Args:
        images: Sequences of one subject by their names, ``(D, H, W)``, axes right, anterior, superior; a row each.
        contribution: ``(D, H, W)``, signed; colours are centred on zero.
        path: The PNG to write.
        title: Above the slices.
        unit: What the map's values are, beside the colour bar.
        affine: ``(4, 4)``, voxels to millimetres.
        truth: ``(D, H, W)`` bool; its outline is drawn where it is known.

    Returns:
        ``path``.
    """
    greys = {name: image.float().cpu().numpy() for name, image in images.items()}
    signed = contribution.float().cpu().numpy()
    world = affine.cpu().double().numpy()
    peak = np.array(np.unravel_index(np.abs(signed).argmax(), signed.shape))
    zooms = np.linalg.norm(world[:3, :3], axis=0)
    place, sizes = world[:3] @ [*peak, 1], zooms * signed.shape
    low_mm = place - (peak + 0.5) * zooms  # where the axes start, if the image is not turned
    high_mm = low_mm + sizes
    scale = centred(signed)
    known = np.zeros(signed.shape, bool) if truth is None else truth.cpu().numpy()
    widths = sizes[[1, 0, 0]]  # of the horizontal axes
    tallest = max(sizes[1], sizes[2])
    width = float(np.clip(_HEIGHT * sum(widths) / tallest, 5, 12)) + 3.4
    figure = canvas(width, _HEIGHT * len(greys) + 1.8)
    rows = figure.subplots(len(greys), 3, width_ratios=widths, squeeze=False)
    outlined = False
    for (sequence, grey), panels in zip(greys.items(), rows, strict=True):
        low, high = np.percentile(grey, [0.5, 99.5])
        last = panels is rows[-1]
        for axis, (panel, (name, right, up)) in enumerate(zip(panels, PLANES, strict=True)):
            across, along = (i for i in range(3) if i != axis)
            extent = (low_mm[across], high_mm[across], low_mm[along], high_mm[along])
            common: dict[str, Any] = {"origin": "lower", "extent": extent}
            grey_cut, signed_cut, known_cut = (np.take(one, peak[axis], axis).T for one in (grey, signed, known))
            panel.imshow(grey_cut, cmap="gray", vmin=low, vmax=high, **common)
            # Opaque where it matters: a tenth of the peak is invisible, half of it fully shown.
            strength = np.abs(signed_cut) / scale.norm.vmax
            panel.imshow(
                signed_cut, cmap=scale.cmap, norm=scale.norm, alpha=np.clip((strength - 0.1) / 0.4, 0, 0.75),
                interpolation="bilinear", **common,
            )  # fmt: skip
            for line, other in ((panel.axvline, across), (panel.axhline, along)):
                line(place[other], color="white", lw=0.5, alpha=0.6)
            if known_cut.any():
                panel.contour(known_cut.astype(float), [0.5], colors=TRUTH, linewidths=1.2, **common)
                outlined = True
            for letter, x, y in zip(right + up, (0.03, 0.97, 0.5, 0.5), (0.5, 0.5, 0.03, 0.97), strict=True):
                side = {0.03: ("left", "bottom"), 0.5: ("center", "center"), 0.97: ("right", "top")}
                panel.text(x, y, letter, color="white", size=9, weight="bold", transform=panel.transAxes,
                           ha=side[x][0], va=side[y][1], path_effects=_EDGE)  # fmt: skip
            if panels is rows[0]:
                panel.set_title(f"{name}, {'xyz'[axis]} = {number_of(place[axis])} mm", fontsize=10)
            if last:
                panel.set_xlabel("mm")
            if axis == 0:
                panel.set_ylabel(f"{sequence}\nmm" if len(greys) > 1 else "mm")
    bar(figure, scale, list(rows.flat), unit, pad=0.015, aspect=15 * len(greys))
    if outlined:
        outline_legend(figure)
    figure.suptitle(title, fontsize=10)
    return save(figure, path)


def paint_slices(
    images: Mapping[str, Tensor], panels: Mapping[str, Tensor], path: Path, *, title: str, affine: Tensor
) -> Path:
    """Draw three slices through the middle of images in grey, and below them the colours of their voxels.

    Args:
        images: Sequences of one subject by their names, ``(D, H, W)``, axes right, anterior, superior.
        panels: By name ``(D, H, W, 3)``, red, green and blue from 0 to 1.
        path: The PNG to write.
        title: Above the slices.
        affine: ``(4, 4)``, voxels to millimetres, whose sizes give the slices their shape.

    Returns:
        ``path``.
    """
    zooms = np.linalg.norm(affine.cpu().double().numpy()[:3, :3], axis=0)
    rows = {name: _grey(image.float().cpu().numpy()) for name, image in images.items()}
    first = next(iter(rows.values()))
    rows |= {name: colours.cpu().numpy() for name, colours in panels.items()}
    widths = (zooms * first.shape[:3])[[1, 0, 0]]
    figure = canvas(8, 0.6 + 2.3 * len(rows))
    lines = figure.subplots(len(rows), 3, width_ratios=widths, squeeze=False)
    for (row, colours), line in zip(rows.items(), lines, strict=True):
        for axis, (panel, (name, _, _)) in enumerate(zip(line, PLANES, strict=True)):
            across, along = (i for i in range(3) if i != axis)
            cut = np.take(colours, colours.shape[axis] // 2, axis).swapaxes(0, 1)
            panel.imshow(cut, origin="lower", aspect=zooms[along] / zooms[across])
            panel.set(xticks=[], yticks=[])
            if axis == 0:
                panel.set_ylabel(row)
            if colours is first:
                panel.set_title(name, fontsize=10)
    figure.suptitle(title, fontsize=10)
    return save(figure, path)


def _grey(image: np.ndarray) -> np.ndarray:
    low, high = np.percentile(image, [0.5, 99.5])
    grey: np.ndarray = ((image - low) / max(high - low, 1e-12)).clip(0, 1)
    return grey[..., None].repeat(3, -1)


def number_of(millimetres: float) -> str:
    """A coordinate to the millimetre, with a proper minus."""
    return f"{millimetres:.0f}".replace("-0", "0").replace("-", "−")
