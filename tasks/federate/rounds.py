"""Federated averaging: sites train by turns from common weights, which their mean becomes (McMahan et al. 2017).

Only weights and numbers of samples leave a site. That is not privacy: weights tell of the samples that made them.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tasks.data.base import PoolingData
from tasks.data.order import seed_of
from tasks.data.problems import BadInput
from tasks.task.base import PoolingTask
from tasks.task.optimiser import adamw

Weights = dict[str, Tensor]
Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def shared(task: nn.Module, *, own_norms: bool = False) -> Weights:
    """A copy of the weights that travel between the sites, by name.

    Args:
        task: What is trained.
        own_norms: Keep norms, with their statistics, where they are: each site has its own (FedBN, Li et al. 2021).
    """
    norms = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
    own = {name for name, part in task.named_modules() if own_norms and isinstance(part, norms)}
    return {
        name: value.detach().clone()
        for name, value in task.state_dict().items()
        if name.rpartition(".")[0] not in own and not name.endswith("num_batches_tracked")
    }


def train(
    task: PoolingTask,
    data: PoolingData,
    weights: Weights,
    *,
    number: int = 0,
    rounds: int = 1,
    epochs: int = 1,
    seed: int = 0,
    mu: float = 0.0,
    optimizer: Optimizer | None = None,
) -> tuple[Weights, int]:
    """A site's part of a round: take the weights, train on its own samples, give weights back.

    The same arguments give the same weights, in whichever process and whatever ran before.

    Args:
        task: Made for the spec of all sites (`tasks.federate.agree`). Its lr falls in a cosine over the rounds.
        data: The site's own.
        weights: The common ones (`shared`); those that they do not have stay as they are in ``task``.
        number: Which round, from 0.
        rounds: How many there will be.
        epochs: How often each sample is seen in a round.
        seed: The site's; the order of its samples keeps the first one that ``data`` was trained with.
        mu: How strongly the network is held to the common weights: μ/2 · ‖w - w₀‖² (FedProx, Li et al. 2020).
        optimizer: Takes the parameters; None = AdamW, as in any training here, new in each round.

    Returns:
        The site's weights under the names of ``weights``, and its number of training samples.

    Raises:
        BadInput: If the weights are those of another task, or the task needs more than its batches.
    """
    if unknown := task.load_state_dict(weights, strict=False).unexpected_keys:
        raise BadInput(f"weights: expected those of this task, got {', '.join(unknown)}; build it alike at all sites")
    if task.consistency or task.pooled_mixup:
        raise BadInput(
            f"federate: expected consistency 0 and pooled_mixup 0, got {task.consistency} and {task.pooled_mixup}; "
            "leave them out"
        )
    common = [parameter.detach().clone() for parameter in task.parameters()]
    if optimizer is None:
        lr = task.lr * 0.5 * (1 + math.cos(math.pi * number / rounds))
        steps = adamw(task.parameters(), lr=lr, weight_decay=task.weight_decay, warmup=0.0, steps=1)["optimizer"]
    else:
        steps = optimizer(task.parameters())
    data.setup()
    data.reseed(seed)  # of which the loader makes the order of each epoch
    loader: Any = data.train_dataloader()
    data.reseed(seed_of(seed, number))
    task.train()
    for epoch in range(epochs):
        loader.sampler.set_epoch(number * epochs + epoch)
        for batch in loader:
            batch = task.mixed(task.transfer_batch_to_device(batch, task.device, 0))
            loss = task.batch_loss(task(batch), batch)
            if mu:
                away = [(now - then).square().sum() for now, then in zip(task.parameters(), common, strict=True)]
                loss = loss + mu / 2 * torch.stack(away).sum()
            steps.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            steps.step()
    state = task.state_dict()
    return {name: state[name].detach().clone() for name in weights}, len(loader.sampler)


@torch.no_grad()
def score(task: PoolingTask, data: PoolingData) -> dict[str, float]:
    """The metrics of the site's test samples, by name (`tasks.task.metrics.build_metrics`)."""
    data.setup()
    task.eval()
    metrics: Any = task.metrics["test_metrics"]
    metrics.reset()
    for batch in data.test_dataloader():
        batch = task.transfer_batch_to_device(batch, task.device, 0)
        predictions = task.predictions(task(batch))
        metrics.update(predictions[:, 1] if task.kind == "binary" else predictions, task.target(batch))
    return {name: float(value) for name, value in metrics.compute().items()}


def average(updates: Sequence[tuple[Weights, int]], *, equal: bool = False) -> Weights:
    """The server's part of a round: the mean of the sites' weights, each by its number of samples.

    Args:
        updates: What `train` returned at each site.
        equal: Let every site count the same.

    Example:
        >>> sites = [({"w": torch.tensor([0.0])}, 30), ({"w": torch.tensor([4.0])}, 10)]
        >>> average(sites)["w"].item(), average(sites, equal=True)["w"].item()
        (1.0, 2.0)
    """
    counts = torch.tensor([1 if equal else count for _, count in updates], dtype=torch.float64)
    shares = counts / counts.sum()
    mean: Weights = {}
    for name, first in updates[0][0].items():
        stacked = torch.stack([weights[name].double() for weights, _ in updates], -1)
        mean[name] = (stacked @ shares.to(stacked.device)).to(first)
    return mean


def federate(
    tasks: Sequence[PoolingTask],
    sites: Sequence[PoolingData],
    *,
    rounds: int,
    equal: bool = False,
    own_norms: bool = False,
    seed: int = 0,
    **options: Any,
) -> Weights:
    """All rounds in one process, where sites are simulated.

    Args:
        tasks: One for each site, alike; they end with the common weights, and with their own norms if these stay.
        sites: Their data.
        rounds: How often they average.
        equal: See `average`.
        own_norms: See `shared`.
        seed: Another one gives other orders at all sites.
        options: Of `train`.

    Returns:
        The common weights.
    """
    weights = shared(tasks[0], own_norms=own_norms)
    for number in range(rounds):
        weights = average(
            [
                train(task, data, weights, number=number, rounds=rounds, seed=seed_of(seed, site), **options)
                for site, (task, data) in enumerate(zip(tasks, sites, strict=True))
            ],
            equal=equal,
        )
    for task in tasks:
        task.load_state_dict(weights, strict=False)
    return weights
