"""Draw a molecule as RDKit does, its atoms and bonds in the colours of what they added."""

from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, to_hex
from rdkit.Chem.Draw import rdMolDraw2D
from torch import Tensor

from tasks.graph.chemistry import parse
from tasks.outputs.drawing import COLOURS, centred

_WIDTH, _HEIGHT, _LINE = 560, 420, 17
_BAR = (512, 40, 14)  # left, top below the title, width
_LONGEST = 64  # letters of a line of the title
# Without the darkest shades, so that letters stand out.
_SHADES = LinearSegmentedColormap.from_list("shades", colormaps[COLOURS](np.linspace(0.12, 0.88, 64)))


def atoms_match(smiles: str, edge_index: Tensor, nodes: int) -> bool:
    """Whether the nodes of a graph are the atoms of a SMILES, in their order."""
    molecule = parse(smiles)
    bonds = {(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in molecule.GetBonds()}
    both = bonds | {(end, begin) for begin, end in bonds}
    return molecule.GetNumAtoms() == nodes and both == set(map(tuple, edge_index.t().tolist()))


def draw_molecule(smiles: str, values: Tensor, path: Path, *, title: str, label: str = "contribution") -> Path:
    """Draw a molecule into an SVG.

    An atom has the colour of its number, symmetric about 0; a bond, which adds nothing of its own, that of the mean of
    its two atoms'.

    Args:
        smiles: The molecule.
        values: (N,) signed number of each atom, in the order of the SMILES.
        path: File to write, with the ending ``.svg``.
        title: Over the picture, several lines.
        label: Beside the colour bar: what the numbers are.

    Returns:
        ``path``.
    """
    molecule = parse(smiles)
    numbers = values.detach().double().cpu().numpy()
    scale = ScalarMappable(centred(numbers).norm, _SHADES)
    atoms = {number: tuple(colour[:3]) for number, colour in enumerate(scale.to_rgba(numbers).tolist())}
    ends = {bond.GetIdx(): [bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()] for bond in molecule.GetBonds()}
    bonds = {number: tuple(scale.to_rgba(numbers[of].mean())[:3]) for number, of in ends.items()}
    lines = title.splitlines()
    top = _LINE * len(lines) + 12
    drawing = rdMolDraw2D.MolDraw2DSVG(_BAR[0] - 24, _HEIGHT)
    options: Any = drawing.drawOptions()
    options.useBWAtomPalette()
    options.highlightBondWidthMultiplier = 14
    options.clearBackground = False
    options.fixedBondLength = 42  # of small molecules: they do not fill the picture
    rdMolDraw2D.PrepareAndDrawMolecule(
        drawing, molecule, highlightAtoms=list(atoms), highlightAtomColors=atoms, highlightBonds=list(bonds),
        highlightBondColors=bonds, highlightAtomRadii=dict.fromkeys(atoms, 0.36),
    )  # fmt: skip
    drawing.FinishDrawing()
    inner = drawing.GetDrawingText().partition("?>")[2].replace("<svg ", f'<svg x="0" y="{top}" ', 1)
    limit = scale.get_clim()[1] or 1.0
    body = "\n".join([_title(lines), inner, _bar(top, limit, label)])
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top + _HEIGHT}" width="{_WIDTH}" '
        f'height="{top + _HEIGHT}" font-family="DejaVu Sans, sans-serif" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n',
        encoding="utf-8",
    )
    return path


def _title(lines: list[str]) -> str:
    shown = [line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…" for line in lines]
    return "\n".join(
        f'<text x="{_WIDTH / 2}" y="{_LINE * (number + 1)}" text-anchor="middle">{escape(line)}</text>'
        for number, line in enumerate(shown)
    )


def _bar(top: int, limit: float, label: str) -> str:
    """The colours from against to for, with what they mean."""
    left, above, width = _BAR
    above, height = above + top, _HEIGHT - 2 * above
    stops = "".join(
        f'<stop offset="{place:.2f}" stop-color="{to_hex(_SHADES(1 - place))}"/>' for place in np.linspace(0, 1, 11)
    )
    marks = "".join(
        f'<text x="{left - 4}" y="{above + height * place + 4:.1f}" font-size="10" text-anchor="end">{text}</text>'
        for place, text in ((0.0, f"{limit:.2g}"), (0.5, "0"), (1.0, f"−{limit:.2g}"))
    )
    middle = f"{left + width + 18} {above + height / 2}"
    return (
        f'<defs><linearGradient id="bar" x1="0" x2="0" y1="0" y2="1">{stops}</linearGradient></defs>'
        f'<rect x="{left}" y="{above}" width="{width}" height="{height}" fill="url(#bar)" stroke="#888"/>'
        f'<line x1="{left}" x2="{left + width}" y1="{above + height / 2}" y2="{above + height / 2}" stroke="#444"/>'
        f'{marks}<text transform="rotate(-90 {middle}) translate({middle})" text-anchor="middle">{escape(label)}</text>'
    )
