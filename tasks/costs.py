"""What a task costs: parameters, and milliseconds of its pool and of a training batch."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from tasks.base import PoolingTask


class Cost(NamedTuple):
    """What one task costs; times are forward and backward, in float32."""

    parameters: int
    """Of the whole task."""
    pool_ms: float
    """The pool alone, on the features of a batch."""
    batch_ms: float
    """A training batch, without loading it and without the optimizer's step."""


def measure(
    tasks: dict[str, PoolingTask], batch: Any, *, device: torch.device | str = "cpu", rounds: int = 20
) -> dict[str, Cost]:
    """Time tasks on one batch, each the median of all rounds.

    They take turns in every round, so that what else the computer does hits all of them alike.

    Args:
        tasks: Tasks of the same data, by name.
        batch: A training batch.
        device: Where to measure.
        rounds: How often; three more come first and do not count.
    """
    device = torch.device(device)
    timed = {name: _steps(task.to(device).train(), batch, device) for name, task in tasks.items()}
    taken: dict[str, list[list[float]]] = {name: [[], []] for name in tasks}
    for _ in range(rounds + 3):
        for name, steps in timed.items():
            for times, step in zip(taken[name], steps, strict=True):
                times.append(_milliseconds(step, device))
    return {
        name: Cost(
            sum(parameter.numel() for parameter in task.parameters()),
            *(statistics.median(times[3:]) for times in taken[name]),
        )
        for name, task in tasks.items()
    }


def _steps(task: PoolingTask, batch: Any, device: torch.device) -> tuple[Callable[[], None], Callable[[], None]]:
    """The pool's step and the whole task's."""
    batch = task.transfer_batch_to_device(batch, device, 0)
    x, sets = task.encode(batch)
    x = x.detach().requires_grad_()

    def pool() -> None:
        x.grad = None
        task.pool(x, **sets).sum().backward()

    def train() -> None:
        task.zero_grad()
        task.loss(task(batch), task.target(batch)).backward()

    return pool, train


def _milliseconds(step: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) * 1000
