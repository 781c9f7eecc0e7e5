"""PyG's quantiles: of each feature, of several shares at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from modalpool.compat.pyg.aggregations import PoolAggregation
from modalpool.reductions import Quantile, Reduction
from modalpool.reductions.concatenation import Concatenation

__all__ = ["MedianAggregation", "QuantileAggregation"]


class QuantileAggregation(PoolAggregation):
    """Take quantiles of each feature; several are laid side by side: ``(S, *, Q · F)``.

    "nearest" rounds the rank within the set, half to even; PyG rounds the place among all sets' elements.

    Args:
        q: One share from 0 to 1, or several.
        interpolation: Between two ranks: "linear", "lower", "higher", "nearest" or "midpoint".
        fill_value: What a set without elements gives.
    """

    def __init__(self, q: float | Sequence[float], interpolation: str = "linear", fill_value: float = 0.0) -> None:
        shares = [float(one) for one in (q if isinstance(q, list | tuple) else [q])]
        if not shares:
            raise ValueError("Provide at least one quantile value for `q`.")
        if not all(0 <= share <= 1 for share in shares):
            raise ValueError("`q` must be in the range [0, 1].")
        if interpolation not in Quantile.INTERPOLATIONS:
            raise ValueError(f"Invalid interpolation method got ('{interpolation}')")
        rules: list[Reduction] = [Quantile(q=share, interpolation=interpolation) for share in shares]
        super().__init__(rules[0] if len(rules) == 1 else Concatenation(rules), empty_value=fill_value)
        self._q, self.interpolation, self.fill_value = q, interpolation, fill_value
        self.register_buffer("q", torch.tensor(shares).view(-1, 1))

    def forward(self, x: Tensor, index: Tensor | None = None, *given: Any, **options: Any) -> Tensor:
        """See `PoolAggregation.forward`; ``index`` is needed."""
        self.assert_index_present(index)
        return super().forward(x, index, *given, **options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(q={self._q})"


class MedianAggregation(QuantileAggregation):
    """Take the median of each feature, of two in the middle the lower one, as in PyG."""

    def __init__(self, fill_value: float = 0.0) -> None:
        super().__init__(0.5, "lower", fill_value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
