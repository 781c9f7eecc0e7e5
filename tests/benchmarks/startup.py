"""How long ``python -m tasks`` takes to answer: its help, and ``fit`` to the end of its first step, in each modality.

    python tests/benchmarks/startup.py [CONFIG ...]

Wall time and CPU time of a fresh process, the best of three; the first of them warms the file cache.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = [f"configs/{name}.yaml" for name in ("graph/motifs", "audio/timbre", "volume/lesions")]
STOP = """
import os
from lightning.pytorch import Callback

class Stop(Callback):
    def on_train_batch_end(self, *_):
        os._exit(0)
"""


def measure(words: list[str], path: str) -> tuple[float, float]:
    """Seconds of wall and CPU time of ``python -m tasks WORDS``."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": path}
    subprocess.run([sys.executable, "-m", "tasks", *words], cwd=ROOT, env=environment, check=True, capture_output=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(configs: list[str]) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "first_step.py").write_text(STOP)
        stop = ["--trainer.callbacks+=first_step.Stop", f"--run.root={folder}"]
        commands = {"--help": ["--help"], **{config: ["fit", "-c", config, *stop] for config in configs}}
        print(f"{'python -m tasks':<30}{'wall s':>8}{'CPU s':>8}")
        for name, words in commands.items():
            runs = [measure(words, folder) for _ in range(3)]
            print(f"{name:<30}" + "".join(f"{min(values):>8.2f}" for values in zip(*runs, strict=True)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or CONFIGS)
