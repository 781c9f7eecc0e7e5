"""Exact maps: which element made this decision.

A pooled vector is Σ w x, so what element i adds to a logit is its own w x times the head's slope: class activation
mapping (Zhou et al. 2016) for every rule and every layout, as a return value, without hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from modalpool.activation_maps import activation_maps
from modalpool.kernels import full_precision
from modalpool.pool import Pool
from modalpool.reductions import Count, Reduction
from modalpool.sets import DenseSets, RaggedSets, Sets

__all__ = ["contributions"]


def contributions(
    pool: Pool,
    head: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    return_gap: bool = False,
    chunk: int | None = None,
    **sets: Any,
) -> tuple[Tensor, ...]:
    """Split the logits of ``head(pool(x))`` into what every element adds to them.

    Behind a linear head the maps are exact: summed over a set's elements they are the logit less the bias, for every
    reduction with Σ w x = z. Behind any other head the slope is its gradient at the pooled vector, and what that
    misses is the gap, ``logits - head(0) - Σ maps``. Weights are taken as they are (an attention's dependence on x is
    part of w, not of the map). No hooks, and no ``.grad`` is touched. Pool and head are read in evaluation mode,
    whichever they are in (a head that is a plain function runs as it is).

    Args:
        pool: The pooling.
        head: Module or function from the pooled tensor to logits ``(B, classes)``, one row per set or batch element,
            each row computed from its own pooled vectors.
        x: Elements in the pool's layout.
        return_gap: Whether to return the gap too, ``(B, classes)``; zero, to rounding, where the maps are exact.
        chunk: How many elements are worked on at once: bounds the memory needed beside x, the pool's weights and the
            maps to that of ``chunk`` elements. The numbers are the same to rounding. None = a size that suits caches.
        sets: ``mask``, ``weight``, ``lengths``, ``index``, ``ptr``, ``dim_size``, ``coords``, as in the pool's call.

    Returns:
        ``(logits, maps)`` or ``(logits, maps, gap)``, detached. Maps have the layout of ``x`` with the classes where
        the channels were: ``(B, classes, D, H, W)`` for a volume, ``(N, classes)`` for graph nodes.

    Raises:
        ValueError: If the head does not return logits ``(B, classes)``, or ``chunk`` is not positive.

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
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk: expected a positive number of elements, got {chunk}; None chooses one")
    with torch.inference_mode(False), torch.no_grad(), _evaluating(pool, head):
        x = x.detach()
        arranged = pool.arrange(x, **sets)
        with full_precision(x):
            count = Count.of(arranged.sets, arranged.elements)
            state, weight = pool.reduction.partial(arranged.elements, arranged.sets, count, with_weights=True)
            z = pool.reduction.finalize(state, count)
        assert weight is not None

        def logits_at(z: Tensor) -> Tensor:
            with full_precision(x):
                y = pool.restore(pool.fill(pool.reduction.project(z, count), state, count), arranged.axes)
            return head(y.to(x.dtype))

        logits, slopes = _slopes(pool, head, logits_at, z)
        if pool.vectors is None:
            weight, slopes = weight.unsqueeze(-2), slopes.unsqueeze(-3)
        maps = _maps(weight, arranged.elements, arranged.sets, slopes.to(z.dtype), chunk)
        result = (logits, arranged.restore_elements(maps, vectors=False))
        if not return_gap:
            return result
        explained = arranged.sets.tally(maps)
        explained = explained.flatten(1, -2).sum(1) if explained.ndim > 2 else explained
        rest = logits - logits_at(torch.zeros_like(z))
        return *result, rest - explained.to(rest.dtype)


@contextmanager
def _evaluating(*given: object) -> Iterator[None]:
    """Put modules into evaluation mode, and each of their submodules back into the mode that it was in."""
    roots = [root.func if isinstance(root, partial) else root for root in given]
    training = [module for root in roots if isinstance(root, nn.Module) for module in root.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _is_linear(head: object) -> bool:
    """Whether a head is W z + b and nothing else: no subclass, hook, parametrisation or forward of its own."""
    if type(head) is not nn.Linear or "forward" in vars(head):
        return False
    return not (head._forward_hooks or head._forward_pre_hooks)


def _slopes(pool: Pool, head: object, logits_at: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and their slopes at the pooled vectors z ``(set axes, *k, Z)``: ``(set axes or 1s, *k, Z, classes)``."""
    with torch.enable_grad():
        at = z.detach().requires_grad_()
        logits = logits_at(at)
        if logits.ndim != 2:
            raise ValueError(f"head: expected logits with axes (batch, classes), got shape {tuple(logits.shape)}")
        plain = type(pool.reduction).project is Reduction.project and pool.vectors is None and not pool.keepdim
        if _is_linear(head) and z.ndim == 2 and plain:  # the head's weight itself, for every set
            slopes = head.weight.detach().mT[None]  # type: ignore[attr-defined]
        else:
            each = [torch.autograd.grad(out.sum(), at, retain_graph=True)[0] for out in logits.unbind(1)]
            slopes = torch.stack(each, dim=-1)
    return logits.detach(), slopes


def _maps(weight: Tensor, x: Tensor, sets: Sets, slopes: Tensor, chunk: int | None) -> Tensor:
    """Maps ``(element axes, classes)``."""
    kept = slopes.shape[1:-3]
    slopes = slopes.reshape(slopes.shape[0], prod(kept), *slopes.shape[-3:])  # (sets or 1, F, K, Z, L)
    if isinstance(sets, DenseSets):
        return _dense_maps(weight, x, sets.dims[0], slopes, chunk)
    assert isinstance(sets, RaggedSets)
    return _ragged_maps(weight, x, sets.segments.index, slopes, chunk)


def _dense_maps(weight: Tensor, x: Tensor, first: int, slopes: Tensor, chunk: int | None) -> Tensor:
    """Maps of elements ``(b, kept…, pooled…, C)`` whose pooled axes begin with ``first``."""

    def flat(tensor: Tensor, tail: int) -> Tensor:
        """``(b, F, P, …)``; b and F of a weight may be of size one."""
        own = tensor.shape[1:first]
        kept = own if prod(own) == 1 else x.shape[1:first]
        end = tensor.shape[tensor.ndim - tail :]
        tensor = tensor.expand(tensor.shape[0], *kept, *x.shape[first:-1], *end)
        return tensor.reshape(tensor.shape[0], prod(kept), prod(x.shape[first:-1]), *end)

    def slope(rows: slice) -> Tensor:
        return slopes[rows] if len(slopes) > 1 else slopes

    maps = activation_maps(flat(weight, 2), flat(x, 1), slope, chunk=chunk)
    return maps.reshape(*x.shape[:-1], slopes.shape[-1])


def _ragged_maps(weight: Tensor, x: Tensor, index: Tensor, slopes: Tensor, chunk: int | None) -> Tensor:
    """Maps of elements ``(N, kept…, C)`` that belong to the sets ``index``."""
    count, kept, classes = x.shape[0], x.shape[1:-1], slopes.shape[-1]
    weight = weight.expand(*x.shape[:-1], *weight.shape[-2:]).reshape(count, prod(kept), *weight.shape[-2:])
    x = x.reshape(count, prod(kept), x.shape[-1])
    # A look, for which a device is waited for once: one set of slopes for all, as behind every linear head?
    if bool((slopes == slopes[:1]).all()):
        slopes = slopes[:1] if len(slopes) else slopes.new_zeros((1, *slopes.shape[1:]))
        maps = activation_maps(weight.transpose(0, 1)[None], x.transpose(0, 1)[None], lambda _: slopes, chunk=chunk)
        return maps[0].transpose(0, 1).reshape(count, *kept, classes)

    def slope(rows: slice) -> Tensor:
        return slopes.index_select(0, index[rows])

    maps = activation_maps(weight[:, :, None], x[:, :, None], slope, gathered=True, chunk=chunk)
    return maps.reshape(count, *kept, classes)
