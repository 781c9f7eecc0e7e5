"""The loss of two towers."""

import torch
from torch import Tensor
from torch.nn import functional

from tasks.pretrain.gather import gathered


def info_nce(a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE (Radford et al. 2021, CLIP, figure 3), over the batches of all processes.

    ``½ Σ_i -log softmax_j(s a_i·b_j)_i / B + ½ Σ_i -log softmax_j(s b_i·a_j)_i / B`` with a and b of length one.

    Args:
        a: (B, D) vectors of one tower.
        b: (B, D) vectors of the other, of the same pairs.
        scale: s, one over the temperature.

    Example:
        >>> info_nce(torch.eye(4), torch.eye(4), torch.tensor(1.0)).item()  # log(e + 3) - 1
        0.7436...
    """
    a, b = (gathered(functional.normalize(x.float(), dim=-1)) for x in (a, b))
    scores = scale * a @ b.T
    right = torch.arange(len(a), device=a.device)
    return (functional.cross_entropy(scores, right) + functional.cross_entropy(scores.T, right)) / 2
