"""PyG's aggregations with weights of their own: softmax, power mean and attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn.inits import reset

from modalpool.compat.pyg.aggregations import PoolAggregation
from modalpool.kernels import full_precision
from modalpool.reductions import Average, Count, Power
from modalpool.reductions.base import Partial
from modalpool.sets import Sets

__all__ = ["AttentionalAggregation", "PowerMeanAggregation", "SoftmaxAggregation"]


class SoftmaxAggregation(PoolAggregation):
    """Weigh each feature by a softmax of itself: ``Σ softmax(t x) x`` (Li et al. 2020, DeeperGCN, eq. 4).

    Args:
        t: Inverse temperature, of any sign.
        learn: Whether it is learned.
        semi_grad: Whether the weights pass no gradient.
        channels: Number of inverse temperatures to learn.
    """

    def __init__(self, t: float = 1.0, learn: bool = False, semi_grad: bool = False, channels: int = 1) -> None:
        if learn and semi_grad:
            raise ValueError(
                f"Cannot enable 'semi_grad' in '{type(self).__name__}' in case the temperature term 't' is learnable"
            )
        _trainable(type(self).__name__, learn, channels)
        super().__init__(_Softmax(t, learn, semi_grad, channels))
        self.learn, self.semi_grad, self.channels = learn, semi_grad, channels

    def __repr__(self) -> str:
        return f"{type(self).__name__}(learn={self.learn})"


class PowerMeanAggregation(PoolAggregation):
    """Take the power mean of each feature: ``(mean x^p)^(1/p)`` (Li et al. 2020, DeeperGCN, eq. 5).

    Elements are clamped, as in PyG; their mean is not: the power mean of tens is ten.

    Args:
        p: Exponent, positive.
        learn: Whether it is learned (it stays positive).
        channels: Number of exponents to learn.
        clamp_min: What smaller elements are raised to; None = 1e-12, because a power needs positive numbers.
        clamp_max: What larger elements are cut to; None = nothing.
    """

    def __init__(
        self,
        p: float = 1.0,
        learn: bool = False,
        channels: int = 1,
        clamp_min: float | None = 1e-4,
        clamp_max: float | None = 100.0,
    ) -> None:
        _trainable(type(self).__name__, learn, channels)
        if p == 1 and not learn:
            super().__init__("mean")  # as in PyG, nothing is clamped then
        else:
            super().__init__(_PowerMean(p, learn, channels, clamp_min, clamp_max))
        self.learn, self.channels = learn, channels

    def __repr__(self) -> str:
        return f"{type(self).__name__}(learn={self.learn})"


class AttentionalAggregation(PoolAggregation):
    """Weigh elements by a softmax of what ``gate_nn`` makes of them: ``Σ softmax(gate_nn(x)) nn(x)`` (Li et al. 2019).

    Args:
        gate_nn: From ``(N, F)`` to scores ``(N, 1)``, or ``(N, F_out)`` for a score per feature.
        nn: From ``(N, F)`` to ``(N, F_out)``; None = x itself.
    """

    def __init__(self, gate_nn: torch.nn.Module, nn: torch.nn.Module | None = None) -> None:
        super().__init__()
        self.gate_nn = gate_nn
        self.nn = nn

    def reset_parameters(self) -> None:
        """Draw the parameters of both networks anew."""
        for network in (self.gate_nn, self.nn):
            reset(network)

    def aggregate(self, x: Tensor, **sets: Any) -> Tensor:
        """Pool ``(N, *, F)`` to ``(S, *, F_out)``."""
        scores, values = self.gate_nn(x), x if self.nn is None else self.nn(x)
        arranged = self.pool.arrange(values, **sets)
        with full_precision(x):
            weight, _ = arranged.sets.softmax(scores)
            z = arranged.sets.weighted_sum(weight[..., None, :], arranged.elements)
        return z.squeeze(-2).to(values.dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(gate_nn={self.gate_nn}, nn={self.nn})"


def _trainable(name: str, learn: bool, channels: int) -> None:
    if not learn and channels != 1:
        raise ValueError(f"Cannot set 'channels' greater than '1' in case '{name}' is not trainable")


class _Softmax(Average):
    """PyG's softmax: an inverse temperature of any sign, and weights that may pass no gradient."""

    def __init__(self, t: float, learn: bool, semi_grad: bool, channels: int) -> None:
        super().__init__()
        self.start, self.semi_grad = t, semi_grad
        self.t = torch.nn.Parameter(torch.full((channels,), float(t))) if learn else t

    def reset_parameters(self) -> None:
        if isinstance(self.t, Tensor):
            torch.nn.init.constant_(self.t, self.start)

    def weigh(self, x: Tensor, sets: Sets, count: Count) -> tuple[Tensor, Tensor]:
        t = self.t.to(x.dtype) if isinstance(self.t, Tensor) else self.t
        weight, mass = sets.softmax(sets.clean(x) * t)
        if self.semi_grad:
            weight, mass = weight.detach(), mass.detach()
        return weight, mass


class _PowerMean(Power):
    """PyG's power mean: an exponent per channel, and elements cut above."""

    def __init__(self, p: float, learn: bool, channels: int, clamp_min: float | None, clamp_max: float | None) -> None:
        super().__init__(p=p, learn_p=learn, eps=1e-12 if clamp_min is None else clamp_min)
        self.clamp_max = clamp_max
        if self.log_p is not None:
            self.log_p = torch.nn.Parameter(self.log_p.detach().expand(channels).clone())

    def reset_parameters(self) -> None:
        if self.log_p is not None:
            torch.nn.init.constant_(self.log_p, torch.tensor(self.p).log().item())

    def partial(self, x: Tensor, sets: Sets, count: Count, *, with_weights: bool = False) -> Partial:
        x = x if self.clamp_max is None else x.clamp(max=self.clamp_max)
        return super().partial(x, sets, count, with_weights=with_weights)
