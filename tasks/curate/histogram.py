"""How near samples are, drawn, with the similarity from which on they are too near."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tasks.outputs.drawing import canvas, save


def draw_histogram(path: Path, values: Mapping[str, np.ndarray], threshold: float | None) -> Path:
    """Draw similarities by name into a PNG, and a line at the threshold."""
    figure = canvas(8, 3)
    axes = figure.subplots()
    for name, numbers in values.items():
        finite = numbers[np.isfinite(numbers)]
        bins = np.linspace(
            finite.min(initial=0) - 0.01, finite.max(initial=0) + 0.01, 60
        ).tolist()  # also where all are equal
        axes.hist(finite, bins, histtype="step", density=True, label=f"{name} ({len(finite)})")
    if threshold is not None:
        axes.axvline(threshold, color="0.2", linestyle="--", label=f"threshold {threshold:.3f}")
    axes.set(xlabel="cosine similarity", ylabel="density")
    axes.legend(fontsize=8)
    return save(figure, path)
