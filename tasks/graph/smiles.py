"""SMILES as what is said of a molecule, written anew each time, so that no string is known by its form."""

from typing import Any

from tasks.data.base import Sample
from tasks.data.texts import Texts


class RandomSmiles(Texts):
    """One of a molecule's SMILES, drawn by RDKit (Bjerrum 2017, arXiv 1703.07076).

    Example:
        >>> from tasks.graph.chemistry import canonical, molecule_graph
        >>> text = RandomSmiles().say(molecule_graph("CC(=O)Oc1ccccc1"), Sample("phenyl acetate"), 3)
        >>> canonical(text)
        'CC(=O)Oc1ccccc1'
    """

    drawn = True

    def say(self, item: Any, sample: Sample, seed: int) -> str:
        """Write it."""
        from rdkit import Chem

        from tasks.graph.chemistry import parse

        (text,) = Chem.MolToRandomSmilesVect(parse(item.smiles), 1, randomSeed=1 + seed % (2**31 - 2))
        return str(text)
