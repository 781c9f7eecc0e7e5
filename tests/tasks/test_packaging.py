"""What is in the wheel, what an import loads, and what is said when an extra is missing."""

import subprocess
import sys
import textwrap
import zipfile

import pytest
from toy import ROOT

FIELDS = {"graph": {"torch_geometric"}, "audio": {"torchaudio", "soundfile"}, "volume": {"monai", "nibabel"}}
HEAVY = {"lightning", "jsonargparse", "torchmetrics", "matplotlib"}.union(*FIELDS.values())


WATCHED = """
import contextlib, importlib.abc, io, sys
config, *others = sys.argv[1:]
class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        frame = sys._getframe(1)
        while "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        if name in others:
            print(name, frame.f_globals["__name__"].partition(".")[0], file=sys.__stdout__)
sys.meta_path.insert(0, Watch())
from tasks.__main__ import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(["fit", "-c", config, "--print_config"])
print(*{name.partition(".")[0] for name in sys.modules})
"""  # who asks for the libraries of other modalities, a line each, and what is loaded in the end


def run(code, *args, **kwargs):
    command = [sys.executable, "-c", textwrap.dedent(code), *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, **kwargs)


def loaded_by(code):
    result = run(f"{code}\nimport sys; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))")
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split("\n")[-2].split())


def test_the_library_loads_torch_alone():
    assert not loaded_by("import modalpool") & HEAVY


@pytest.mark.parametrize("modality", FIELDS)
def test_a_modality_loads_its_own_libraries_only(modality):
    others = set().union(*(names for name, names in FIELDS.items() if name != modality))
    config = sorted((ROOT / "configs" / modality).glob("*.yaml"))[0]
    result = run(WATCHED, str(config), *others)
    assert result.returncode == 0, result.stderr
    *importers, loaded = [set(line.split()) for line in result.stdout.splitlines()]
    assert loaded & FIELDS[modality]
    for name in loaded & others:  # MONAI itself tries to import torchaudio, for transforms of its own
        assert set().union(*(pair - {name} for pair in importers if name in pair)) <= FIELDS[modality]


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
