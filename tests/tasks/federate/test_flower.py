"""The Flower app trains what the rounds in one process train, says so in a file, and fails where Flower does not."""

import json
import subprocess
import sys
from copy import deepcopy

import pytest
import torch
from toy import ROOT

from tasks.commands.cli import plan
from tasks.federate import agree, federate

pytest.importorskip("flwr", reason="flwr has an environment of its own: examples/flower/README.md")
pytestmark = pytest.mark.slow  # half a minute each: Flower's server, Ray, and every site loads torch
SITES = ["--data.side=8 --data.train=40", "--data.side=12 --data.train=24 --data.power=2"]


def simulate(result, port, *options):
    sites = [f"--site={site}" for site in SITES]
    command = [
        sys.executable,
        str(ROOT / "examples" / "flower" / "simulate.py"),
        f"--result={result}",
        f"--port={port}",
    ]
    return subprocess.run([*command, *sites, *options], capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.parametrize(
    ("run_config", "options"),
    [
        ("", {}),
        ('strategy="fedprox" mu=0.5 equal=true own-norms=true', {"mu": 0.5, "equal": True, "own_norms": True}),
    ],
    ids=["fedavg", "fedprox"],
)
def test_it_trains_the_same_weights_as_one_process(run_config, options, tmp_path):
    flags = "--model.norm batch" if options else ""
    ended = simulate(tmp_path / "found.json", 8941, f"--run-config=rounds=2 {run_config}", f"--flags={flags}")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    plans = [plan(["-c", str(ROOT / "examples/flower/fields.yaml"), *f"{flags} {site}".split()]) for site in SITES]
    data = [one.datamodule for one in plans]
    torch.manual_seed(0)
    task = plans[0].build_task(agree([one.spec for one in data]))
    expected = federate([deepcopy(task) for _ in data], data, rounds=2, **options)
    found = torch.load(tmp_path / "found.pt")
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    told = json.loads((tmp_path / "found.json").read_text())
    assert told["sites"] == 2
    assert [len(one["test/r2"]) for one in told["rounds"]] == [2, 2]


def test_it_fails_where_a_site_does(tmp_path):
    ended = simulate(tmp_path / "found.json", 8942, "--site=--data.nose=1", "--run-config=rounds=1")
    assert ended.returncode == 1
    assert not (tmp_path / "found.json").exists()
    assert "expected the specs of 3 sites, got 2" in ended.stdout + ended.stderr
