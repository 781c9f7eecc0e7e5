"""Weak localisation: the features of elements as colours over the input, by principal components and by clusters."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tasks.task.base import PoolingTask

SAMPLE = 20_000  # elements that components and clusters are fitted to
# Okabe and Ito's colours, which everybody can tell apart; more clusters begin again.
PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999")


class Elements:
    """Principal components and clusters of element features.

    Args:
        features: (N, C), of elements of many samples.
        clusters: Number of clusters.
        seed: Seed of their beginning.
    """

    def __init__(self, features: Tensor, clusters: int = 4, seed: int = 0):
        from sklearn.cluster import KMeans
        from sklearn.decomposition import PCA

        x = features.float().cpu().numpy()
        self.components = PCA(min(3, *x.shape)).fit(x)
        self.clusters = KMeans(min(clusters, len(x)), n_init=4, random_state=seed).fit(x)
        projected = self.components.transform(x)
        self.low, self.high = np.percentile(projected, [2, 98], axis=0)

    def colours(self, task: PoolingTask, batch: Any) -> list[Tensor]:
        """The first three components as red, green and blue, on the grid of each sample's input: (…, 3) in 0 to 1.

        As in DINOv2's figures (Oquab et al. 2024, section 7.6): from the 2nd to the 98th percentile of the elements
        that were fitted. With fewer than three channels blue, and green, are 0.
        """

        def rgb(x: np.ndarray) -> np.ndarray:
            scaled = (self.components.transform(x) - self.low) / np.maximum(self.high - self.low, 1e-12)
            return np.pad(scaled.clip(0, 1), ((0, 0), (0, 3 - scaled.shape[1])))

        return element_maps(task, batch, rgb)

    def labels(self, task: PoolingTask, batch: Any) -> list[Tensor]:
        """The cluster of each element of each sample's input, int64.

        Between the cells of a coarser grid each cluster's share is interpolated, and the largest counts.
        """
        count = self.clusters.n_clusters
        shares = element_maps(task, batch, lambda x: np.eye(count)[self.clusters.predict(x)])
        return [one.argmax(-1) for one in shares]


@torch.no_grad()
def element_maps(task: PoolingTask, batch: Any, what: Callable[[np.ndarray], np.ndarray]) -> list[Tensor]:
    """What a function (N, C) → (N, K) makes of the elements' features, on the grids of the samples' inputs, (…, K)."""
    x, _ = task.encode(batch)
    x = x.movedim(task.pool.layout.axes(x.ndim).channel, -1)
    found = torch.from_numpy(what(x.flatten(0, -2).float().cpu().numpy())).float().to(x.device)
    maps = [task.to_inputs(one, batch) for one in found.view(*x.shape[:-1], -1).unbind(-1)]
    return [torch.stack(sample, -1).cpu() for sample in zip(*maps, strict=True)]


@torch.no_grad()
def element_sample(task: PoolingTask, loader: DataLoader[Any], seed: int = 0) -> Tensor:
    """The features of at most `SAMPLE` elements, (N, C), drawn evenly from the samples of a loader."""
    generator, found = torch.Generator().manual_seed(seed), []
    each = max(1, SAMPLE // max(1, len(loader.dataset)))  # type: ignore[arg-type]
    for batch in loader:
        batch = task.transfer_batch_to_device(batch, task.device, 0)
        for own in task.embed(batch).features:
            found.append(own.cpu()[torch.randperm(len(own), generator=generator)[:each]])
    return torch.cat(found)


def agreement(labels: Sequence[Tensor], truth: Sequence[Tensor]) -> list[float]:
    """The adjusted Rand index of clusters and of what is known of the same elements (Hubert and Arabie 1985).

    0 is what chance gives, 1 the same partition, whatever the clusters are called.

    Example:
        >>> agreement([torch.tensor([2, 2, 0, 0])], [torch.tensor([False, False, True, True])])
        [1.0]
    """
    from sklearn.metrics import adjusted_rand_score

    pairs = zip(labels, truth, strict=True)
    return [float(adjusted_rand_score(known.flatten().cpu(), found.flatten().cpu())) for found, known in pairs]
