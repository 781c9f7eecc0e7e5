"""Two regularisers: views of a sample are to agree, and samples or their pooled vectors are mixed in pairs."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import mse_loss


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


def own_share(strength: float) -> float:
    """Draw λ ~ Beta(α, α), or 1 - λ if that is larger: a sample's own share, whose target it is measured against.

    Args:
        strength: α.
    """
    share = float(torch.distributions.Beta(strength, strength).sample())
    return max(share, 1 - share)


class Mixture(NamedTuple):
    """Samples mixed in pairs, λ xᵢ + (1 - λ) xⱼ (mixup, Zhang et al. 2018, arXiv 1710.09412, equation 1).

    Mixed behind the pool it is manifold mixup (Verma et al. 2019, arXiv 1806.05236) at one place: behind a linear head
    the mixed logit is the mixture of the logits; behind a linear encoder with a mean, too, so is that of mixed inputs.
    """

    share: float
    """λ."""
    partner: Tensor
    """j of each sample, (B,)."""

    def mix(self, x: Tensor) -> Tensor:
        """Mix what begins with the samples' axis."""
        return self.share * x + (1 - self.share) * x[self.partner]

    def loss(self, measure: Callable[[Tensor, Tensor], Tensor], logits: Tensor, target: Tensor) -> Tensor:
        """The same mixture of the losses against both samples' targets."""
        return self.share * measure(logits, target) + (1 - self.share) * measure(logits, target[self.partner])
