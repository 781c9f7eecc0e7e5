"""How well pairs find each other: recall at k in both directions."""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor
from torchmetrics.functional.retrieval import retrieval_hit_rate

KS = (1, 5, 10)


def recall(scores: Tensor, keys: Sequence[Hashable]) -> dict[str, float]:
    """Share of the queries that have a right answer among the first k, by torchmetrics' hit rate.

    Args:
        scores: (N, N), sample by text, larger is nearer.
        keys: What a pair is: texts, or samples, that are the same are all right answers.

    Returns:
        ``R@1``, ``R@5`` and ``R@10`` of texts for a sample, and with ``back`` of samples for a text.

    Example:
        >>> recall(torch.eye(3).roll(1, 0), ["a", "b", "b"])["R@1"]
        0.333...
    """
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    kind = torch.tensor([numbers[key] for key in keys], device=scores.device)
    right = kind[:, None] == kind
    found = {}
    for suffix, table, true in (("", scores, right), (" back", scores.T, right.T)):
        for k in KS:
            hits = [retrieval_hit_rate(row, own, top_k=min(k, len(row))) for row, own in zip(table, true, strict=True)]
            found[f"R@{k}{suffix}"] = float(torch.stack(hits).mean())
    return found
