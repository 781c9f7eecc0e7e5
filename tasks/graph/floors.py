"""What a graph says without a network: how many nodes have which label, degree and neighbourhood."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from tasks.graph.colours import weisfeiler_leman
from tasks.task.modality import Counts, ForForest

ROUNDS = 3  # of Weisfeiler and Leman's refinement


def graph_floors(
    labels: Tensor, numbers: Tensor, edge_index: Tensor, ptr: Tensor, kinds: Tensor | None = None
) -> dict[str, Sequence[Any]]:
    """Describe each graph of a batch by counts of its nodes.

    Args:
        labels: (N, C) zeros and ones, what the nodes are; with no column all nodes are alike.
        numbers: (N, D), what else is known of the nodes.
        edge_index: (2, E); a node sees the nodes whose arcs end in it.
        ptr: (B + 1,), where each graph's nodes begin.
        kinds: (E,) int64, what the edges are, if that is known.

    Returns:
        By name, for each graph how many of its nodes have which label, which in-degree, and which of the colours of
        `ROUNDS` rounds (Shervashidze et al., JMLR 2011), without and with what the edges are; and the mean and standard
        deviation of each column of ``numbers``, (2 D,), if there are any.

    Example:
        >>> ring = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
        >>> found = graph_floors(torch.ones(4, 1), torch.ones(4, 0), ring, torch.tensor([0, 4]))
        >>> list(found), list(found["Weisfeiler-Leman"][0].values())
        (['node labels', 'degrees', 'Weisfeiler-Leman'], [4, 4, 4, 4])
    """
    colours = weisfeiler_leman(labels, edge_index, ROUNDS)
    floors: dict[str, Sequence[Any]] = {
        "node labels": _count(colours[:1], ptr),
        "degrees": _count([torch.bincount(edge_index[1], minlength=len(labels))], ptr),
        "Weisfeiler-Leman": _count(colours, ptr),
    }
    if kinds is not None:
        floors["Weisfeiler-Leman, edges"] = _count(weisfeiler_leman(labels, edge_index, ROUNDS, kinds), ptr)
    if numbers.shape[1]:
        parts = torch.split(numbers, ptr.diff().tolist())
        floors["mean+std of features"] = [torch.cat([one.mean(0), one.std(0, correction=0)]) for one in parts]
    return floors


def molecule_floors(smiles: Sequence[str]) -> dict[str, Sequence[Any]]:
    """What chemists hold a network against: forests on Morgan fingerprints and on descriptors. Without RDKit none.

    Args:
        smiles: The molecules.
    """
    try:
        from tasks.graph.chemistry import descriptors, fingerprint
    except ImportError:
        return {}
    return {
        "forest, fingerprints": ForForest(torch.from_numpy(fingerprint(one)).float() for one in smiles),
        "forest, descriptors": ForForest(torch.from_numpy(descriptors(one)) for one in smiles),
    }


def _count(words: Sequence[Tensor], ptr: Tensor) -> list[Counts]:
    """How often each word, an int64, is in each graph; each tensor, (N,), has one of each node."""
    columns = [each.tolist() for each in words]
    ends = pairwise(ptr.tolist())
    return [Counter(word for column in columns for word in column[first:last]) for first, last in ends]
