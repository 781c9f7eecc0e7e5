"""Molecules by RDKit: SMILES to graphs and back to one spelling, scaffolds, fingerprints and descriptors."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from torch_geometric.data import Data
from torch_geometric.utils.smiles import from_rdmol

from tasks.data.problems import BadInput
from tasks.extras import require

require("rdkit", extra="chem", what="tasks.graph.chemistry")

from rdkit import Chem, rdBase  # noqa: E402
from rdkit.Chem import Descriptors, rdFingerprintGenerator  # noqa: E402
from rdkit.Chem.Scaffolds import MurckoScaffold  # noqa: E402


@lru_cache(maxsize=2**15)
def parse(smiles: str) -> Any:
    """The molecule of a SMILES, not to be changed.

    Raises:
        BadInput: If it is none, with RDKit's reason.
    """
    with _said() as lines:
        molecule = Chem.MolFromSmiles(smiles)
    if molecule is None or not molecule.GetNumAtoms():
        why = next((line for line in lines if line), "it has no atoms").partition(" for input: ")[0]
        raise BadInput(f"does not parse as SMILES ({why}); correct it or leave it out")
    return molecule


def molecule_graph(smiles: str) -> Data:
    """The graph of a SMILES, as PyG's `from_smiles` makes it, with `smiles` and the atoms' symbols as `names`.

    Raises:
        BadInput: If it is none, or has an atom or a bond of a kind that PyG does not know.

    Example:
        >>> molecule_graph("CCO")
        Data(x=[3, 9], edge_index=[2, 4], edge_attr=[4, 3], smiles='CCO', names=[3])
    """
    molecule = parse(smiles)
    try:
        graph = from_rdmol(molecule)
    except ValueError as error:
        raise BadInput(f"has an atom or a bond that PyG's from_smiles does not know ({error}); leave it out") from error
    graph.smiles, graph.names = smiles, [atom.GetSymbol() for atom in molecule.GetAtoms()]
    return graph


def canonical(smiles: str) -> str:
    """The one spelling of a molecule, whatever SMILES it was given by."""
    return str(Chem.MolToSmiles(parse(smiles)))


def scaffold_split(smiles: Sequence[str], train: float = 0.8, val: float = 0.1) -> dict[str, list[int]]:
    """Divide molecules so that no Bemis-Murcko scaffold (Bemis and Murcko 1996) is in two parts; nothing is drawn.

    Groups of one scaffold go to training, from large to small, while it has room, then to validation, then to the
    test (Wu et al., MoleculeNet, 2018). Of groups of equal size the one whose first molecule stands last comes first:
    files that are sorted by class would otherwise give a test part of one class.

    Args:
        smiles: The molecules.
        train: Share of the training part.
        val: Share of the validation part.

    Example:
        >>> scaffold_split(["c1ccccc1C", "c1ccccc1CC", "C1CC1", "CCO"], train=0.5, val=0.25)
        {'train': [0, 1], 'val': [3], 'test': [2]}
    """
    groups: dict[str, list[int]] = {}
    for number, one in enumerate(smiles):
        groups.setdefault(MurckoScaffold.MurckoScaffoldSmiles(mol=parse(one), includeChirality=False), []).append(
            number
        )
    room = {"train": train * len(smiles), "val": (train + val) * len(smiles)}
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for group in sorted(groups.values(), key=lambda group: (len(group), group[0]), reverse=True):
        if len(parts["train"]) + len(group) <= room["train"]:
            parts["train"] += group
        elif len(parts["train"]) + len(parts["val"]) + len(group) <= room["val"]:
            parts["val"] += group
        else:
            parts["test"] += group
    return {part: sorted(numbers) for part, numbers in parts.items()}


@lru_cache(maxsize=100_000)
def fingerprint(smiles: str, radius: int = 2, size: int = 2048) -> np.ndarray:
    """Morgan's fingerprint (Rogers and Hahn 2010): which neighbourhoods of atoms there are, ``size`` zeros and ones."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=radius, fpSize=size)
    found: np.ndarray = generator.GetFingerprintAsNumPy(parse(smiles))
    return found


@lru_cache(maxsize=100_000)
def descriptors(smiles: str) -> np.ndarray:
    """All of RDKit's descriptors of a molecule (some 200 numbers); zero for one that is not defined."""
    with _said():
        found: dict[str, float] = Descriptors.CalcMolDescriptors(parse(smiles), missingVal=0.0)
    values: np.ndarray = np.nan_to_num(np.array([*found.values()], dtype=np.float64), posinf=0.0, neginf=0.0)
    return values.clip(-1e6, 1e6)


@contextmanager
def _said() -> Iterator[list[str]]:
    """What RDKit says meanwhile, which would otherwise go to the terminal."""
    lines: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage().strip()
            lines.append(text.partition("] ")[2] if text.startswith("[") else text)

    rdBase.LogToPythonLogger()
    logger, listener = logging.getLogger("rdkit"), Listener()
    before = logger.propagate, logger.handlers[:]
    logger.handlers[:], logger.propagate = [listener], False
    try:
        yield lines
    finally:
        logger.propagate, logger.handlers[:] = before[0], before[1]
        rdBase.LogToCppStreams()
