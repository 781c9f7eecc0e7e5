"""Race every pool against what people use today, and say which bars are met.

    python tests/benchmarks                      all sizes, on the CPU
    python tests/benchmarks --device cuda
    python tests/benchmarks --quick --only mean

Ratios are how many times our time a peer takes, medians over interleaved rounds. On the CPU the process starts again
with an allocator that keeps its pages, runs on one thread and counts CPU time (`measure.quiet_process`). The table is
written as CSV and as Markdown, beside a plot.
"""

import argparse
import csv
import platform
import sys
from pathlib import Path

import torch
from cases import Case, all_cases
from measure import error, forward, forward_backward, peak_bytes, quiet_process, race

COLUMNS = [
    "work",
    "size",
    "pass",
    "milliseconds",
    "peer",
    "ratio",
    "low",
    "high",
    "bar",
    "met",
    "megabytes",
    "peer megabytes",
    "error",
    "peer error",
]


def device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


def run(case: Case, device: str, rounds: int) -> list[dict[str, object]]:
    """Rows of the table: one per pass and peer."""
    rows = []
    functions = [case.ours, *case.peers.values()]
    passes = [("forward", forward, 0)] + ([("forward+backward", forward_backward, 1)] if case.backward else [])
    for name, wrap, which in passes:
        calls = [wrap(function, case.inputs) for function in functions]
        exact = _tuple(wrap(case.ours, [given.double() for given in case.inputs])()) if _exact(case) else None
        errors = [error(_tuple(call()), exact) if exact else float("nan") for call in calls]
        timing = race(calls, device, rounds)
        memory = [peak_bytes(call, device) / 2**20 for call in calls]
        for i, (peer, ratio) in enumerate(zip(case.peers, timing.ratios, strict=True)):
            bar = case.bars.get(peer, (None, None))[which]
            values = (
                case.work, case.size, name, round(timing.seconds * 1e3, 4), peer, round(ratio, 3),
                *(round(edge, 3) for edge in timing.spread[i]), bar, None if bar is None else ratio >= bar,
                round(memory[0], 2), round(memory[i + 1], 2), errors[0], errors[i + 1],
            )  # fmt: skip
            rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def _tuple(value: object) -> tuple[torch.Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def _exact(case: Case) -> bool:
    """Whether the float64 form fits beside the rest (and runs: modules of peers stay in float32)."""
    return sum(given.numel() for given in case.inputs) < 2**27


def show(row: dict[str, object]) -> str:
    bar = "" if row["bar"] is None else f"{row['bar']:.2f} {'met' if row['met'] else 'MISSED'}"
    return (
        f"{row['work']:<32.32}{row['size']:<38.38}{row['pass']:<18}{row['milliseconds']:>10.3f} ms  "
        f"{row['peer']:<16}{row['ratio']:>7.2f}x  {bar:<12} "
        f"{row['megabytes']:>8.1f} /{row['peer megabytes']:>8.1f} MB  "
        f"{row['error']:.0e} / {row['peer error']:.0e}"
    )


def markdown(rows: list[dict[str, object]]) -> str:
    """A table with a line for each work, size and peer; memory and error are those of the last pass."""
    lines = [
        "| work | size | peer | forward (bar) | forward + backward (bar) | MB ours / peer | error ours / peer |",
        "|---|---|---|---|---|---|---|",
    ]
    for key in dict.fromkeys((row["work"], row["size"], row["peer"]) for row in rows):
        passes = {row["pass"]: row for row in rows if (row["work"], row["size"], row["peer"]) == key}
        ratios = [_ratio(passes[name]) if name in passes else "" for name in ("forward", "forward+backward")]
        last = list(passes.values())[-1]
        memory = f"{last['megabytes']:.0f} / {last['peer megabytes']:.0f}"
        lines.append(f"| {' | '.join([*key, *ratios, memory])} | {last['error']:.0e} / {last['peer error']:.0e} |")
    return "\n".join(lines) + "\n"


def _ratio(row: dict[str, object]) -> str:
    return f"{row['ratio']:.2f}" + ("" if row["bar"] is None else f" ({row['bar']:.2f})")


def plot(rows: list[dict[str, object]], title: str, path: Path) -> None:
    """Bars of all ratios, with a tick where the bar is."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in rows if row["bar"] is not None]
    if not rows:
        return
    figure, axis = plt.subplots(figsize=(9, 1 + 0.22 * len(rows)))
    names = [f"{row['work']}, {row['size']}, {row['pass']} / {row['peer']}" for row in rows]
    axis.barh(
        range(len(rows)), [row["ratio"] for row in rows], color=["#3a7" if row["met"] else "#c54" for row in rows]
    )
    axis.plot([row["bar"] for row in rows], range(len(rows)), "k|", markersize=7, label="bar")
    axis.set(xscale="log", xlabel="times faster than the peer", title=title, ylim=(len(rows) - 0.4, -0.6))
    axis.set_yticks(range(len(rows)), names, fontsize=6)
    axis.legend()
    figure.savefig(path, dpi=150, bbox_inches="tight")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="one size of each, fewer rounds")
    parser.add_argument("--only", default="", help="only works whose name contains this")
    parser.add_argument("--rounds", type=int, default=None, help="rounds per race (7, quick 3)")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="folder of the CSV and the plot")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a bar is missed")
    given = parser.parse_args()
    if given.device == "cpu":
        quiet_process()
    name = device_name(given.device)
    print(f"{name}, torch {torch.__version__}")
    rows: list[dict[str, object]] = []
    for case in all_cases(given.device, quick=given.quick):
        if given.only in f"{case.work} {case.size}":
            for row in run(case, given.device, given.rounds or (3 if given.quick else 7)):
                rows.append(row)
                print(show(row), flush=True)
    given.output.mkdir(parents=True, exist_ok=True)
    with open(given.output / f"{given.device}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    (given.output / f"{given.device}.md").write_text(markdown(rows))
    plot(rows, name, given.output / f"{given.device}.png")
    judged = [row for row in rows if row["bar"] is not None]
    print(f"{sum(bool(row['met']) for row in judged)} of {len(judged)} bars met; tables and plot in {given.output}")
    met = all(row["met"] for row in judged)
    if given.device == "cuda" and not given.only:
        from gpu import bandwidth

        met &= bandwidth(given.output, megabytes=128 if given.quick else 1024)
    return int(given.strict and not met)


if __name__ == "__main__":
    sys.exit(main())
