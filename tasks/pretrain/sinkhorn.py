"""How a teacher's logits become probabilities that use all prototypes: Sinkhorn and Knopp's, or a running centre."""

import torch
from torch import Tensor, nn

from tasks.pretrain.gather import largest, summed


@torch.no_grad()
def sinkhorn(logits: Tensor, temperature: float = 0.05, iterations: int = 3) -> Tensor:
    """Probabilities of which every prototype gets the same share of the batch, by Sinkhorn and Knopp's iterations.

    Caron et al. 2020 (SwAV, arXiv 2006.09882), section 3.1: Q = diag(u) exp(s / τ) diag(v), u and v such that each of
    K prototypes sums to n / K over the n rows and each row to 1; Ruan et al. 2022 for DINO, and DINOv2. The last half
    step is the rows'. In float32, and as logarithms, so that logits of a thousand and more neither overflow nor leave a
    prototype with nothing to divide by. Under DDP the columns are those of the joined batch.

    Args:
        logits: (n, K).
        temperature: τ.
        iterations: Pairs of half steps.

    Example:
        >>> p = sinkhorn(torch.tensor([[1000.0, 0.0], [999.0, 0.0]]), 1.0)
        >>> p.sum(1), p.sum(0).round(decimals=2)
        (tensor([1., 1.]), tensor([1., 1.]))
    """
    with torch.autocast(logits.device.type, enabled=False):
        q = logits.float() / temperature
        for _ in range(iterations):
            q = (q - _log_sums(q)).log_softmax(1)
        return q.exp()


def _log_sums(q: Tensor) -> Tensor:
    """The logarithm of the sum of exp over the rows of all processes, (K,)."""
    top = largest(q.amax(0)).clamp(min=torch.finfo(q.dtype).min)
    return summed((q - top).exp().sum(0)).log() + top


class Centre(nn.Module):
    """Softmax of logits less their running mean: no prototype is everybody's (DINO, equation 4).

        c ← m c + (1 - m) mean(logits),   p = softmax((logits - c) / τ)

    Args:
        prototypes: K.
        momentum: m.

    Shape:
        (n, K) to (n, K).
    """

    centre: Tensor

    def __init__(self, prototypes: int, momentum: float = 0.9):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("centre", torch.zeros(prototypes))

    @torch.no_grad()
    def forward(self, logits: Tensor, temperature: float) -> Tensor:
        """Probabilities by the centre of earlier batches; in training it then moves to this batch's."""
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.float()
            p = ((logits - self.centre) / temperature).softmax(-1)
            if self.training and len(logits):
                total, count = summed(logits.sum(0)), summed(logits.new_tensor(float(len(logits))))
                self.centre.lerp_(total / count, 1 - self.momentum)
            return p
