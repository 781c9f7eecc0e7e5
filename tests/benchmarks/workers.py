"""What processes that load batches gain: epochs of training with 0, 1 and 2 of them by turns, in one process.

    python tests/benchmarks/workers.py configs/volume/lesions.yaml [--threads 1] [any flag of fit]

Seconds of an epoch by the clock, the median of the rounds, and the median of what each round gains over none. The first
epoch, in which workers begin, is not counted.
"""

import argparse
import statistics
import sys
import time

import torch

from tasks.commands.cli import run_cli

ROUNDS, NUMBERS, MOST = 5, (0, 1, 2), 40


def main(args: list[str]) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--threads", type=int, default=1)
    own, flags = parser.parse_known_args(args)
    sys.argv = sys.argv[:1]
    torch.set_num_threads(own.threads)
    cli = run_cli(["-c", own.config, *flags, "--trainer.logger=false", "--trainer.accelerator=cpu"], run=False)
    task, data, loaders = cli.model.train(), cli.datamodule, {}
    task.trainer = cli.trainer
    task.setup("fit")
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-4)
    for number in NUMBERS:
        data.num_workers = number
        loaders[number] = data.train_dataloader()

    def epoch(number: int) -> float:
        start = time.perf_counter()
        for step, batch in enumerate(loaders[number], 1):
            task.batch_loss(task(batch), batch).backward()
            optimizer.step()
            optimizer.zero_grad()
            if step == MOST:
                break
        return time.perf_counter() - start

    seconds: dict[int, list[float]] = {number: [] for number in NUMBERS}
    for turn in range(ROUNDS + 1):
        for number in NUMBERS:
            took = epoch(number)
            if turn:
                seconds[number].append(took)
    print(f"{own.config}, {min(len(loaders[0]), MOST)} steps of {data.batch_size}, {own.threads} thread(s)")
    for number, found in seconds.items():
        gain = statistics.median(none / one for none, one in zip(seconds[0], found, strict=True))
        print(f"{number} workers  {statistics.median(found):>8.2f} s  {gain:>6.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
