"""Where the time of a training step goes: milliseconds a phase, then the operators that take most of it.

    python tests/benchmarks/step.py -c configs/graph/motifs.yaml [any flag of fit]

The data, the model and the precision are those of ``fit``; ``--trainer.accelerator`` names the device.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.profiler import ProfilerActivity, profile

from tasks.commands.cli import run_cli

WARM, TIMED, ROWS = 3, 20, 12


class Phases:
    """Seconds by phase: of one thread CPU time, which neighbours hardly change; else by the clock, a GPU waited for."""

    def __init__(self, device: torch.device):
        self.device = device
        alone = device.type == "cpu" and torch.get_num_threads() == 1
        self.clock = time.process_time if alone else time.perf_counter
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = self.clock()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.seconds[name] += self.clock() - start


def main(args: list[str]) -> None:
    """Build what ``fit`` would, take some steps, print the table."""
    sys.argv = sys.argv[:1]
    cli = run_cli([*args, "--trainer.logger=false"], run=False)
    strategy, data = cli.trainer.strategy, cli.datamodule
    task = cli.model.to(strategy.root_device).train()
    task.trainer = cli.trainer
    task.setup("fit")
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-3)
    batches = _endless(data)
    phases = Phases(strategy.root_device)

    def step() -> None:
        with phases("batch"):
            batch = next(batches)
        with phases("to device"):
            batch = strategy.batch_to_device(batch)
        with strategy.precision_plugin.train_step_context():
            with phases("encoder"):
                x, sets = task.encode(batch)
            with phases("pool"):
                pooled = task.pool(x, **sets)
            with phases("head and loss"):
                logits = task.readout(sets)(pooled)
                loss = task.batch_loss(logits, batch)
        with phases("metrics"), torch.no_grad():
            predictions = task.predictions(logits)
            task.metrics["train_metrics"].update(
                predictions[:, 1] if task.kind == "binary" else predictions, task.target(batch)
            )
        with phases("backward"):
            loss.backward()
        with phases("optimizer"):
            optimizer.step()
            optimizer.zero_grad()

    for _ in range(WARM):
        step()
    phases.seconds.clear()
    for _ in range(TIMED):
        step()
    total = sum(phases.seconds.values())
    print(
        f"{'phase':<16}{'ms':>9}{'share':>8}   (mean of {TIMED} steps of {data.batch_size} on {strategy.root_device})"
    )
    for name, seconds in phases.seconds.items():
        print(f"{name:<16}{seconds / TIMED * 1e3:>9.2f}{seconds / total:>8.0%}")
    print(f"{'step':<16}{total / TIMED * 1e3:>9.2f}")

    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (strategy.root_device.type == "cuda")
    with profile(activities=activities) as profiler:
        for _ in range(WARM):
            step()
    events = [event for event in profiler.key_averages() if _own(event)]
    total = sum(map(_own, events))
    print(f"\n{'operator':<40}{'share':>8}{'calls':>7}")
    for event in sorted(events, key=_own, reverse=True)[:ROWS]:
        print(f"{event.key[:39]:<40}{_own(event) / total:>8.1%}{event.count // WARM:>7}")


def _own(event) -> float:
    """Time in the operator itself: on the GPU where there is one."""
    return getattr(event, "self_device_time_total", 0) or event.self_cpu_time_total


def _endless(data) -> Iterator:
    while True:
        yield from data.train_dataloader()


if __name__ == "__main__":
    main(sys.argv[1:])
