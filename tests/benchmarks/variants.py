"""What a step gains by bfloat16, a fused AdamW, torch.compile and channels last, by turns in one process.

    python tests/benchmarks/variants.py configs/graph/nci1.yaml [--threads 2] [--skip compiled] [any flag of fit]

The network, its loss, their gradients and AdamW, on batches that are there already. Milliseconds a step, the median of
the rounds, by the clock and of the CPU, and the median of what each round gains over the first row, which is `fit` as
it is; ``once`` is what a variant's first steps took beyond that: what it compiles.
"""

import argparse
import copy
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import torch

from tasks.commands.cli import run_cli
from tasks.commands.compiling import compile_network

ROUNDS, STEPS, BATCHES = 11, 4, 8


def variants(task: Any) -> dict[str, tuple[Any, bool, bool]]:
    """By name a task of its own, whether it runs in bfloat16, and whether its AdamW is fused."""

    def copied(change: Callable[[Any], Any] = lambda made: made, precision: str = "32-true") -> Any:
        made = copy.deepcopy(task)
        made.trainer = SimpleNamespace(precision=precision)  # what `setup` asks it
        made.setup("fit")
        made.trainer = None
        change(made)
        return made

    def compiled(made: Any) -> None:
        compile_network(made, torch.device("cpu"))

    def contiguous(made: Any) -> None:
        for parameter in made.parameters():
            # `contiguous` would keep the strides of one channel, by which a convolution lays its output channels last
            parameter.data = torch.empty(parameter.shape).copy_(parameter.data)

    made = {
        "as it is": (copied(), False, False),
        "bf16": (copied(precision="bf16-mixed"), True, False),
        "fused": (copied(), False, True),
        "compiled": (copied(compiled), False, False),
        "compiled bf16": (copied(compiled, "bf16-mixed"), True, False),
    }
    if any(one.ndim in (4, 5) and not one.is_contiguous() for one in made["as it is"][0].parameters()):
        made["channels first"] = (copied(contiguous), False, False)
        made["the same, bf16"] = (copied(contiguous), True, False)
    return made


def stepper(task: Any, bf16: bool, fused: bool, batches: list[Any]) -> Callable[[], None]:
    """What takes the next step of a task."""
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-4, fused=fused)
    endless = itertools.cycle(batches)

    def step() -> None:
        batch = next(endless)
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            loss = task.batch_loss(task(batch), batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def main(args: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--skip", default="", help="names of variants that begin so are left out")
    own, flags = parser.parse_known_args(args)
    sys.argv = sys.argv[:1]
    torch.set_num_threads(own.threads)
    torch._dynamo.config.recompile_limit = 64  # two of the variants share it
    cli = run_cli(["-c", own.config, *flags, "--trainer.logger=false", "--trainer.accelerator=cpu"], run=False)
    batches = list(itertools.islice(itertools.cycle(cli.datamodule.train_dataloader()), BATCHES))
    steps, once = {}, {}
    for name, (task, bf16, fused) in variants(cli.model.train()).items():
        if own.skip and name.startswith(own.skip):
            continue
        steps[name] = stepper(task, bf16, fused, batches)
        start = time.perf_counter()
        for _ in range(BATCHES):
            steps[name]()
        once[name] = time.perf_counter() - start
        print(f"{name}: {once[name]:.1f} s for the first {BATCHES} steps", file=sys.stderr, flush=True)
    wall, cpu = ({name: [] for name in steps} for _ in range(2))
    for _ in range(ROUNDS):
        for name, step in steps.items():
            start, used = time.perf_counter(), time.process_time()
            for _ in range(STEPS):
                step()
            wall[name].append((time.perf_counter() - start) / STEPS * 1e3)
            cpu[name].append((time.process_time() - used) / STEPS * 1e3)
    first = next(iter(steps))
    print(f"{own.config}, batches of {cli.datamodule.batch_size}, {own.threads} thread(s)")
    print(f"{'variant':<16}{'wall ms':>9}{'CPU ms':>9}{'gain':>7}{'CPU':>7}{'once, s':>9}")
    for name in steps:
        gains = [statistics.median(a / b for a, b in zip(all_[first], all_[name], strict=True)) for all_ in (wall, cpu)]
        row = [statistics.median(wall[name]), statistics.median(cpu[name])]
        extra = once[name] - BATCHES * row[0] / 1e3
        print(f"{name:<16}{row[0]:>9.1f}{row[1]:>9.1f}{gains[0]:>7.2f}{gains[1]:>7.2f}{extra:>9.1f}")


if __name__ == "__main__":
    main(sys.argv[1:])
