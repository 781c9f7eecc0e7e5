"""Any rule as an aggregation, and PyG's plain ones."""

from __future__ import annotations

from typing import Any

from torch import Tensor

try:
    import torch_geometric.nn.aggr
    from torch_geometric.nn.aggr import Aggregation
except (ImportError, OSError) as error:
    raise ImportError("modalpool.compat.pyg needs torch-geometric: pip install 'modalpool[graph]'") from error

from modalpool.kernels import Segments
from modalpool.pool import Pool
from modalpool.reductions import Reduction

__all__ = [
    "MaxAggregation",
    "MeanAggregation",
    "MinAggregation",
    "MulAggregation",
    "PoolAggregation",
    "StdAggregation",
    "SumAggregation",
    "VarAggregation",
    "VariancePreservingAggregation",
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
            reset = getattr(module, "reset_parameters", None)
            if isinstance(module, Reduction) and reset is not None:
                reset()
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


class VariancePreservingAggregation(_Named):
    """Add up and divide by √N, which keeps the variance of independent elements: the size law, whose β is ½."""

    rule = "size_law"


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


def _pool(reduction: str | list[str] | Reduction, channels: int | None, options: dict[str, Any]) -> Pool:
    """A pool of nodes; as everywhere in PyG, an empty set gives zero."""
    return Pool("[n] ... c", reduction, channels=channels, **{"empty_value": 0.0, **options})


def register() -> None:
    """Let PyG's resolver find `PoolAggregation`: ``aggr="pool", aggr_kwargs={"reduction": "std"}``.

    Example:
        >>> import torch
        >>> from torch_geometric.nn import GINConv
        >>> from modalpool.compat import pyg
        >>> pyg.register()
        >>> GINConv(torch.nn.Linear(8, 8), aggr="pool", aggr_kwargs={"reduction": "std"}).aggr_module
        PoolAggregation('std')
    """
    torch_geometric.nn.aggr.PoolAggregation = PoolAggregation
