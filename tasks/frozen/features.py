"""Frozen features: what a network that learns no more makes of samples, and what they are without any network."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from torch import Tensor
from torch.utils.data import Dataset

from modalpool import Pool
from tasks.data.base import PoolingData
from tasks.data.problems import BadInput
from tasks.task.base import PoolingTask
from tasks.task.embedding import stack_vectors


def readout(pool: Pool, options: dict[str, Any]) -> Pool:
    """A pool in place of a task's own, which learns nothing.

    Args:
        pool: The task's.
        options: ``reduction`` and its options; empty = the task's own.

    Raises:
        BadInput: If there is no such pool, or it would have to learn.

    Example:
        >>> readout(Pool("b c [d h w]", channels=8), {"reduction": "pyramid", "levels": [[3, 4, 3]]}).vectors
        36
    """
    if not options:
        return pool
    try:
        found = Pool(pool.layout.text, channels=pool.channels, **options)
    except (TypeError, ValueError) as error:
        raise BadInput(f"--pool: {error}") from error
    if any(True for _ in found.parameters()):
        raise BadInput(f"--pool: expected a rule that learns nothing, got {options['reduction']}; take mean or pyramid")
    return found.eval()


@torch.no_grad()
def network_features(task: PoolingTask, pool: Pool, data: PoolingData, samples: Dataset[Any]) -> list[Tensor]:
    """What a network's pooled features of each sample are, flat where no axis is kept, without random changes."""
    found: list[Tensor] = []
    for batch in data.loader(samples, False):
        x, sets = task.encode(task.transfer_batch_to_device(batch, task.device, 0))
        found += pool(x, **sets).float().cpu().unbind()
    return found


@torch.no_grad()
def raw_features(task: PoolingTask, pool: Pool, data: PoolingData, samples: Dataset[Any]) -> list[Tensor]:
    """The same of the network's input (`Modality.inputs`); nothing where a task does not tell it.

    A pool that learns gives way to the mean. Samples come one by one, so that none has padding.
    """
    learns = any(True for _ in pool.parameters())
    rule: Any = "mean" if learns else deepcopy(pool.reduction)
    own, found, size = Pool(pool.layout.text, rule), [], data.batch_size
    try:
        data.batch_size = 1
        for batch in data.loader(samples, False):
            x = task.inputs(task.transfer_batch_to_device(batch, task.device, 0))
            if x is None:
                return []
            found.append(own(x).float().cpu()[0])
    finally:
        data.batch_size = size
    return found


def flat(train: Sequence[Tensor], test: Sequence[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Samples by features, zeros behind kept axes that are shorter than others'; what is constant is left out.

    Example:
        >>> flat([torch.tensor([1.0, 5.0]), torch.tensor([2.0, 5.0])], [torch.tensor([3.0])])[1]
        array([[3.]])
    """
    vectors = stack_vectors([*train, *test]).flatten(1).double().numpy()
    learned, asked = vectors[: len(train)], vectors[len(train) :]
    varied = np.ptp(learned, axis=0) > 0
    return learned[:, varied], asked[:, varied]


def standardised(train: Any, test: Any) -> tuple[Any, Any]:
    """Mean 0 and standard deviation 1 over the training part, labelled or not; sparse counts as they are."""
    if issparse(train):
        return train, test
    mean, std = train.mean(0), train.std(0)
    return (train - mean) / std, (test - mean) / std
