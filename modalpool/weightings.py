"""Many weightings of the same elements in one call, and weights of their own for every channel, without copies of x.

The axes of a weight are named in the layout's own words, ``weight_axes``: the positions of x, and one more.

    "b k t"    K weightings of each set (speakers, masks): K vectors each, (B, K, C) behind "b c [t]"
    "b c t"    one weight for each channel: (B, C)
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from modalpool.arrange import Arranged
from modalpool.kernels import eager
from modalpool.layout import Layout
from modalpool.reductions import Count, Mean, Reduction, State, Sum

__all__ = ["by_weighting"]


class Layer(Protocol):
    """What weightings need of a pool."""

    layout: Layout
    reduction: Reduction
    channels: int | None
    keepdim: bool

    def __call__(self, x: Tensor, *, weight: Tensor, **sets: Any) -> Any: ...
    def arrange(self, x: Tensor, **sets: Any) -> Arranged: ...
    def fill(self, z: Tensor, state: State, count: Count) -> Tensor: ...


def by_weighting(pool: Layer, x: Tensor, weight: Tensor | None, axes: str, sets: dict[str, Any]) -> Any:
    """Pool ``x`` as the call with ``weight_axes=axes`` does; ``sets`` are its other arguments."""
    names = [pool.layout.name(axis, x.ndim) for axis in range(x.ndim)]
    dots = [name for name in names if name.startswith("...")]
    given = [part for name in axes.split() for part in (dots if name == "..." else [name])]
    positions = [name for name in names if name != "c"]
    more = [name for name in given if name not in positions]
    if x.is_nested or len(more) != 1 or sorted(given) != sorted([*positions, *more]):
        raise ValueError(
            f"weight_axes: expected the positions of x and one axis more, k for many weightings or c for one weight a "
            f"channel, as in {' '.join([*positions[:1], 'k', *positions[1:]])!r}, got {axes!r}; x must not be jagged"
        )
    if weight is None or weight.ndim != len(given):
        shape = None if weight is None else tuple(weight.shape)
        raise ValueError(f"weight: expected the {len(given)} axes of weight_axes={axes!r}, got shape {shape}")
    if more == ["c"]:
        return _by_channel(pool, x, weight.permute([given.index(name) for name in names]), names, sets)
    weights = weight.permute([given.index(name) for name in (*more, *positions)]).unbind(0)
    pooled = pool.layout.axes(x.ndim).pooled
    left = [name for axis, name in enumerate(names) if axis not in pooled or pool.keepdim]
    at = 1 if pool.layout.ragged else left.index("b") + 1
    if type(pool.reduction) in (Mean, Sum) and not sets["return_weights"] and not pool.keepdim:
        return _at_once(pool, x, weights, sets)

    def one(x: Tensor, weight: Tensor) -> Any:
        return pool(x, weight=weight, **sets)

    each = [_again(one, x, weight) for weight in weights]
    if not sets["return_weights"]:
        return torch.stack(each, at)
    first = 0 if pool.layout.ragged else names.index("b") + 1
    return torch.stack([y for y, _ in each], at), torch.stack([w for _, w in each], first)


def _again(function: Callable[[Tensor, Tensor], Any], x: Tensor, weight: Tensor) -> Any:
    """What a function gives; for a gradient it is worked out again, so that no call keeps anything of the size of x."""
    if not (torch.is_grad_enabled() and eager(x)):
        return function(x, weight)
    return checkpoint(function, x, weight, use_reentrant=False)


def _at_once(pool: Layer, x: Tensor, weights: tuple[Tensor, ...], sets: dict[str, Any]) -> Tensor:
    """Means or sums for all weightings: one product with the elements."""
    sets = {name: value for name, value in sets.items() if name != "return_weights"}
    arranged = pool.arrange(x, **sets)
    many = torch.stack([pool.arrange(x, weight=weight, **sets).sets.many for weight in weights], -1)  # type: ignore[misc]
    z = arranged.sets.weighted_sum(many[..., None], arranged.elements, exact_zeros=True)  # (set axes, K, C)
    count = Count(lambda: arranged.sets.tally(many.to(z.dtype))[..., None])
    state = (z / count.size() if isinstance(pool.reduction, Mean) else z,)
    z = pool.fill(pool.reduction.finalize(state, count), state, count)
    return arranged.axes.restore_sets(z, vectors=True, keepdim=False).to(x.dtype)


def _by_channel(pool: Layer, x: Tensor, weight: Tensor, names: list[str], sets: dict[str, Any]) -> Any:
    """Channels are one more kept position, of one channel each."""
    if any(parameter.ndim for parameter in pool.reduction.parameters()):
        raise ValueError(
            f"weight_axes: a weight for each channel needs a rule that sees one channel at a time, "
            f"got {pool.reduction!r}"
        )
    at, known = names.index("c"), pool.layout.axes(x.ndim)
    words = ["channel" if name == "c" else name.replace("...", "p") for name in names]
    layer = copy.copy(pool)
    layer.channels = None
    layer.layout = Layout(
        " ".join(f"[{word}]" if axis in known.pooled else word for axis, word in enumerate(words)) + " c"
    )
    lengths = sets["lengths"]
    if isinstance(lengths, Tensor):
        lengths = {words[known.pooled[0]]: lengths}
    own = {name: None if sets[name] is None else sets[name].unsqueeze(at) for name in ("mask", "coords")}
    out = layer(x.unsqueeze(-1), weight=weight, **{**sets, **own, "lengths": lengths})
    return tuple(each.squeeze(-1) for each in out) if isinstance(out, tuple) else out.squeeze(-1)
