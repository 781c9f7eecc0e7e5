"""How the handful of set operations are computed. Numbers never differ between kernels, only the time they take.

`definition` says what each operation is, in ordinary torch operations. A fast path is a class that inherits it
(`modalpool.kernels.cpu`, `modalpool.kernels.cuda`): a new one is a method there, and the choice is made here and
nowhere else, by the limits of `tuning`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modalpool.kernels import cpu, definition, tuning
from modalpool.kernels.definition import Frugal, Group
from modalpool.kernels.second_order import traced
from modalpool.kernels.segments import Segments
from modalpool.kernels.values import (
    accumulation_type,
    clean,
    full_precision,
    hide,
    multiply,
    split_channels,
)

__all__ = [
    "Frugal",
    "Group",
    "Segments",
    "accumulation_type",
    "clean",
    "eager",
    "full_precision",
    "hide",
    "multiply",
    "path",
    "split_channels",
]


def path(values: Tensor, sets: tuple[int, ...] | Segments) -> Group:
    """The operations on ``values``, for sets along pooled axes or segments: the definition, or a faster path."""
    dense, ragged = _classes(values)
    return ragged(sets) if isinstance(sets, Segments) else dense(sets)


def eager(values: Tensor) -> bool:
    """Whether ``values`` are numbers that are computed on now.

    Compilers and exporters, function transforms and forward mode need to know what every step does, and tensor
    subclasses may be anything: they see the definition.
    """
    plain = type(values) is Tensor or type(values) is nn.Parameter
    # What `second_order.transformed` says, without a call: every pool of anything comes by here.
    if not plain or torch.compiler.is_compiling():
        return False
    transformed = torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0
    return not (transformed or (torch._C._len_torch_dispatch_stack() > 0 and traced()))


def _classes(values: Tensor) -> tuple[type[definition.Dense], type[definition.Ragged]]:
    """The groups of a device; a compiler for a GPU keeps the kernels, which are torch ops, but an exporter cannot."""
    if values.is_cpu and eager(values):
        if values.numel() <= tuning.FEW:
            return definition.Dense, cpu.FewRagged
        return cpu.Dense, cpu.Ragged
    if tuning.TRITON and values.is_cuda and (eager(values) or _compiled(values)):
        try:
            from modalpool.kernels import cuda  # only now: Triton takes time to load
        except ModuleNotFoundError:  # torch for Windows comes without it
            return definition.Dense, definition.Ragged
        return cuda.Dense, cuda.Ragged
    return definition.Dense, definition.Ragged


def _compiled(values: Tensor) -> bool:
    """Whether ``values`` go through a compiler, and not into an exported program."""
    exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # from torch 2.7 on
    plain = type(values) is Tensor or type(values) is nn.Parameter
    return plain and torch.compiler.is_compiling() and not exporting()
