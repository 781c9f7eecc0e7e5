"""Where the checkpoint of a run is, and the task that is in it."""

import importlib
import pickle
from pathlib import Path
from typing import Any

import torch
import yaml

from tasks.data.base import PoolingData
from tasks.data.problems import BadInput
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


def check_fold(command: str, folder: Path, data: PoolingData) -> None:
    """Refuse to look at samples that the run was trained on.

    Args:
        command: Stands before the error's message.
        folder: The folder of the run.
        data: The data whose test part is looked at.

    Raises:
        BadInput: If the run was trained with another fold of the same data.
    """
    if not (folder / "config.yaml").is_file():
        return
    trained = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["data"]
    fold = (trained.get("init_args") or {}).get("fold", data.fold)
    if trained["class_path"].rpartition(".")[2] == type(data).__name__ and fold != data.fold:
        raise BadInput(
            f"{command}: expected fold {fold}, which {folder} was not trained on, got {data.fold}; "
            f"give --data.fold {fold}"
        )


def run_of(path: Path) -> Path:
    """The folder of the run that wrote a checkpoint."""
    return path.parent.parent if path.parent.name == "checkpoints" else path.parent


def load_task(path: Path, class_path: str | None = None) -> PoolingTask:
    """Load a trained task, whatever its modality, ready to predict.

    Args:
        path: A checkpoint.
        class_path: The task's class where the checkpoint does not name it: those that `fit` wrote do.

    Returns:
        The task in evaluation mode, on the GPU if there is one.

    Raises:
        BadInput: If it is damaged, names no task or holds another model's weights.
    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        class_path = stored["hyper_parameters"].get("_class_path") or class_path
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path} is not a checkpoint of a task ({_first_line(error)}); give one that fit wrote"
        ) from error
    if not class_path:
        raise BadInput(f"{path} does not name its task's class; give the config that it was trained with, -c CONFIG")
    module, _, name = class_path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return found.load_from_checkpoint(path, map_location=device, weights_only=True).eval()
    except (ImportError, AttributeError, RuntimeError, TypeError, ValueError, KeyError) as error:
        raise BadInput(f"{path}: cannot build its task {class_path} ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
