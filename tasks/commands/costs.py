"""What a task costs: parameters, milliseconds of its pool and of a training batch, and its head's memory."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from tasks.task.base import PoolingTask


class Cost(NamedTuple):
    """What one task costs; times are forward and backward, in float32."""

    parameters: int
    """Of the whole task."""
    pool_ms: float
    """The pool alone, on the features of a batch."""
    batch_ms: float
    """A training batch, without loading it and without the optimizer's step."""


def measure_costs(
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
        task.loss(task(batch), task.target(batch)).backward()  # type: ignore[no-untyped-call]

    return pool, train


def _milliseconds(step: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) * 1000


class Memory(NamedTuple):
    """What the pool and the head of a task take, in float32, of the memory for training."""

    parameters: int
    """Of pool and head."""
    task_parameters: int
    """Of the whole task."""
    training_bytes: int
    """Weights of pool and head, their gradients and AdamW's two moments: four times the weights."""
    activation_bytes: float
    """What pool and head keep of a sample for the backward pass, beside the weights and the features."""


def head_memory(task: PoolingTask, batch: Any) -> Memory:
    """Measure the memory of a task's pool and head on the features of a batch, without the encoder's.

    Args:
        task: The task; it is put into training mode.
        batch: A training batch, on the task's device.
    """
    with torch.no_grad():
        x, sets = task.train().encode(batch)
    x = x.requires_grad_()
    own = [parameter for part in (task.pool, task.head) for parameter in part.parameters()]
    known = {tensor.untyped_storage().data_ptr() for tensor in (x, *task.parameters(), *task.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}  # held here, so that no address is given twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        task.readout(sets)(task.pool(x, **sets))
    parameters = sum(parameter.numel() for parameter in own)
    return Memory(
        parameters,
        sum(parameter.numel() for parameter in task.parameters()),
        4 * 4 * parameters,
        sum(storage.nbytes() for storage in kept.values()) / len(task.ids(batch)),
    )
