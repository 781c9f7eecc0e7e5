"""The faster paths of a CPU: classes that inherit the definition, each file adding the methods it is about.

A method says what it buys: how many times its time the definition takes (`tests/benchmarks/buys.py`, one thread). What
is not 1.2 times as fast on large inputs, and saves no memory, has no place here.
"""

from modalpool.kernels.cpu.dense_channels import DenseChannels as Dense
from modalpool.kernels.cpu.few import FewRagged
from modalpool.kernels.cpu.ragged_channels import RaggedChannels as Ragged

__all__ = ["Dense", "FewRagged", "Ragged"]
