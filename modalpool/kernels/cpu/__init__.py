"""The faster paths of a CPU: classes that inherit the definition, each file adding the methods it is about."""

from modalpool.kernels.cpu.dense_channels import DenseChannels as Dense
from modalpool.kernels.cpu.few import FewRagged
from modalpool.kernels.cpu.ragged_channels import RaggedChannels as Ragged

__all__ = ["Dense", "FewRagged", "Ragged"]
