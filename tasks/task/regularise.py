"""Two regularisers behind the pool: views of a sample are to agree, and pooled vectors are mixed in pairs."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

if TYPE_CHECKING:
    from tasks.task.base import PoolingTask


def disagreement(kind: str, first: Tensor, second: Tensor) -> Tensor:
    """Mean squared difference of what is predicted of two views of the same samples.

    The consistency loss of the Π-model (Laine and Aila 2017, arXiv 1610.02242, algorithm 1; Sajjadi et al. 2016): it
    needs no targets, and both views get its gradient.

    Args:
        kind: Kind of the targets: probabilities are compared in classification, standardised values in regression.
        first: Logits of one view, (B, outputs).
        second: Logits of the other.

    Example:
        >>> disagreement("binary", torch.zeros(2, 1), torch.tensor([[0.0], [20.0]]))
        tensor(0.1250)
    """
    if kind == "regression":
        return mse_loss(first, second)
    if kind == "multiclass":
        return mse_loss(first.softmax(1), second.softmax(1))
    return mse_loss(first.sigmoid(), second.sigmoid())


def mix_pooled(task: "PoolingTask", batch: Any, strength: float) -> tuple[Tensor, Tensor]:
    """Logits and loss of a batch whose pooled vectors are mixed in pairs, z = λ zᵢ + (1 - λ) zⱼ, λ ~ Beta(α, α).

    Manifold mixup (Verma et al. 2019, arXiv 1806.05236) at one place, behind the pool. The loss is
    λ loss(zᵢ's target) + (1 - λ) loss(zⱼ's target). Behind a linear head the mixed logit is the mixture of the logits;
    behind a linear encoder with a mean, too, so is that of mixed inputs (Zhang et al. 2018).

    Args:
        task: The task.
        batch: A training batch.
        strength: α.
    """
    x, sets = task.encode(batch)
    z = task.pool(x, **sets)
    share = float(torch.distributions.Beta(strength, strength).sample())
    share = max(share, 1 - share)  # the larger share is a sample's own, whose target it is measured against
    partner = torch.randperm(len(z), device=z.device)
    if "mask" in sets and not task.pool.layout.axes(x.ndim).ragged:  # a mixture is as long as the longer of the two
        sets = {**sets, "mask": sets["mask"] | sets["mask"][partner]}
    logits = task.readout(sets)(share * z + (1 - share) * z[partner])
    target = task.target(batch)
    return logits, share * task.loss(logits, target) + (1 - share) * task.loss(logits, target[partner])
