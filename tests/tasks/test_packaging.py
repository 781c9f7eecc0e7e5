"""What is in the wheel, what an import loads, and what is said when an extra is missing."""

import subprocess
import sys
import textwrap
import zipfile

import pytest
from toy import ROOT

FIELDS = {"graph": {"torch_geometric"}, "audio": {"torchaudio", "soundfile"}, "volume": {"monai", "nibabel"}}
LATER = {
    "captum",
    "faiss",
    "flwr",
    "onnx",
    "pandas",
    "pyarrow",
    "safetensors",
    "sklearn",
    "tensorboard",
    "timm",
    "wandb",
}
HEAVY = {"lightning", "jsonargparse", "torchmetrics", "matplotlib"}.union(*FIELDS.values())


WATCHED = """
import contextlib, importlib.abc, io, os, sys
fields, configs = sys.argv[1].split(), sys.argv[2:]
class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        frame = sys._getframe(1)
        while "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        if name in fields:
            print(name, frame.f_globals["__name__"].partition(".")[0], file=sys.__stdout__, flush=True)
sys.meta_path.insert(0, Watch())
import tasks.commands.cli
from tasks.__main__ import main
for config in configs:
    print("for", flush=True)
    if not os.fork():
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            main(["fit", "-c", config, "--print_config"])
        print(*{name.partition(".")[0] for name in sys.modules}, flush=True)
        os._exit(0)
    os.wait()
"""  # for each config who asks for which of the libraries, a line each, and what is loaded in the end


def run(code, *args, **kwargs):
    command = [sys.executable, "-c", textwrap.dedent(code), *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, **kwargs)


def loaded_by(code):
    result = run(f"{code}\nimport sys; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))")
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split("\n")[-2].split())


def test_the_library_loads_torch_alone():
    assert not loaded_by("import modalpool") & HEAVY


@pytest.fixture(scope="module")
def watched():
    """Of each modality who asked for which of these libraries, and what was loaded."""
    configs = {modality: str(sorted((ROOT / "configs" / modality).glob("*.yaml"))[0]) for modality in FIELDS}
    result = run(WATCHED, " ".join(LATER.union(*FIELDS.values())), *configs.values())
    assert result.returncode == 0, result.stderr
    first, *each = result.stdout.split("for\n")
    lines = {
        modality: [line.split() for line in (first + own).splitlines()]
        for modality, own in zip(FIELDS, each, strict=True)
    }
    return {modality: (own[:-1], set(own[-1])) for modality, own in lines.items()}


@pytest.mark.parametrize("modality", FIELDS)
def test_a_modality_loads_its_own_libraries_only(watched, modality):
    """Beside what those load: MONAI itself imports torchaudio, sklearn and, through torch, tensorboard."""
    asked, loaded = watched[modality]
    others = set().union(*(names for name, names in FIELDS.items() if name != modality))
    assert loaded & FIELDS[modality]
    assert "lightning" in loaded
    for name in loaded & (others | LATER):
        assert {by for library, by in asked if library == name and by != name} <= FIELDS[modality] | LATER | {"torch"}


@pytest.mark.slow
@pytest.mark.parametrize("config", ["graph/motifs", "audio/timbre", "volume/lesions"])
def test_a_training_begins_without_what_it_does_not_need(config, tmp_path):
    """What it imports until its first step is what takes the time; the time itself depends on the machine."""
    (tmp_path / "first_step.py").write_text(
        "import os, sys\nfrom lightning.pytorch import Callback\nclass Stop(Callback):\n"
        "    def on_train_batch_end(self, *_):\n"
        "        print('', *{name.partition('.')[0] for name in sys.modules}, flush=True)\n"
        "        os._exit(0)\n"
    )
    code = "import sys; sys.path.insert(0, sys.argv[1]); from tasks.__main__ import main; main(sys.argv[2:])"
    small = ["--data.train=8", "--data.val=8", "--data.test=8"]
    stop = ["--trainer.callbacks+=first_step.Stop", f"--run.root={tmp_path}", "--trainer.enable_progress_bar=false"]
    result = run(code, str(tmp_path), "fit", "-c", f"configs/{config}.yaml", *small, *stop)
    assert result.returncode == 0, result.stderr
    fields = FIELDS[config.partition("/")[0]]
    modules = set(result.stdout.splitlines()[-1].split())
    assert fields <= modules
    assert modules & LATER <= loaded_by("\n".join(f"import {name}" for name in fields))


@pytest.mark.parametrize(
    ("modality", "missing"), [("graph", "torch_geometric"), ("audio", "torchaudio"), ("volume", "monai")]
)
def test_a_missing_extra_names_the_command(modality, missing):
    result = run(f"import sys; sys.modules[{missing!r}] = None\nimport tasks.{modality}")
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: tasks.{modality} needs {missing}")
    assert last.endswith(f"run pip install -c constraints.txt -e '.[{modality},train]'")


def test_a_native_library_that_does_not_load_names_the_command():
    code = """
    import importlib.abc, sys
    class Broken(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            if name == "torchaudio":
                raise OSError("libtorch_cuda.so: cannot open shared object file\\nmore")
    sys.meta_path.insert(0, Broken())
    import tasks.audio
    """
    last = run(code).stderr.strip().splitlines()[-1]
    assert "(libtorch_cuda.so: cannot open shared object file): run pip install" in last


def test_the_cli_shows_a_missing_extra_in_one_line(tmp_path):
    code = """
    import sys
    sys.modules["torch_geometric"] = None
    from tasks.__main__ import main
    main(["fit", "-c", "configs/graph/motifs.yaml"])
    """
    result = run(code)
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    assert "pip install -c constraints.txt -e '.[graph,train]'" in result.stderr


def test_the_wheel_holds_the_library_alone(tmp_path):
    pytest.importorskip("hatchling")
    from hatchling.builders.wheel import WheelBuilder

    path = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    with zipfile.ZipFile(path) as wheel:
        tops = {name.split("/")[0] for name in wheel.namelist()}
        metadata = next(wheel.read(name).decode() for name in wheel.namelist() if name.endswith("METADATA"))
    assert {name for name in tops if not name.endswith(".dist-info")} == {"modalpool"}
    core = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert core == ["Requires-Dist: torch>=2.6"]
    extras = {line.split(": ")[1] for line in metadata.splitlines() if line.startswith("Provides-Extra")}
    assert extras == {"graph", "chem", "audio", "volume", "train", "search", "augment", "bids", "all"}
