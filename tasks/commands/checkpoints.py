"""Where the checkpoint of a run is, what is in it, and the task that it holds."""

import importlib
import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tasks.data.problems import BadInput
from tasks.pretrain import load_pretrained
from tasks.pretrain.task import build, described
from tasks.task.base import PoolingTask


def checkpoint(given: str, run: dict[str, Any]) -> Path:
    """The file of ``--ckpt_path``: itself, or the newest run's ``best`` or ``last``.

    Raises:
        BadInput: If there is none.
    """
    if given in ("best", "last"):
        return newest(run["root"], run["name"], given)
    if not Path(given).is_file():
        raise BadInput(f"checkpoint {given} does not exist; give a .ckpt file, best or last")
    return Path(given)


def newest(root: str, name: str, which: str) -> Path:
    """The newest run's checkpoint called ``which`` (best or last) under ``root/name``.

    Raises:
        BadInput: If there is none.
    """
    found = sorted(Path(root, name).glob(f"*/checkpoints/{which}.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise BadInput(
            f"no {which}.ckpt under {Path(root, name)}; run fit first, or give --ckpt_path FILE or --run.name NAME"
        )
    return found[-1]


def run_of(path: Path) -> Path:
    """The folder of the run that wrote a checkpoint."""
    return path.parent.parent if path.parent.name == "checkpoints" else path.parent


def read(path: Path) -> dict[str, Any]:
    """What a checkpoint holds; nothing in it is run.

    Raises:
        BadInput: In one line, if it is truncated, no checkpoint, another program's, or holds more than plain values.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # what comes of it is said below
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch says the same of code, of damaged bytes, and of classes it does not know, and advises to run them.
        what = "it is damaged, or holds code or objects, which are not loaded"
        raise BadInput(f"{path} is not a checkpoint of a task ({what}); give one that fit wrote") from error
    except Exception as error:  # what damaged bytes make of the reader: EOFError, RuntimeError, KeyError, ...
        what = "it is truncated or of another format" if path.stat().st_size else "it is empty"
        raise BadInput(f"{path} is not a checkpoint of a task ({what}); give one that fit wrote") from error
    keys = ("state_dict", "hyper_parameters")
    if not isinstance(stored, dict) or any(not isinstance(stored.get(key), dict) for key in keys):
        raise BadInput(
            f"{path} is not a checkpoint of a task (it has no {' and '.join(keys)}); give one that fit wrote"
        )
    if not isinstance(stored["hyper_parameters"].get("spec"), dict):
        raise BadInput(
            f"{path} is another program's checkpoint (it does not say what it was trained on); give one that fit wrote"
        )
    return stored


def pretrained(stored: dict[str, Any]) -> bool:
    """Whether a checkpoint is one of `pretrain`, which holds a task and has learned no label."""
    return isinstance(stored["hyper_parameters"].get("task"), dict)


def class_of(stored: dict[str, Any]) -> str | None:
    """The class of the task that a checkpoint holds, if it says so."""
    options = stored["hyper_parameters"]
    found: str | None = options["task"]["class_path"] if pretrained(stored) else options.get("_class_path")
    return found


def fits(path: Path, stored: dict[str, Any], class_path: str) -> None:
    """Ask for a checkpoint of the task that a config names.

    Raises:
        BadInput: If it is another's.
    """
    trained = class_of(stored) or class_path
    if trained.rpartition(".")[2] != class_path.rpartition(".")[2]:
        raise BadInput(
            f"{path}: expected a checkpoint of {class_path}, got one of {trained}; give the config it belongs to"
        )


def load_task(path: Path, class_path: str | None = None) -> PoolingTask:
    """Load a trained task, whatever its modality, ready to predict; of a pretraining, what came out of it.

    Args:
        path: A checkpoint.
        class_path: The task's class where the checkpoint does not name it: those that `fit` wrote do.

    Returns:
        The task in evaluation mode, on the GPU if there is one.

    Raises:
        BadInput: If it is damaged, names no task or holds another model's weights.
    """
    stored = read(path)
    class_path = class_of(stored) or class_path
    if not class_path:
        raise BadInput(f"{path} does not name its task's class; give the config that it was trained with, -c CONFIG")
    module, _, name = class_path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if pretrained(stored):
            return load_pretrained(path).to(device)
        task: PoolingTask = found.load_from_checkpoint(path, map_location=device, weights_only=True).eval()
        return task
    except (ImportError, AttributeError, RuntimeError, TypeError, ValueError, KeyError) as error:
        raise BadInput(f"{path}: cannot build its task {class_path} ({first_line(error)})") from error


def untrained(task: PoolingTask, spec: dict[str, Any]) -> PoolingTask:
    """A task of the same options with new weights, for data of a ``spec``, where the other is."""
    same = described(task)
    made: PoolingTask = build({**same, "init_args": {**same["init_args"], "spec": spec}})
    return made.to(task.device)


@contextmanager
def loading() -> Iterator[None]:
    """Say in one line that weights of a checkpoint do not fit the model.

    Raises:
        BadInput: If they do not.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("Error(s) in loading state_dict"):
            raise
        first, *others = [line.strip() for line in str(error).splitlines()[1:]] or [""]
        more = f" (and {len(others)} more)" if others else ""
        raise BadInput(
            f"the checkpoint's weights are not those of this model: {first}{more}; give the options that it "
            "was trained with"
        ) from error


def first_line(error: BaseException) -> str:
    """The beginning of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
