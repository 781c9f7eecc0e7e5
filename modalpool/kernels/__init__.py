"""How the handful of set operations are computed. Numbers never differ between kernels, only the time they take.

``plain`` is the definition: ordinary torch operations that differentiate twice, compile and export. A faster path sits
beside it under the same names and arguments, and is chosen here and nowhere else.
"""

from modalpool.kernels.plain import (
    Segments,
    dense_max,
    dense_sum,
    dense_weighted_sum,
    segment_max,
    segment_sum,
    segment_weighted_sum,
    split_channels,
)

__all__ = [
    "Segments",
    "dense_max",
    "dense_sum",
    "dense_weighted_sum",
    "segment_max",
    "segment_sum",
    "segment_weighted_sum",
    "split_channels",
]
