"""For users of PyTorch Geometric: the reductions as `Aggregation`s, under PyG's names and with PyG's arguments.

    from modalpool.compat.pyg import MeanAggregation, PoolAggregation
    conv = SAGEConv(16, 32, aggr=MeanAggregation())
    readout = PoolAggregation("attention", channels=32, heads=4)
    z = readout(x, batch.batch, dim_size=batch.batch_size)

They take ``index`` in any order or ``ptr``, need no ``torch_scatter``, add up in float32 under half precision, and give
zero for every empty set (a product: one).
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

try:
    import torch_geometric.nn.aggr
    from torch_geometric.nn import pool as _pools
    from torch_geometric.nn.aggr import Aggregation
    from torch_geometric.nn.inits import reset
except (ImportError, OSError) as error:
    raise ImportError("modalpool.compat.pyg needs torch-geometric: pip install 'modalpool[graph]'") from error

from modalpool.functional import pool
from modalpool.kernels import Segments, full_precision
from modalpool.pool import Pool
from modalpool.reductions import Average, Count, Power, Reduction, State
from modalpool.sets import Sets

__all__ = [
    "AttentionalAggregation",
    "MaxAggregation",
    "MeanAggregation",
    "MinAggregation",
    "MulAggregation",
    "PoolAggregation",
    "PowerMeanAggregation",
    "SoftmaxAggregation",
    "StdAggregation",
    "SumAggregation",
    "VarAggregation",
    "VariancePreservingAggregation",
    "global_add_pool",
    "global_max_pool",
    "global_mean_pool",
    "register",
]


class PoolAggregation(Aggregation):  # type: ignore[misc]  # PyG is not typed
    """Any reduction as an aggregation.

    Where a reduction gives K vectors per set they are laid side by side: the output has K · C channels.

    Args:
        reduction: See `Pool`.
        channels: See `Pool`.
        options: See `Pool` and the reduction.

    Example:
        >>> import torch
        >>> from modalpool.compat.pyg import PoolAggregation
        >>> readout = PoolAggregation("attention", channels=8, heads=2)
        >>> readout(torch.randn(6, 8), torch.tensor([1, 0, 1, 3, 3, 1]), dim_size=5).shape
        torch.Size([5, 8])
    """

    def __init__(
        self, reduction: str | list[str] | Reduction = "mean", channels: int | None = None, **options: Any
    ) -> None:
        super().__init__()
        self._call = (reduction, channels, options)
        self.pool = _pool(reduction, channels, options)

    def reset_parameters(self) -> None:
        """Draw all learnable parameters anew."""
        for module in self.pool.modules():
            if isinstance(module, (_Softmax, _PowerMean)):
                module.reset_parameters()
        reduction, channels, options = self._call
        if not isinstance(reduction, Reduction):
            self.pool.load_state_dict(_pool(reduction, channels, options).state_dict())

    def forward(
        self,
        x: Tensor,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
        max_num_elements: int | None = None,
    ) -> Tensor:
        """Aggregate the elements along ``dim``.

        Args:
            x: Elements, ``(*, N, F)``.
            index: Set of each element, ``(N,)``, in any order.
            ptr: Bounds of consecutive sets, ``(S + 1,)``; used if both are given.
            dim_size: S.
            dim: The axis of the elements.
            max_num_elements: Accepted, as everywhere in PyG, and not needed.

        Returns:
            ``(*, S, F)``.
        """
        x = x.movedim(dim, 0)
        flat = x.ndim == 1
        sets: dict[str, Any] = {"index": index} if ptr is None else {"ptr": ptr}
        try:
            z = self.aggregate(x.unsqueeze(-1) if flat else x, dim_size=dim_size, **sets)
        except ValueError as error:
            if not str(error).startswith("index:"):
                raise
            raise IndexError(str(error)) from error  # which PyG reports in its own words
        return (z.squeeze(-1) if flat else z).movedim(0, dim)

    def aggregate(self, x: Tensor, **sets: Any) -> Tensor:
        """Pool ``(N, *, F)`` to ``(S, *, F)``."""
        z: Tensor = self.pool(x, **sets)
        return z if self.pool.vectors is None else z.movedim(1, -2).flatten(-2)  # (S, K, *, F) to (S, *, K · F)

    def __repr__(self) -> str:
        reduction, channels, options = self._call
        shown = [repr(reduction)]
        shown += [] if channels is None else [f"channels={channels}"]
        shown += [f"{name}={value!r}" for name, value in options.items()]
        return f"{type(self).__name__}({', '.join(shown)})"


class _Named(PoolAggregation):
    """An aggregation under a name of PyG's, without options."""

    rule = "mean"

    def __init__(self) -> None:
        super().__init__(self.rule)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class SumAggregation(_Named):
    """Add up."""

    rule = "sum"


class MeanAggregation(_Named):
    """Average; right in half precision and at any size."""

    rule = "mean"


class MaxAggregation(_Named):
    """Take the largest; real infinities are kept."""

    rule = "max"


class MinAggregation(_Named):
    """Take the smallest; real infinities are kept."""

    rule = "min"


class VarAggregation(_Named):
    """Measure the variance, around the mean: exact at any offset.

    Args:
        semi_grad: Whether the mean of squares passes no gradient.
    """

    rule = "var"

    def __init__(self, semi_grad: bool = False) -> None:
        super().__init__()
        if semi_grad:
            raise ValueError(
                f"'{type(self).__name__}' has no 'semi_grad': it squares nothing before the mean is taken off, so "
                "there is no E[x²] whose gradient could be cut; leave it out"
            )


class StdAggregation(VarAggregation):
    """Measure the standard deviation; gradient zero where it is zero."""

    rule = "std"


class VariancePreservingAggregation(PoolAggregation):
    """Add up and divide by √N, which keeps the variance of independent elements: ``size_law`` with β = ½."""

    def __init__(self) -> None:
        super().__init__("size_law", beta=0.5)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class MulAggregation(_Named):
    """Multiply; as in PyG a set without elements gives one, and ``index`` is needed."""

    def forward(self, x: Tensor, index: Tensor | None = None, *given: Any, **options: Any) -> Tensor:
        """See `PoolAggregation.forward`."""
        self.assert_index_present(index)
        return super().forward(x, index, *given, **options)

    def aggregate(self, x: Tensor, **sets: Any) -> Tensor:
        """Multiply ``(N, *, F)`` to ``(S, *, F)``."""
        here = self.pool.arrange(x, **sets).sets.group
        assert isinstance(here, Segments)
        index = here.index.reshape(-1, *[1] * (x.ndim - 1)).expand_as(x)
        return x.new_ones((here.size, *x.shape[1:])).scatter_reduce(0, index, x, "prod")


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


def _pool(reduction: str | list[str] | Reduction, channels: int | None, options: dict[str, Any]) -> Pool:
    """A pool of nodes; as everywhere in PyG, an empty set gives zero."""
    return Pool("[n] ... c", reduction, channels=channels, **{"empty_value": 0.0, **options})


_WHOLE = {rule: getattr(_pools, f"global_{rule}_pool") for rule in ("add", "mean", "max")}


def _readout(rule: str, x: Tensor, batch: Tensor | None, size: int | None) -> Tensor:
    """Pool the nodes of each graph, along the axis that PyG takes: the last but one, or the only one."""
    if not x.is_floating_point():  # whole numbers stay whole: PyG's own
        whole: Tensor = _WHOLE[rule](x, batch, size)
        return whole
    dim = -1 if x.ndim == 1 else -2
    nodes = x[:, None] if x.ndim == 1 else x.movedim(dim, 0)
    name = "sum" if rule == "add" else rule
    try:
        z: Tensor = pool(
            nodes, "[n] ... c", name, index=batch, dim_size=None if batch is None else size, empty_value=0.0
        )
    except ValueError as error:
        raise ValueError(re.sub("^index:", "batch:", str(error))) from error
    z = z[:, 0] if x.ndim == 1 else z.movedim(0, dim)
    return z.squeeze(dim) if batch is None and x.ndim > 2 else z


def global_add_pool(x: Tensor, batch: Tensor | None, size: int | None = None) -> Tensor:
    """Add up the nodes ``(*, N, F)`` of each graph; ``batch=None`` is one graph, ``size`` their number."""
    return _readout("add", x, batch, size)


def global_mean_pool(x: Tensor, batch: Tensor | None, size: int | None = None) -> Tensor:
    """Average the nodes ``(*, N, F)`` of each graph; ``batch=None`` is one graph, ``size`` their number."""
    return _readout("mean", x, batch, size)


def global_max_pool(x: Tensor, batch: Tensor | None, size: int | None = None) -> Tensor:
    """Take the largest over the nodes ``(*, N, F)``; ``batch=None`` is one graph, ``size`` their number."""
    return _readout("max", x, batch, size)


def register() -> None:
    """Let PyG's resolver find `PoolAggregation`: ``aggr="pool", aggr_kwargs={"reduction": "std"}``.

    Example:
        >>> from torch_geometric.nn import GINConv
        >>> from modalpool.compat import pyg
        >>> pyg.register()
        >>> GINConv(torch.nn.Linear(8, 8), aggr="pool", aggr_kwargs={"reduction": "std"}).aggr_module
        PoolAggregation('std')
    """
    torch_geometric.nn.aggr.PoolAggregation = PoolAggregation


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

    def partial(
        self, x: Tensor, sets: Sets, count: Count, *, with_weights: bool = False
    ) -> tuple[State, Tensor | None]:
        x = x if self.clamp_max is None else x.clamp(max=self.clamp_max)
        return super().partial(x, sets, count, with_weights=with_weights)
