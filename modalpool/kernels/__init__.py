"""How the handful of set operations are computed. Numbers never differ between kernels, only the time they take.

`plain` and `fused` are the definition: ordinary torch operations that differentiate twice, compile and export. A faster
path has the same names and arguments, and is chosen here and nowhere else.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from modalpool.kernels import cpu, fused
from modalpool.kernels.differentiate import transformed
from modalpool.kernels.plain import accumulation_type, clean, multiply, split_channels
from modalpool.kernels.segments import Segments

__all__ = ["Segments", "accumulation_type", "clean", "multiply", "path", "split_channels"]


def path(values: Tensor) -> Any:
    """The module with the operations on ``values``: the definition, or a faster path for their device.

    Compilers and exporters see the definition, and so do function transforms and forward mode, which need to know what
    every step does, and tensor subclasses, which may be anything.
    """
    if torch.compiler.is_compiling() or type(values) not in (Tensor, nn.Parameter) or values.device.type != "cpu":
        return fused
    return fused if transformed() else cpu
