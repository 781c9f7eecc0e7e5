"""What each fast path of a CPU buys: how many times its time the definition takes, on the works of the race.

    python tests/benchmarks/buys.py                    about ten minutes
    python tests/benchmarks/buys.py --only "ragged m"  works whose name and size contain all these words

Both are the same call; the definition comes from the same switch that gives it to compilers. CPU time on one thread,
interleaved, medians over rounds, peak of new memory beside it.
"""

import argparse
from collections.abc import Callable
from contextlib import contextmanager

import torch
from cases import Case, Graphs, all_cases, lengths_around, randn
from measure import forward, forward_backward, peak_bytes, quiet_process, race

from modalpool import Pool, sets
from modalpool.kernels import Segments, definition


def by_definition(values: torch.Tensor, of: tuple[int, ...] | Segments) -> definition.Group:
    return definition.Ragged(of) if isinstance(of, Segments) else definition.Dense(of)


@contextmanager
def without_fast_paths():
    before, sets.path = sets.path, by_definition
    try:
        yield
    finally:
        sets.path = before


def plainly(function: Callable[..., object]) -> Callable[..., object]:
    def call(*args: object) -> object:
        with without_fast_paths():
            return function(*args)

    return call


def more_cases() -> list[Case]:
    """Works that the race has no peer for."""
    x = randn(16, 64, 32, 32, device="cpu")
    mask = torch.arange(32 * 32).reshape(32, 32) < lengths_around(16, 700)[:, None, None]
    found = []
    for name in ("max", "softmax", "power"):
        pool = Pool("b c [h w]", name)
        given = x.abs() + 0.1 if name == "power" else x
        found.append(
            Case(f"dense {name}, masked", "(16, 64, 32, 32)", [given], lambda x, p=pool: p(x, mask=mask), {}, {})
        )
    graphs = Graphs.make("m", "cpu")
    pool = Pool("[n] c", "attention", channels=128, score="gated", heads=4).requires_grad_(False)
    gated = lambda x: pool(x, ptr=graphs.ptr)  # noqa: E731
    return [*found, Case("ragged attention, gated", "m", [graphs.x], gated, {}, {})]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    quiet_process()
    for case in [*all_cases("cpu", quick=False), *more_cases()]:
        if not all(word in f"{case.work} {case.size}" for word in given.only.split()) or "l" in case.size[:1]:
            continue
        line = f"{case.work:<32}{case.size:<40}"
        for name, wrap in [("forward", forward), ("both", forward_backward)][: 1 + case.backward]:
            calls = [wrap(case.ours, case.inputs), wrap(plainly(case.ours), case.inputs)]
            timing = race(calls, "cpu", given.rounds)
            memory = [peak_bytes(call, "cpu") / 2**20 for call in calls]
            line += f"{name} {timing.ratios[0]:>6.2f}x {memory[0]:>7.1f} /{memory[1]:>7.1f} MB   "
        print(line, flush=True)


if __name__ == "__main__":
    main()
