"""How large the samples of a data set are where they are pooled."""

import itertools

import torch
from tqdm import tqdm

from tasks.data.base import PoolingData
from tasks.task.base import PoolingTask


def largest(task: PoolingTask, data: PoolingData) -> list[int]:
    """The largest size of a task's features along each axis of elements, over all samples of all parts.

    Where an index says which graph a node belongs to, the number of nodes of the largest graph. No target is read.

    Args:
        task: The task, in evaluation mode; it need not be trained.
        data: Its data.
    """
    found: list[list[int]] = []
    loaders = [data.loader(data.still(part), False) for part in data.datasets]
    for batch in tqdm(itertools.chain(*loaders), desc="sizes", total=sum(map(len, loaders)), dynamic_ncols=True):
        with torch.no_grad():
            x, sets = task.encode(batch)
        axes = task.pool.layout.axes(x.ndim)
        if axes.ragged:
            found.append([int(torch.bincount(sets["index"]).max())])
        else:
            found.append([size for axis, size in enumerate(x.shape) if axis not in (axes.batch, axes.channel)])
    return [max(along) for along in zip(*found, strict=True)]
