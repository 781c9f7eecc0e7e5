"""The faster path on a CPU, by the names of the definition: what has none is the definition itself."""

from modalpool.kernels.cpu_attend import segment_attend, segment_softmax, segment_weighted_sum
from modalpool.kernels.cpu_channels import segment_moments, segment_power, segment_soften
from modalpool.kernels.cpu_dense import (
    dense_attend,
    dense_max,
    dense_min,
    dense_softmax,
    dense_sum,
    dense_weighted_sum,
)
from modalpool.kernels.cpu_ragged import segment_max, segment_mean, segment_min, segment_sum
from modalpool.kernels.cpu_terms import dense_power, dense_soften
from modalpool.kernels.fused import dense_moments
from modalpool.kernels.mean import dense_mean

__all__ = [
    "dense_attend",
    "dense_max",
    "dense_mean",
    "dense_min",
    "dense_moments",
    "dense_power",
    "dense_soften",
    "dense_softmax",
    "dense_sum",
    "dense_weighted_sum",
    "segment_attend",
    "segment_max",
    "segment_mean",
    "segment_min",
    "segment_moments",
    "segment_power",
    "segment_soften",
    "segment_softmax",
    "segment_sum",
    "segment_weighted_sum",
]
