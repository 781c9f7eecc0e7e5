"""How time and memory grow with the input, from 10^4 to 10^9 values.

    python tests/benchmarks/growth.py                     forward to 10^9 values, with the backward to 10^8: 6 GB
    python tests/benchmarks/growth.py --backward-to 9      more than 14 GB

Ragged sets become more, of 125 elements each; dense sets stay five and become longer. Each size runs in a process of
its own, so that nothing is left of the one before. CPU time on one thread with an allocator that keeps its pages
(`measure.quiet_process`), the smallest of several calls; memory is the most that is new at one time during a call.
Writes ``growth.csv`` and ``growth.png``.
"""

import argparse
import csv
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from measure import forward, forward_backward, peak_bytes, quiet_process, seconds
from torch import Tensor

from modalpool import Pool

CHANNELS, LENGTH, BATCH = 80, 125, 5  # channels of an element, elements of a ragged set, dense sets
COLUMNS = ["pool", "pass", "values", "seconds", "megabytes"]
Function = Callable[[Tensor], Tensor]


def pools(values: int) -> tuple[Tensor, dict[str, Function]]:
    """``values`` random numbers as elements ``(N, C)``, and pools that look at them as ragged or dense sets."""
    count = values // CHANNELS
    elements = torch.empty(count, CHANNELS).normal_(generator=torch.Generator().manual_seed(0))
    ptr = torch.arange(0, count + 1, LENGTH)
    mask = torch.rand(BATCH, count // BATCH, generator=torch.Generator().manual_seed(1)) < 0.7

    def ragged(name: str) -> Function:
        pool = Pool("[n] c", name, channels=CHANNELS).requires_grad_(False)
        return lambda x: pool(x, ptr=ptr)

    def dense(name: str, mask: Tensor | None = None) -> Function:
        pool = Pool("b [n] c", name, channels=CHANNELS).requires_grad_(False)
        return lambda x: pool(x.view(BATCH, -1, CHANNELS), mask=mask)

    return elements, {
        **{f"ragged {name}": ragged(name) for name in ("mean", "max", "softmax", "attention")},
        **{f"dense {name}": dense(name) for name in ("mean", "max", "attention")},
        "masked mean": dense("mean", mask),
    }


def measure(values: int, *, backward: bool) -> Iterator[list[object]]:
    """Rows of the table for one size."""
    x, functions = pools(values)
    for wrap in (forward, forward_backward) if backward else (forward,):
        for name, function in functions.items():
            call = wrap(function, [x])
            memory = peak_bytes(call, "cpu")  # calls twice: what is loaded on first use is there afterwards
            once = seconds(call, "cpu", 1)
            repeats = max(1, min(100, int(0.02 / once)))
            rounds = 3 if once < 0.5 else 0
            best = min([once, *(seconds(call, "cpu", repeats) for _ in range(rounds))])
            yield [name, wrap.__name__.replace("_", " + "), values, best, memory / 2**20]


def exponent(values: list[float], seconds: list[float]) -> float:
    """The k of a fitted seconds = a · values^k."""
    return float(np.polyfit(np.log(values), np.log(seconds), 1)[0])


def plot(rows: list[dict[str, str]], path: Path) -> None:
    """Time and memory a value against the number of values, for both passes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9, 6), sharex=True, sharey="row", layout="constrained")
    for column, which in enumerate(("forward", "forward + backward")):
        time, memory = axes[:, column]
        for name in dict.fromkeys(row["pool"] for row in rows):
            mine = [row for row in rows if row["pool"] == name and row["pass"] == which]
            values = np.array([float(row["values"]) for row in mine])
            style = {"marker": "o", "markersize": 3, "linestyle": "-" if "ragged" in name else "--", "label": name}
            time.loglog(values, [float(row["seconds"]) * 1e9 / v for row, v in zip(mine, values, strict=True)], **style)
            new = [float(row["megabytes"]) * 2**20 for row in mine]
            memory.loglog(values, new, **style)
        memory.loglog(values, 4 * values, color="gray", linewidth=1, label="the input itself")
        time.set(title=which)
        memory.set(xlabel="values")
    axes[0, 0].set(ylabel="ns a value")
    axes[1, 0].set(ylabel="new memory at most, bytes")
    figure.legend(*axes[1, 1].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.savefig(path, dpi=75)


def report(rows: list[dict[str, str]]) -> None:
    """Print the fitted exponents of time, and memory at the largest size, as a Markdown table."""
    print("| pool | pass | exponent of time from 10⁶ | ns a value, largest | MB new / of input, largest |")
    print("|---|---|---|---|---|")
    for name, which in dict.fromkeys((row["pool"], row["pass"]) for row in rows):
        mine = [row for row in rows if (row["pool"], row["pass"]) == (name, which)]
        large = [(float(row["values"]), float(row["seconds"])) for row in mine if int(row["values"]) >= 10**6]
        power = f"{exponent(*zip(*large, strict=True)):.2f}" if len(large) > 1 else ""
        last = mine[-1]
        nanoseconds = float(last["seconds"]) / float(last["values"]) * 1e9
        print(
            f"| {name} | {which} | {power} | {nanoseconds:.2f} | "
            f"{float(last['megabytes']):.0f} / {int(last['values']) * 4 / 2**20:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=int, default=9, help="up to 10^TO values")
    parser.add_argument("--backward-to", type=int, default=8, help="forward and backward up to 10^TO values")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="folder of the CSV and the plot")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)  # the size of this process
    given = parser.parse_args()
    path = given.output / "growth.csv"
    if given.one is not None:
        quiet_process()
        with open(path, "a", newline="") as file:
            for row in measure(10**given.one, backward=given.one <= given.backward_to):
                csv.writer(file).writerow(row)
                file.flush()
        return
    given.output.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerow(COLUMNS)
    for size in range(4, given.to + 1):
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--one", str(size)], check=True)
        print(f"10^{size} values done", flush=True)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    report(rows)
    plot(rows, given.output / "growth.png")


if __name__ == "__main__":
    main()
