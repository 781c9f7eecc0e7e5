"""The example of sets that are spread over processes compares with one process itself."""

import subprocess
import sys

import pytest
from toy import ROOT


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "processes"), [("volume", 2), ("recording", 3)])
def test_parts_train_what_the_whole_trains(kind, processes):
    command = [sys.executable, "examples/spread.py", "--kind", kind, "--processes", str(processes), "--steps", "8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=True)
    apart = float(done.stdout.rpartition("at most ")[2])
    assert 0 <= apart < 1e-9
    rows = [line.split() for line in done.stdout.splitlines()[1:-1]]
    assert len(rows) == 8
    assert all(parts == whole for _, parts, whole in rows)
