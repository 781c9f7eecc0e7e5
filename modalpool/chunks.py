"""A reduction of many elements, some at a time: memory for a chunk, whatever the rule.

A rule says what one part of every set contributes, and how parts join (`modalpool.reductions.base`). So a large input
is reduced in chunks that fit into the cache: some sets at a time or, of a set that is larger, some elements. The
backward pass works a chunk out again and writes its share of the one gradient. Nothing else is as large as the input.

The definition stays what it was: compilers, exporters and transforms see the rule applied to everything at once, and so
does whoever differentiates the gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.func import functional_call

from modalpool.kernels import eager, tuning
from modalpool.kernels.second_order import apply, plainly, vector_product
from modalpool.reductions.base import Reduction, State
from modalpool.sets import Part, Sets

__all__ = ["partial", "whole"]


def _many(reduction: Reduction, x: Tensor, sets: Sets) -> bool:
    return not torch.compiler.is_compiling() and x.numel() > tuning.MANY and reduction.in_chunks(x, sets)


def whole(reduction: Reduction, x: Tensor, sets: Sets) -> Tensor | None:
    """What `Reduction.pool` gives, unless the elements ``(element axes, C)`` are so many that they go in chunks."""
    return None if _many(reduction, x, sets) else reduction.pool(x, sets)


def partial(reduction: Reduction, x: Tensor, sets: Sets) -> State:
    """The state of ``reduction`` for elements ``(element axes, C)``, in chunks where they are many."""
    if not _many(reduction, x, sets):
        return reduction.partial(x, sets)[0]
    if not x.is_cpu or not eager(x) or sets.differentiable:
        return reduction.partial(x, sets)[0]
    parts = sets.parts(x, tuning.RULE_CHUNK)
    if len(parts) < 2:
        return reduction.partial(x, sets)[0]
    names = [name for name, _ in reduction.named_parameters()]
    found = apply(_Partial, reduction, parts, names, x, *reduction.parameters())
    size = reduction.state_size
    states = [tuple(found[i : i + size]) for i in range(0, len(found), size)]
    sets_of_parts: list[list[State]] = []
    for part, state in zip(parts, states, strict=True):
        if part.joins:
            sets_of_parts[-1].append(state)
        else:
            sets_of_parts.append([state])
    whole = [reduce(reduction.merge, group) for group in sets_of_parts]
    return tuple(torch.cat(tensors) for tensors in zip(*whole, strict=True))


class _Partial(Function):
    """The states of all parts, one after the other."""

    @staticmethod
    def forward(
        reduction: Reduction, parts: Sequence[Part], names: list[str], x: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        x = x.detach()
        return tuple(tensor for part in parts for tensor in reduction.partial(part.take(x), part.sets)[0])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.reduction, ctx.parts, ctx.names, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        size = ctx.reduction.state_size

        def state_of(part: Part, x: Tensor, parameters: Sequence[Tensor]) -> State:
            call = dict(zip(ctx.names, parameters, strict=True))
            state: State = functional_call(ctx.reduction, call, (x, part.sets))
            return state

        if plainly(*grads):
            again = lambda x, *all: tuple(t for part in ctx.parts for t in state_of(part, part.take(x), all))  # noqa: E731
            return None, None, None, *vector_product(again, [x, *parameters], grads)
        out = torch.zeros_like(x) if ctx.needs_input_grad[3] else None
        totals: list[Tensor | None] = [None] * len(parameters)
        for i, part in enumerate(ctx.parts):
            slopes = grads[i * size : (i + 1) * size]
            if all(slope is None for slope in slopes):
                continue
            here = part.take(x).detach()
            if out is not None:
                here.requires_grad_()
            found = vector_product(lambda x, *all, part=part: state_of(part, x, all), [here, *parameters], slopes)
            if out is not None:
                part.put(out, found[0])
            totals = [_add(total, new) for total, new in zip(totals, found[1:], strict=True)]
        return None, None, None, out, *totals


def _add(total: Tensor | None, new: Tensor | None) -> Tensor | None:
    if total is None or new is None:
        return total if new is None else new
    return total + new
