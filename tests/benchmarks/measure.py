"""Interleaved timing of candidates, their peak memory, and their error against float64."""

import gc
import os
import statistics
import sys
import time
from collections.abc import Callable
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile

ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**34)}


def quiet_process() -> None:
    """Start this process again with an allocator that keeps its pages, and one thread: CPU time then has little noise.

    A fresh tensor above 32 MB otherwise costs ten times a read of it in page faults, or not, depending on what the
    neighbours have freed.
    """
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ALLOCATOR)
    torch.set_num_threads(1)


class Timing(NamedTuple):
    """Medians over the rounds: seconds of ours, and how many times ours each peer takes."""

    seconds: float
    ratios: list[float]
    spread: list[tuple[float, float]]  # smallest and largest ratio of a round


def seconds(function: Callable[[], object], device: str, repeats: int) -> float:
    """Seconds of one call: CPU time of the process, or the card's own clock."""
    if device == "cuda":
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(repeats):
            function()
        stop.record()
        torch.cuda.synchronize()
        return start.elapsed_time(stop) / 1e3 / repeats
    begin = time.process_time()
    for _ in range(repeats):
        function()
    return (time.process_time() - begin) / repeats


def race(functions: list[Callable[[], object]], device: str, rounds: int) -> Timing:
    """Time all functions in turn, several rounds; the first is ours."""
    for _ in range(2):
        for function in functions:
            function()
    once = seconds(functions[0], device, 1)
    repeats = max(1, min(300, int(0.01 / max(once, 1e-7))))
    table = [[seconds(function, device, repeats) for function in functions] for _ in range(rounds)]
    columns = list(zip(*[[t / row[0] for t in row[1:]] for row in table], strict=True))
    return Timing(
        statistics.median(row[0] for row in table),
        [statistics.median(column) for column in columns],
        [(min(column), max(column)) for column in columns],
    )


def forward(function: Callable[..., Tensor], inputs: list[Tensor]) -> Callable[[], object]:
    """The forward pass alone, as in evaluation."""
    plain = [given.detach() for given in inputs]

    def run() -> Tensor:
        with torch.no_grad():
            return function(*plain)

    return run


def forward_backward(function: Callable[..., Tensor], inputs: list[Tensor]) -> Callable[[], object]:
    """One training step's share: output and the gradients of all inputs."""
    leaves = [given.detach().requires_grad_() for given in inputs]
    slope: list[Tensor] = []

    def run() -> tuple[Tensor, ...]:
        z = function(*leaves)
        if not slope:
            generator = torch.Generator().manual_seed(0)
            slope.append(torch.randn(z.shape, generator=generator).to(z))
        return torch.autograd.grad(z, leaves, slope[0].reshape(z.shape))

    return run


def peak_bytes(function: Callable[[], object], device: str) -> int:
    """The most that was allocated at one time during a call, beyond what was there before."""
    function()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = function()
        torch.cuda.synchronize()
        del result
        return torch.cuda.max_memory_allocated() - before
    gc.freeze()  # what was there before holds none of it, and is long to look through
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        result = function()
        del result
    now = most = 0
    live: dict[int, int] = {}  # what was there before and is freed meanwhile does not count
    for address, size in _allocations(recorded.profiler.kineto_results.experimental_event_tree()):
        now += size if size > 0 else -live.pop(address, 0)
        most = max(most, now)
        if size > 0:
            live[address] = size
    del recorded
    gc.collect()  # events know their parents: half a gigabyte of circles for a rule of many chunks
    gc.unfreeze()
    return most


def _allocations(roots: list[Any]) -> list[tuple[int, int]]:
    """Address and size of what was allocated and, size negative, freed, in the order of time."""
    found, todo = [], list(roots)
    while todo:
        event = todo.pop()
        todo.extend(event.children)
        if event.tag == _EventType.Allocation:
            fields = event.extra_fields
            found.append((event.start_time_ns, fields.ptr, fields.alloc_size))
    return [(address, size) for _, address, size in sorted(found, key=itemgetter(0))]


def error(got: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> float:
    """Largest error of any of the tensors, relative to that tensor's largest number."""
    worst = 0.0
    for a, b in zip(got, exact, strict=True):
        scale = b.abs().max().item() or 1.0
        worst = max(worst, (a.double().reshape(b.shape) - b).abs().max().item() / scale)
    return worst
