"""What nodes and edges are called in pictures and tables."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from tasks.data.problems import BadInput
from tasks.graph.features import own_columns

_ELEMENTS = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb "
    "Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu "
    "Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db "
    "Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og"
)
SYMBOLS = _ELEMENTS.split()


class Kinds(NamedTuple):
    """What each edge of a graph is."""

    of: Tensor
    """(E,), a number from 0."""
    names: list[str]


def symbol(number: int) -> str:
    """The element of an atomic number; the number itself if there is none.

    Example:
        >>> symbol(6), symbol(17), symbol(0)
        ('C', 'Cl', '0')
    """
    return SYMBOLS[number - 1] if 0 < number <= len(SYMBOLS) else str(number)


def node_names(graph: Data, spec: dict[str, Any]) -> list[str] | None:
    """A short text for each node: its graph's own `names`, the elements of atomic numbers `z`, or what labels mean.

    Args:
        graph: A graph as a task gets it.
        spec: What the training's data said of itself.

    Returns:
        One text a node; None where nothing is known.
    """
    if "names" in graph:
        names: list[str] = graph.names
        return names
    if "z" in graph and graph.z is not None and graph.z.numel() == graph.num_nodes:
        return [symbol(number) for number in graph.z.flatten().int().tolist()]
    known = (spec.get("reading") or {}).get("node_names")
    if not known:
        return None
    end = spec["channels"] - own_columns(spec)
    return [known[column] for column in graph.x[:, end - len(known) : end].argmax(1).tolist()]


def edge_kinds(graph: Data, spec: dict[str, Any]) -> Kinds | None:
    """What the edges of a graph are, where each is one of a few kinds.

    Args:
        graph: A graph as a task gets it, whose labels are the last columns of `edge_attr`, one-hot.
        spec: What the training's data said of itself.

    Returns:
        None where edges are all alike, or have numbers or several labels.
    """
    if graph.edge_attr is None or not spec.get("edge_features"):
        return None
    known = (spec.get("reading") or {}).get("edge_names")
    columns = spec["features"].get("edges")
    if not known and columns and len(columns) == 1 and columns[0]:
        known = [str(value) for value in columns[0]]
    if not known or len(known) < 2:
        return None
    return Kinds(graph.edge_attr[:, -len(known) :].argmax(1).cpu(), list(known))


def read_names(path: str) -> dict[int, str]:
    """A file that says what labels mean: ``0 C`` or ``0,6`` a line; a whole number is an atomic one.

    Raises:
        BadInput: If there is none, or a line is not of that form.
    """
    file = Path(path)
    if not file.is_file():
        raise BadInput(f"node_names {path}: no such file; expected a line for each label, such as 0 C")
    names: dict[int, str] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        found = re.fullmatch(r"\s*(-?\d+)\s*[\s,;:=]\s*(\S.*?)\s*", line)
        if found is None:
            raise BadInput(f"node_names {path} line {number}: expected a label and its name, such as 0 C, got '{line}'")
        names[int(found[1])] = symbol(int(found[2])) if found[2].isdigit() else found[2]
    return names


def one_way(edge_index: Tensor) -> Tensor:
    """Which arcs have none that leads back, bool (E,)."""
    nodes = int(edge_index.max()) + 1 if edge_index.numel() else 0
    there, back = edge_index[0] * nodes + edge_index[1], edge_index[1] * nodes + edge_index[0]
    return ~torch.isin(back, there)
