"""Losses without labels, as in their papers: contrast, self-distillation of samples and of elements, reconstruction."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from tasks.pretrain.gather import gathered


def nt_xent(first: Tensor, second: Tensor, temperature: float = 0.2) -> Tensor:
    """Normalised temperature-scaled cross-entropy: a sample's other view is to be nearer than any other sample's view.

    Chen et al. 2020 (SimCLR, arXiv 2002.05709), equation 1, averaged over all 2B views:

        ℓ(i, j) = -log( exp(sim(zᵢ, zⱼ) / τ) / Σ_{k ≠ i} exp(sim(zᵢ, zₖ) / τ) ),  sim the cosine.

    Under DDP the other processes' samples are among the others (`gathered`), with their gradient.

    Args:
        first: One view of each sample, (B, D).
        second: Another, (B, D).
        temperature: τ.

    Returns:
        A scalar, float32.

    Example:
        >>> z = torch.eye(4)
        >>> nt_xent(z, z, 0.1), nt_xent(z, z.flip(0), 0.1)  # right pairs, wrong pairs
        (tensor(0.0003), tensor(10.0003))
    """
    with torch.autocast(first.device.type, enabled=False):
        z = functional.normalize(torch.cat([gathered(first.float()), gathered(second.float())]), dim=1)
        scores = (z @ z.T / temperature).fill_diagonal_(-torch.inf)  # (2B, 2B)
        partner = torch.arange(len(z), device=z.device).roll(len(z) // 2)
        return functional.cross_entropy(scores, partner)


def dino_loss(teacher: Tensor, student: Tensor, temperature: float = 0.1) -> Tensor:
    """Cross-entropy of what the student says of a view with what the teacher says of another view of the sample.

    Caron et al. 2021 (DINO, arXiv 2104.14294), equation 3, averaged over the pairs of different views and samples:

        -Σₖ Pₜ(x)ₖ log Pₛ(x')ₖ,  Pₛ = softmax(s / τ)

    Args:
        teacher: Its probabilities of T views, (T, B, K), as `sinkhorn` or `Centre` makes them; no gradient goes there.
        student: Logits of S views, (S, B, K), the first T of which are the teacher's.
        temperature: τ of the student.

    Returns:
        A scalar, float32.

    Raises:
        ValueError: If there is no pair of different views.

    Example:
        >>> says = torch.eye(2)[None].expand(2, 2, 2)  # both views, two samples, two prototypes
        >>> dino_loss(says, 20 * says) < 1e-6
        tensor(True)
    """
    same = min(len(teacher), len(student))
    pairs = len(teacher) * len(student) - same
    if not pairs:
        raise ValueError(f"expected two views or more, got {len(student)} of the student; a view is no pair of its own")
    q = (student.float() / temperature).log_softmax(-1)
    losses = -torch.einsum("tbk,sbk->ts", teacher.detach().float(), q)
    return (losses.sum() - losses.diagonal().sum()) / (pairs * teacher.shape[1])


def ibot_loss(teacher: Tensor, student: Tensor, sample: Tensor, samples: int, temperature: float = 0.1) -> Tensor:
    """Cross-entropy of the student's word on an element that it does not see with the teacher's, who sees it.

    Zhou et al. 2022 (iBOT, arXiv 2111.07832), equation 2, as DINOv2 averages it: first over the masked elements Mᵦ of a
    sample, then over the samples,

        -(1/B) Σᵦ (1/|Mᵦ|) Σ_{i in Mᵦ} Σₖ Pₜ(xᵢ)ₖ log Pₛ(xᵢ)ₖ.

    Args:
        teacher: Its probabilities of the M masked elements of all samples, (M, K).
        student: Logits of the same elements, (M, K).
        sample: Which sample each is of, (M,).
        samples: B; those without a masked element add 0.
        temperature: τ of the student.

    Returns:
        A scalar, float32.

    Example:
        >>> says = torch.eye(3)
        >>> ibot_loss(says, 20 * says, torch.tensor([0, 0, 1]), 2) < 1e-6
        tensor(True)
    """
    q = (student.float() / temperature).log_softmax(-1)
    return mean_of_means(-(teacher.detach().float() * q).sum(-1), sample, samples)


def reconstruction_loss(
    made: Tensor, wanted: Tensor, sample: Tensor, samples: int, kind: Literal["mse", "cosine"] = "mse"
) -> Tensor:
    """How far features of hidden elements, guessed from the others, are from what they were.

    - "mse": ‖x̂ᵢ - xᵢ‖² / D (He et al. 2022, MAE, arXiv 2111.06377, section 3).
    - "cosine": (1 - cos(x̂ᵢ, xᵢ))^2, GraphMAE's scaled cosine error with γ = 2 (Hou et al. 2022, arXiv 2205.10803,
      equation 4), which one-hot features need: their squared error is small whatever is guessed.

    Averaged over the hidden elements of a sample, then over the samples.

    Args:
        made: Guessed features, (M, D).
        wanted: Their true ones, (M, D).
        sample: Which sample each is of, (M,).
        samples: Their number.
        kind: The measure.

    Example:
        >>> x = torch.eye(2)
        >>> one = torch.zeros(2, dtype=torch.long)
        >>> reconstruction_loss(2 * x, x, one, 1, "cosine"), reconstruction_loss(2 * x, x, one, 1)
        (tensor(0.), tensor(0.5000))
    """
    made, wanted = made.float(), wanted.float()
    if kind == "mse":
        errors = (made - wanted).square().mean(-1)
    else:
        errors = (1 - functional.cosine_similarity(made, wanted, dim=-1)).square()
    return mean_of_means(errors, sample, samples)


def mean_of_means(values: Tensor, sample: Tensor, samples: int) -> Tensor:
    """Mean over each sample's elements, then over samples; a sample without elements counts as 0.

    Example:
        >>> mean_of_means(torch.tensor([1.0, 3.0, 6.0]), torch.tensor([0, 0, 1]), 2)
        tensor(4.)
    """
    counts = torch.bincount(sample, minlength=samples).clamp(min=1)
    return (values / counts[sample]).sum() / samples
