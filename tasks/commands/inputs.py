"""What commands on single files share: which checkpoint, which files, where results go."""

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tasks.commands.checkpoints import checkpoint, load_task, run_of
from tasks.commands.configs import read_configs
from tasks.data.problems import BadInput
from tasks.task.base import PoolingTask

T = TypeVar("T")


def file_options(command: str, about: str | None) -> argparse.ArgumentParser:
    """A parser with the options of a command on files."""
    own = argparse.ArgumentParser(prog=f"python -m tasks {command}", description=about, allow_abbrev=False)
    own.add_argument("--input", nargs="+", required=True, metavar="FILE",
                     help="NIfTI files, sound files, graphs of a TU folder as FOLDER/NAME-17, or SMILES")  # fmt: skip
    own.add_argument("--ckpt_path", default="best", help="a .ckpt file, or best or last of the newest run")
    own.add_argument("-c", "--config", action="append", default=[], help="names the run whose checkpoint is meant")
    own.add_argument("--run.name", dest="name", help="the run's name, instead of the config's")
    own.add_argument("--run.root", dest="root", help="folder of all runs (runs)")
    own.add_argument("--output", type=Path, help=f"where to write; {command}_N beside the checkpoints unless given")
    own.add_argument("--tile", type=float, metavar="SIZE",
                     help="encode by tiles of this size: s of sound (30, of what is longer than twice that), voxels of "
                          "a volume's side (all at once)")  # fmt: skip
    return own


def window_options(own: argparse.ArgumentParser) -> None:
    """Add those of windows in time."""
    own.add_argument("--window", type=float, help="cut recordings into windows of this many seconds")
    own.add_argument("--hop", type=float, help="seconds from window to window; half a window unless given")


def open_task(chosen: argparse.Namespace) -> tuple[Path, PoolingTask]:
    """The checkpoint, and its task, which is told the size of its tiles.

    Raises:
        BadInput: If there is none, or the options make no sense.
    """
    config = read_configs(chosen.config)
    if chosen.tile is not None and not chosen.tile > 0:
        raise BadInput(f"expected a positive --tile, got {chosen.tile:g}")
    if getattr(chosen, "hop", None) is not None and chosen.window is None:
        raise BadInput("expected --window beside --hop; give its length in seconds")
    path = _checkpoint(chosen, config.get("run") or {})
    task = load_task(path, (config.get("model") or {}).get("class_path"))
    task.tile = chosen.tile
    return path, task


def _checkpoint(chosen: argparse.Namespace, run: dict[str, Any]) -> Path:
    name = chosen.name or run.get("name")
    if chosen.ckpt_path in ("best", "last") and not name:
        raise BadInput(f"whose {chosen.ckpt_path}.ckpt? Give --ckpt_path FILE, -c CONFIG or --run.name NAME")
    return checkpoint(chosen.ckpt_path, {"root": chosen.root or run.get("root") or "runs", "name": name})


def each_input(sources: list[str], read: Callable[[str], T]) -> list[T]:
    """What ``read`` makes of each source, so that nothing is written before all were looked at.

    Raises:
        BadInput: Naming all that cannot be used.
    """
    found, wrong = good_inputs(sources, read)
    refuse(wrong)
    return list(found.values())


def good_inputs(sources: list[str], read: Callable[[str], T]) -> tuple[dict[str, T], list[str]]:
    """What ``read`` makes of the sources that can be used, by source, and what is wrong with the others.

    Raises:
        BadInput: If none can be used, naming all.
    """
    found, wrong = dict[str, T](), []
    for source in sources:
        try:
            found[source] = read(source)
        except BadInput as error:
            wrong.append(str(error))
    if not found:
        refuse(wrong)
    return found, wrong


def refuse(wrong: list[str]) -> None:
    """End with what is wrong, once the good inputs are done.

    Raises:
        BadInput: If there is any.
    """
    if wrong:
        raise BadInput("\n  ".join(["these inputs cannot be used:", *wrong]) if len(wrong) > 1 else wrong[0])


def result_folder(chosen: argparse.Namespace, path: Path, name: str) -> Path:
    """Where results go: ``--output``, or the first ``NAME_N`` of the run that is free."""
    folder: Path = chosen.output or free_folder(run_of(path), name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def free_folder(parent: Path, name: str) -> Path:
    """The first ``NAME_N`` that is not there yet."""
    return next(place for number in itertools.count() if not (place := parent / f"{name}_{number}").exists())
