"""One generalized pooling layer: a weighted sum over the elements of a set, for graphs, audio, volumes and images."""

from modalpool import functional
from modalpool.contributions import contributions
from modalpool.layout import Layout
from modalpool.pool import Pool

__all__ = ["Layout", "Pool", "contributions", "functional"]
__version__ = "0.1.0"
