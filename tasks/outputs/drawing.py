"""What all pictures share: a canvas without a screen, colours centred on zero, a bar that says what they mean."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import ScalarFormatter

COLOURS = "RdBu_r"  # red speaks for, blue against, white is zero
TRUTH = "#00c000"  # outlines of what is known to decide
DPI = 110


def canvas(width: float, height: float) -> Figure:
    """A figure in inches that draws without a screen and without touching the user's pyplot state."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=0.07))
    FigureCanvasAgg(figure)
    return figure


def centred(values: np.ndarray, share: float = 1.0) -> ScalarMappable:
    """Colours from blue through white at 0 to red; a map of zeros is white.

    Args:
        values: What is to be coloured.
        share: Share of the values, by magnitude, that the colours tell apart; the others get the darkest.
    """
    limit = float(np.quantile(np.abs(values), share)) if values.size else 0.0
    limit = limit or float(np.abs(values).max(initial=0)) or 1.0
    return ScalarMappable(Normalize(-limit, limit), COLOURS)


def bar(figure: Figure, scale: ScalarMappable, axes: Axes | list[Axes], label: str, **options: Any) -> None:
    """Put a colour bar beside the axes; small numbers share one power of ten."""
    numbers = ScalarFormatter(useMathText=True)
    numbers.set_powerlimits((-2, 3))
    made = figure.colorbar(scale, ax=axes, format=numbers, **options)
    made.set_label(label, size=9)
    made.ax.yaxis.set_offset_position("left")
    made.ax.axhline(0, color="0.3", lw=0.6)


def outline_legend(figure: Figure) -> None:
    """Say below the picture what the outlines are."""
    figure.legend(handles=[Line2D([], [], color=TRUTH, label="truth")], loc="outside lower center", frameon=False)


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG."""
    figure.savefig(path, dpi=DPI)
    return path
