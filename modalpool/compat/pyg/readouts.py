"""PyG's readouts: functions that pool the nodes of each graph."""

from __future__ import annotations

import re

from torch import Tensor
from torch_geometric.nn import pool as _pools

from modalpool.functional import pool

__all__ = ["global_add_pool", "global_max_pool", "global_mean_pool"]

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
