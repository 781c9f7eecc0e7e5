"""Mean and sum: the two ends of the size law."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modalpool.reductions.base import Average, Reduction, State
from modalpool.sets import Sets

__all__ = ["Mean", "Sum"]


class _ScaleGradient(torch.autograd.Function):
    """The identity forward, a factor backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, factor: Tensor) -> Tensor:
        return z.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return grad * ctx.saved_tensors[0], None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: Any) -> Tensor:  # type: ignore[override]
        return tangent * ctx.saved_tensors[0]


class Mean(Average):
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

    def __init__(self, *, grad_scale: str | float = "mean") -> None:
        super().__init__()
        if isinstance(grad_scale, str) and grad_scale not in ("mean", "sqrt", "sum"):
            raise ValueError(f"grad_scale: expected 'mean', 'sqrt', 'sum' or a positive number, got {grad_scale!r}")
        if not isinstance(grad_scale, str) and not grad_scale > 0:
            raise ValueError(f"grad_scale: expected a positive number, got {grad_scale}")
        self.grad_scale = grad_scale

    def weigh(self, x: Tensor, sets: Sets) -> tuple[Tensor, Tensor]:
        """See `Average.weigh`."""
        return sets.uniform(x)[..., None, :], sets.count(x)[..., None, :].log()

    def partial(self, x: Tensor, sets: Sets, *, with_weights: bool = False) -> tuple[State, Tensor | None]:
        """See `Reduction.partial`; the sum needs no weights in memory."""
        count = sets.count(x)
        mean = sets.mean(x)
        if self.grad_scale == "sqrt":
            mean = _ScaleGradient.apply(mean, count.sqrt())
        elif self.grad_scale == "sum":
            mean = _ScaleGradient.apply(mean, count)
        elif not isinstance(self.grad_scale, str):
            mean = _ScaleGradient.apply(mean, count / self.grad_scale)
        return (count[..., None, :].log(), mean[..., None, :]), self.weigh(x, sets)[0] if with_weights else None

    def extra_repr(self) -> str:
        """The options that are not the default."""
        return "" if self.grad_scale == "mean" else f"grad_scale={self.grad_scale!r}"


class Sum(Reduction):
    """Add up the elements of each set: ``z = Σ aᵢ xᵢ``. Counting needs it; anything else is better off with a mean.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> Pool("[n] c", "sum")(torch.ones(5, 1), index=torch.tensor([0, 0, 1, 1, 1])).tolist()
        [[2.0], [3.0]]
    """

    def partial(self, x: Tensor, sets: Sets, *, with_weights: bool = False) -> tuple[State, Tensor | None]:
        """See `Reduction.partial`."""
        weight = None
        if with_weights:
            weight = (sets.uniform(x) * sets.expand(sets.count(x)))[..., None, :]
        return (sets.sum(x)[..., None, :],), weight

    def merge(self, a: State, b: State) -> State:
        """See `Reduction.merge`."""
        return (a[0] + b[0],)

    def finalize(self, state: State) -> Tensor:
        """See `Reduction.finalize`."""
        return state[0]
