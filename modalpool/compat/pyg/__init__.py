"""For users of PyTorch Geometric: the reductions as `Aggregation`s, under PyG's names and with PyG's arguments.

    from modalpool.compat.pyg import MeanAggregation, PoolAggregation
    conv = SAGEConv(16, 32, aggr=MeanAggregation())
    readout = PoolAggregation("attention", channels=32, heads=4)
    z = readout(x, batch.batch, dim_size=batch.batch_size)

They take ``index`` in any order or ``ptr``, need no ``torch_scatter``, add up in float32 under half precision, and give
zero for every empty set (a product: one).
"""

from modalpool.compat.pyg.aggregations import (
    MaxAggregation,
    MeanAggregation,
    MinAggregation,
    MulAggregation,
    PoolAggregation,
    StdAggregation,
    SumAggregation,
    VarAggregation,
    VariancePreservingAggregation,
    register,
)
from modalpool.compat.pyg.quantiles import MedianAggregation, QuantileAggregation
from modalpool.compat.pyg.readouts import global_add_pool, global_max_pool, global_mean_pool
from modalpool.compat.pyg.weighing import AttentionalAggregation, PowerMeanAggregation, SoftmaxAggregation

__all__ = [
    "AttentionalAggregation",
    "MaxAggregation",
    "MeanAggregation",
    "MedianAggregation",
    "MinAggregation",
    "MulAggregation",
    "PoolAggregation",
    "PowerMeanAggregation",
    "QuantileAggregation",
    "SoftmaxAggregation",
    "StdAggregation",
    "SumAggregation",
    "VarAggregation",
    "VariancePreservingAggregation",
    "global_add_pool",
    "global_max_pool",
    "global_mean_pool",
    "register",
]
