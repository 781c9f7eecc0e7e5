"""The faster path of a GPU: Triton kernels, each value read once."""

from modalpool.kernels.cuda.groups import Dense, Ragged

__all__ = ["Dense", "Ragged"]
