"""The spread of a batch's vectors: KoLeo."""

import torch
from torch import Tensor
from torch.nn import functional

from tasks.pretrain.gather import gathered


def koleo(x: Tensor, eps: float = 1e-8) -> Tensor:
    """The negative entropy of a batch's directions, by the distance from each to its nearest (Kozachenko and Leonenko).

    Sablayrolles et al. 2019 (arXiv 1806.03198), equation 5, on vectors of length 1, as DINOv2 uses it:

        -(1/n) Σᵢ log min_{j ≠ i} ‖xᵢ - xⱼ‖

    In float32 under any autocast: distances of half-precision vectors are rounding errors. Under DDP the neighbours are
    those of the joined batch.

    Args:
        x: (n, D), two rows or more.
        eps: Added to a distance, so that equal vectors have a finite loss.

    Example:
        >>> koleo(torch.eye(3)) + torch.tensor(2.0).sqrt().log()  # all of them are √2 apart
        tensor(0.)
    """
    with torch.autocast(x.device.type, enabled=False):
        x = functional.normalize(gathered(x.float()), dim=1)
        with torch.no_grad():
            nearest = (x @ x.T).fill_diagonal_(-torch.inf).argmax(1)
        distance = functional.pairwise_distance(x, x[nearest], eps=eps)
        return -(distance + eps).log().mean()
