"""A volume with its map over it: three orthogonal slices through the voxel that says most."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

PLANES = (("sagittal", "posterior - anterior", "inferior - superior"),
          ("coronal", "left - right", "inferior - superior"),
          ("axial", "left - right", "posterior - anterior"))  # fmt: skip


def draw_slices(
    image: Tensor,
    contribution: Tensor,
    path: Path,
    *,
    title: str,
    unit: str,
    zooms: tuple[float, float, float] = (1.0, 1.0, 1.0),
    truth: Tensor | None = None,
) -> Path:
    """Draw the image in grey, the map over it in red (for) and blue (against), transparent where it is near zero.

    Args:
        image: ``(D, H, W)``, axes right, anterior, superior.
        contribution: ``(D, H, W)``, signed; colours are centred on zero.
        path: The PNG to write.
        title: Above the slices.
        unit: What the map's values are, beside the colour bar.
        zooms: Voxel size in mm along each axis.
        truth: ``(D, H, W)`` bool; its outline is drawn where it is known.

    Returns:
        ``path``.
    """
    grey, signed = image.float().cpu().numpy(), contribution.float().cpu().numpy()
    peak = np.unravel_index(np.abs(signed).argmax(), signed.shape)
    limit = max(float(np.abs(signed).max()), 1e-12)
    low, high = np.percentile(grey, [0.5, 99.5])
    extents = [n * z for n, z in zip(grey.shape, zooms, strict=True)]

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a screen and without touching the user's pyplot state
    panels = figure.subplots(1, 3)
    for axis, (panel, (name, right, up)) in enumerate(zip(panels, PLANES, strict=True)):
        others = [extents[i] for i in range(3) if i != axis]
        common = {"origin": "lower", "extent": (0, others[0], 0, others[1])}
        cut = lambda volume, axis=axis: np.take(volume, peak[axis], axis).T  # noqa: E731
        panel.imshow(cut(grey), cmap="gray", vmin=low, vmax=high, **common)
        # Opaque where it matters: a tenth of the peak is invisible, half of it fully shown.
        opacity = np.clip((np.abs(cut(signed)) / limit - 0.1) / 0.4, 0, 0.75)
        shown = panel.imshow(
            cut(signed), cmap="RdBu_r", vmin=-limit, vmax=limit, alpha=opacity, interpolation="bilinear", **common
        )
        if truth is not None and cut(truth.cpu().numpy()).any():
            panel.contour(cut(truth.cpu().numpy()).astype(float), [0.5], colors="lime", linewidths=1, **common)
        panel.set(title=f"{name}, slice {peak[axis]}", xlabel=f"{right} / mm", ylabel=f"{up} / mm")
    bar = figure.colorbar(shown, ax=panels, label=unit, shrink=0.9)
    bar.solids.set_alpha(1)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    return path
