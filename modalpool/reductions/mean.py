"""Mean and sum: the two ends of the size law."""

from __future__ import annotations

import torch
from torch import Tensor

from modalpool.reductions.base import Count, Partial, Reduction, State
from modalpool.sets import Sets

__all__ = ["Mean", "Sum", "join_means"]


def scale_gradient(z: Tensor, factor: Tensor) -> Tensor:
    """``z`` to the bit, with gradients multiplied by ``factor``, at every order and in forward mode."""
    fixed = z.detach()
    return torch.where(z.isfinite(), fixed - factor * (fixed - z), z)  # z - 0; infinities have no difference


def join_means(a: Tensor, b: Tensor, m: Count, n: Count) -> Tensor:
    """Join the means of two chunks in proportion to their counts."""
    size = (m + n).size()
    return torch.where(m() > 0, m() / size * a, 0.0) + torch.where(n() > 0, n() / size * b, 0.0)


class Mean(Reduction):
    """Average the elements of each set (global average pooling; Lin, Chen and Yan 2014, section 3.2).

    ``z = Σ aᵢ xᵢ / N`` with ``N = Σ aᵢ``; every multiplicity aᵢ is one unless ``mask`` or ``weight`` says otherwise.

    The gradient that reaches one element is g / N. At N = 128³ in float16 that is exactly zero, so ``grad_scale`` can
    rescale it; the forward result does not change by a bit.

    Args:
        grad_scale: Gradient of the mean for one element: "mean" = g / N (the true one), "sqrt" = g / √N, "sum" = g,
            or a number R = g / R, as if the set had R elements.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> x = torch.arange(6.0).reshape(1, 1, 6).requires_grad_()
        >>> Pool("b c [t]", "mean", grad_scale="sum")(x).backward()
        >>> x.grad[0, 0, 0].item()
        1.0
    """

    def __init__(self, *, grad_scale: float | str = "mean") -> None:
        super().__init__()
        if isinstance(grad_scale, str) and grad_scale not in ("mean", "sqrt", "sum"):
            raise ValueError(f"grad_scale: expected 'mean', 'sqrt', 'sum' or a positive number, got {grad_scale!r}")
        if not isinstance(grad_scale, str) and not grad_scale > 0:
            raise ValueError(f"grad_scale: expected a positive number, got {grad_scale}")
        self.grad_scale = grad_scale

    def in_chunks(self, x: Tensor, sets: Sets) -> bool:
        """See `Reduction.in_chunks`; a sum reads each value once."""
        return False

    def partial(self, x: Tensor, sets: Sets, count: Count, *, with_weights: bool = False) -> Partial:
        return (sets.mean(x),), sets.uniform(x) if with_weights else None

    def merge(self, a: State, b: State, m: Count, n: Count) -> State:
        return (join_means(a[0], b[0], m, n),)

    def finalize(self, state: State, count: Count) -> Tensor:
        """See `Reduction.finalize`; only a rescaled gradient asks for N."""
        if self.grad_scale == "mean":
            return state[0]
        if self.grad_scale == "sqrt":
            return scale_gradient(state[0], count.size().sqrt())
        return scale_gradient(state[0], count() if isinstance(self.grad_scale, str) else count() / self.grad_scale)


class Sum(Reduction):
    """Add up the elements of each set: ``z = Σ aᵢ xᵢ``. Counting needs it; anything else is better off with a mean.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> Pool("[n] c", "sum")(torch.ones(5, 1), index=torch.tensor([0, 0, 1, 1, 1])).tolist()
        [[2.0], [3.0]]
    """

    def in_chunks(self, x: Tensor, sets: Sets) -> bool:
        """See `Reduction.in_chunks`; it reads each value once."""
        return False

    def partial(self, x: Tensor, sets: Sets, count: Count, *, with_weights: bool = False) -> Partial:
        weight = sets.uniform(x) * sets.expand(count()) if with_weights else None
        return (sets.sum(x),), weight

    def merge(self, a: State, b: State, m: Count, n: Count) -> State:
        return (a[0] + b[0],)

    def finalize(self, state: State, count: Count) -> Tensor:
        return state[0]
