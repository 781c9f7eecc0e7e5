"""Exact maps: which element made this decision.

A pooled vector is Σ w x, so what element i adds to a logit is its own w x times the head's slope: class activation
mapping (Zhou et al. 2016) for every rule and every layout, as a return value, without hooks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from modalpool.pool import Pool
from modalpool.reductions import Reduction
from modalpool.sets import Sets

__all__ = ["contributions"]


def contributions(
    pool: Pool, head: Callable[[Tensor], Tensor], x: Tensor, *, return_gap: bool = False, **sets: Any
) -> tuple[Tensor, ...]:
    """Split the logits of ``head(pool(x))`` into what every element adds to them.

    Behind a linear head the maps are exact: summed over a set's elements they are the logit less the bias, for every
    reduction with Σ w x = z. Behind any other head the slope is its gradient at the pooled vector, and what that
    misses is the gap, ``logits - head(0) - Σ maps``. Weights are taken as they are (an attention's dependence on x is
    part of w, not of the map). No hooks, and no ``.grad`` is touched.

    Args:
        pool: The pooling.
        head: Module or function from the pooled tensor to logits ``(B, classes)``, one row per set or batch element,
            each row computed from its own pooled vectors.
        x: Elements in the pool's layout.
        return_gap: Whether to return the gap too, ``(B, classes)``; zero, to rounding, where the maps are exact.
        sets: ``mask``, ``weight``, ``lengths``, ``index``, ``ptr``, ``dim_size``, ``coords``, as in the pool's call.

    Returns:
        ``(logits, maps)`` or ``(logits, maps, gap)``, detached. Maps have the layout of ``x`` with the classes where
        the channels were: ``(B, classes, D, H, W)`` for a volume, ``(N, classes)`` for graph nodes.

    Raises:
        ValueError: If the head does not return logits ``(B, classes)``.

    Example:
        >>> import torch
        >>> from modalpool import Pool, contributions
        >>> x, head = torch.randn(2, 8, 4, 5), torch.nn.Linear(8, 3)
        >>> logits, maps = contributions(Pool("b c [h w]", "mean"), head, x)
        >>> maps.shape
        torch.Size([2, 3, 4, 5])
        >>> torch.allclose(maps.sum((2, 3)) + head.bias, logits, atol=1e-6)
        True
    """
    with torch.inference_mode(False), torch.no_grad():
        x = x.clone() if x.is_inference() else x.detach()
        given = {name: t.clone() if isinstance(t, Tensor) and t.is_inference() else t for name, t in sets.items()}
        arranged = pool.arrange(x, **given)
        with torch.autocast(x.device.type, enabled=False):
            state, weight = pool.reduction.partial(arranged.elements, arranged.sets, with_weights=True)
            z = pool.reduction.finalize(state)
            count = arranged.sets.count(arranged.elements)
        assert weight is not None

        def logits_at(z: Tensor) -> Tensor:
            with torch.autocast(x.device.type, enabled=False):
                y = pool.restore(pool.fill_empty(pool.reduction.project(z), count, state), arranged)
            return head(y.to(x.dtype))

        there = (count > 0)[..., None]
        with torch.enable_grad():
            at = z.detach().requires_grad_()
            logits = logits_at(at)
            if logits.ndim != 2:
                raise ValueError(f"head: expected logits with axes (batch, classes), got shape {tuple(logits.shape)}")
            if _is_closed(pool, head, z):
                assert isinstance(head, nn.Linear)
                maps = _through_linear(weight, arranged.elements, arranged.sets, head.weight)
            else:
                slopes = [torch.autograd.grad(out.sum(), at, retain_graph=True)[0] for out in logits.unbind(1)]
                maps = _through_slopes(weight, arranged.elements, arranged.sets, slopes)
        result = (logits.detach(), arranged.restore_elements(maps, vectors=False))
        if not return_gap:
            return result
        explained = arranged.sets.tally(maps)
        explained = explained.flatten(1, -2).sum(1) if explained.ndim > 2 else explained
        rest = logits - logits_at(torch.where(there, 0.0, z))
        return *result, (rest - explained.to(rest.dtype)).detach()


def _is_closed(pool: Pool, head: object, z: Tensor) -> bool:
    """Whether the slope is the head's weight itself, the same for every set."""
    plain = type(pool.reduction).project is Reduction.project and pool.vectors is None and not pool.keepdim
    return isinstance(head, nn.Linear) and z.ndim == 3 and plain


def _shares(weight: Tensor, x: Tensor) -> Tensor:
    """Each element's w x, weight ``(E, G)``, x ``(E, C)``; an element without weight adds nothing, not even inf."""
    if 1 < weight.shape[-1] < x.shape[-1]:
        weight = weight.repeat_interleave(x.shape[-1] // weight.shape[-1], dim=-1)
    return torch.where(weight == 0, 0.0, weight * x)


def _repeat(x: Tensor, channels: int) -> Tensor:
    """Elements as often as the pooled vector repeats them (heads that are projected, lists of reductions)."""
    return x if x.shape[-1] == channels else x.repeat(*[1] * (x.ndim - 1), channels // x.shape[-1])


def _through_linear(weight: Tensor, x: Tensor, sets: Sets, matrix: Tensor) -> Tensor:
    """Maps ``(E, classes)`` for one matrix ``(classes, C)``."""
    x = _repeat(sets.clean(x), matrix.shape[1])
    return nn.functional.linear(_shares(weight[..., 0, :], x), matrix.detach().to(weight.dtype))


def _through_slopes(weight: Tensor, x: Tensor, sets: Sets, slopes: list[Tensor]) -> Tensor:
    """Maps ``(E, classes)`` for a slope ``(set axes, K, C)`` per class; one vector k at a time."""
    x = _repeat(sets.clean(x), slopes[0].shape[-1])
    maps = torch.zeros((*x.shape[:-1], len(slopes)), dtype=x.dtype, device=x.device)
    for k in range(weight.shape[-2]):
        shares = _shares(weight[..., k, :], x)
        for label, slope in enumerate(slopes):
            maps[..., label] += (shares * sets.expand(slope[..., k, :])).sum(-1)
    return maps
