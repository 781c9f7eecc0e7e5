"""How long ``python -m tasks`` takes to answer: its help, and ``fit`` to the end of its first step, in each modality.

    python tests/benchmarks/startup.py [CONFIG ...]

Seconds of fresh processes, the best of some runs, the first of which warms the file cache: by the clock, then of the
CPU, then where the CPU's go.
"""

import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = [f"configs/{name}.yaml" for name in ("graph/motifs", "audio/timbre", "volume/lesions")]
RUNS = 5
PHASES = ("python", "Lightning", "the field's library", "parsing", "data", "model, trainer", "first step")
FIRST = """
import functools, importlib, os, sys, time
from lightning.pytorch import Callback

marks = []

def mark(*_):
    marks.append(time.process_time())

class Stop(Callback):
    def on_train_start(self, *_):
        mark()

    def on_train_batch_end(self, *_):
        mark()
        print("marks", *marks)
        sys.stdout.flush()
        os._exit(0)
"""
CHILD = """
import importlib, sys, time
marks = [time.process_time()]
from tasks.__main__ import main
from tasks.extras import uncollected
with uncollected():
    from tasks.commands.cli import CLI
    marks.append(time.process_time())
    importlib.import_module(sys.argv.pop(1))
    marks.append(time.process_time())
    import first_step

def marked(name, before):
    method = getattr(CLI, name)
    def timed(*args):
        if before:
            first_step.mark()
        result = method(*args)
        if not before:
            first_step.mark()
        return result
    setattr(CLI, name, timed)

first_step.marks[:] = marks
marked("spec_for", True)
marked("spec_for", False)
main(sys.argv[1:])
"""


def measure(words: list[str], path: str) -> tuple[float, float]:
    """Seconds of wall and CPU time of ``python WORDS``."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    _run(words, path)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def phases(config: str, words: list[str], path: str) -> list[float]:
    """CPU seconds of each phase of a fit."""
    said = _run(["-c", CHILD, f"tasks.{Path(config).parent.name}", *words], path)
    marks = [0.0, *map(float, said.rpartition("marks ")[2].split())]
    return [later - earlier for earlier, later in itertools.pairwise(marks)]


def _run(words: list[str], path: str) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{path}"}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout


def main(configs: list[str]) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "first_step.py").write_text(FIRST)
        stop = ["--trainer.callbacks+=first_step.Stop", f"--run.root={folder}"]
        commands = {"--help": ["--help"], **{config: ["fit", "-c", config, *stop] for config in configs}}
        print(f"{'python -m tasks':<30}{'wall s':>8}{'CPU s':>8}   " + ", ".join(PHASES))
        for name, words in commands.items():
            runs = [measure(["-m", "tasks", *words], folder) for _ in range(RUNS)]
            parts = [phases(name, words, folder) for _ in range(RUNS)] if words[0] == "fit" else []
            best = [min(values) for values in zip(*runs, strict=True)]
            where = min(parts, key=sum) if parts else []
            row = "".join(f"{value:>8.2f}" for value in best) + "   " + ", ".join(f"{value:.2f}" for value in where)
            print(f"{name:<30}{row}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or CONFIGS)
