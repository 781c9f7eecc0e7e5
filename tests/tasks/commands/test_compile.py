"""`--compile`: the same training in compiled code, and a clear end where nothing can be compiled."""

import csv
import os
import subprocess
import sys

import pytest
import torch
from toy import ROOT

from tasks.__main__ import main
from tasks.commands.compiling import compile_network
from tasks.data.problems import BadInput

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--outputs.bootstrap=20"]
SMALL = {
    "graph/motifs": ["--model.hidden=8", "--model.layers=2"],
    "audio/timbre": ["--data.seconds=0.5"],
    "volume/lesions": ["--data.size=16"],
}


def fit(folder, config, *flags):
    few = ["--trainer.max_epochs=2", "--data.train=16", "--data.val=8", "--data.test=8", "--data.batch_size=8"]
    brief = ["--outputs.maps=1", "--outputs.every=0", "--floors=false", *QUIET]
    config_path, place = str(ROOT / "configs" / f"{config}.yaml"), [f"--run.root={folder}", "--run.version=it"]
    main(["fit", "-c", config_path, *place, *few, *brief, *SMALL[config], *flags])
    return next(folder.rglob("it"), None)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a C++ compiler")
@pytest.mark.parametrize("config", SMALL)
def test_compiled_training_gives_the_same_checkpoint_predictions_and_maps(config, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["tasks"])
    torch._dynamo.reset()
    eager = fit(tmp_path / "eager", config)
    made = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    compiled = fit(tmp_path / "compiled", config, "--compile=true")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > made
    assert len(list((compiled / "maps").iterdir())) == len(list((eager / "maps").iterdir())) > 0
    ours, theirs = (torch.load(run / "checkpoints" / "best.ckpt", weights_only=True) for run in (compiled, eager))
    assert ours["state_dict"].keys() == theirs["state_dict"].keys()
    rows = [list(csv.DictReader((run / "predictions.csv").open())) for run in (compiled, eager)]
    for ours, theirs in zip(*rows, strict=True):
        names = [name for name in theirs if name.startswith("p(")]
        assert len(names) >= 2
        for name in names:
            assert float(ours[name]) == pytest.approx(float(theirs[name]), abs=0.02)
    main(["test", "-c", str(compiled / "config.yaml"), *QUIET, "--ckpt_path", str(compiled / "checkpoints/best.ckpt")])


@pytest.mark.slow
def test_without_a_compiler_it_ends_before_the_training(tmp_path):
    """In a process of its own, whose compiler is none and whose cache is empty."""
    nothing = {"CXX": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    code = f"import sys\nfrom test_compile import fit\nfit({tmp_path!r}, 'graph/motifs', '--compile=true')"
    result = subprocess.run(
        [sys.executable, "-c", f"from pathlib import PosixPath, WindowsPath\n{code}"],
        env={**os.environ, **nothing, "PYTHONPATH": os.pathsep.join(["tests/tasks/commands", "tests/tasks", "."])},
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: --compile true: expected a machine on which torch.compile works, got")
    assert "install a C++ compiler" in last
    assert not list(tmp_path.rglob("*.ckpt"))


def test_what_keeps_it_from_compiling_is_said(monkeypatch):
    def compile(*_):
        raise RuntimeError("no compiler found\nand more")

    task = torch.nn.Module()
    with pytest.raises(BadInput, match="expected a task with an encoder, got Module"):
        compile_network(task, torch.device("cpu"))
    task.encoder = torch.nn.Linear(2, 2)
    monkeypatch.setattr(torch, "compile", compile)
    with pytest.raises(BadInput, match="got RuntimeError: no compiler found; install a C"):
        compile_network(task, torch.device("cpu"))


def test_the_flag_reaches_the_encoder_of_a_fit_alone(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["tasks"])
    seen = []
    monkeypatch.setattr("tasks.commands.cli.compile_network", lambda task, device: seen.append((task, device)))
    fit(tmp_path, "graph/motifs", "--compile=true", "--trainer.fast_dev_run=true")
    fit(tmp_path, "graph/motifs", "--trainer.fast_dev_run=true")
    ((task, device),) = seen
    assert task.sizes_vary
    assert device.type == "cpu"
