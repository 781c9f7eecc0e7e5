"""How the handful of set operations are computed. Numbers never differ between kernels, only the time they take.

`plain` and `fused` are the definition: ordinary torch operations that differentiate twice, compile and export. A faster
path has the same names and arguments, and is chosen here and nowhere else.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from modalpool.kernels import cpu, cpu_small, fused
from modalpool.kernels.choice import few
from modalpool.kernels.differentiate import transformed
from modalpool.kernels.plain import accumulation_type, clean, multiply, split_channels
from modalpool.kernels.segments import Segments

__all__ = ["Segments", "accumulation_type", "clean", "multiply", "path", "split_channels"]


def path(values: Tensor) -> Any:
    """The module with the operations on ``values``: the definition, or a faster path for their device.

    Compilers and exporters see the definition, and so do function transforms and forward mode, which need to know what
    every step does, and tensor subclasses, which may be anything. On a GPU a compiler keeps the kernels, which are
    torch ops; an exported program has to do without.
    """
    if type(values) is not Tensor and type(values) is not nn.Parameter:
        return fused
    if torch.compiler.is_compiling():
        exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # from torch 2.7 on
        if not values.is_cuda or exporting():
            return fused
    elif transformed():
        return fused
    if values.is_cpu:
        return cpu_small if few(values) else cpu
    if not values.is_cuda:
        return fused
    try:
        from modalpool.kernels import cuda  # only now: Triton takes time to load
    except ModuleNotFoundError:  # torch for Windows comes without it
        return fused
    return cuda
