"""How much each class weighs in a loss, so that scarce ones count as much as others."""

from typing import Any

import torch
from torch import Tensor


def class_weights(spec: dict[str, Any]) -> Tensor | None:
    """Weights inverse to how often a class occurs among the training samples; None in regression, which has none.

    Args:
        spec: What the data say of themselves (`tasks.data.base.PoolingData.spec`).

    Returns:
        (K,) weights of classes, or of a label's, or two classes', positive samples against negative ones.

    Example:
        >>> class_weights({"kind": "multiclass", "class_counts": [30, 10]}), class_weights({"kind": "regression"})
        (tensor([0.6667, 2.0000]), None)
    """
    if spec["kind"] == "regression":
        return None
    counts = torch.tensor(spec["class_counts"], dtype=torch.float)
    if spec["kind"] == "binary":
        return counts[:1] / counts[1:]
    if spec["kind"] == "multilabel":
        known = torch.tensor(spec.get("known_counts", spec["train_size"]))
        return (known - counts) / counts.clamp(min=1)
    return counts.sum() / (len(counts) * counts)
