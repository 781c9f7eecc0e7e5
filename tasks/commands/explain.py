"""``python -m tasks explain --ckpt_path CHECKPOINT --input FILE``: one file in; its prediction, picture and map out."""

import argparse
import itertools
from pathlib import Path
from typing import Any

import torch

from tasks.commands.checkpoints import checkpoint, load_task, run_of
from tasks.commands.configs import read_configs
from tasks.data.problems import BadInput
from tasks.outputs.gallery import Gallery
from tasks.outputs.predictions import Row, write_predictions
from tasks.task.base import PoolingTask


def explain(args: list[str]) -> Path:
    """Predict files with a trained task and show why.

    The checkpoint knows its task and how its data was prepared, so neither config nor data is needed; a config only
    says where to look for ``best`` and ``last``. An input is a NIfTI file, a sound file, a graph of a TU folder,
    ``FOLDER/NAME-17``, or for a model of molecules a SMILES. All are read and checked before the first is predicted.

    Args:
        args: ``--input FILE [FILE ...]``, ``--ckpt_path FILE`` or ``-c CONFIG --ckpt_path best``, ``--output FOLDER``.

    Returns:
        The folder, with a picture and a map for each input, ``index.html`` and ``predictions.csv``.

    Raises:
        BadInput: Naming every input that cannot be used, or why the checkpoint cannot.
    """
    own = argparse.ArgumentParser(prog="python -m tasks explain", description=__doc__, allow_abbrev=False)
    own.add_argument("--input", nargs="+", required=True, metavar="FILE",
                     help="NIfTI files, sound files, graphs of a TU folder as FOLDER/NAME-17, or SMILES")  # fmt: skip
    own.add_argument("--ckpt_path", default="best", help="a .ckpt file, or best or last of the newest run")
    own.add_argument("-c", "--config", action="append", default=[], help="names the run whose checkpoint is meant")
    own.add_argument("--run.name", dest="name", help="the run's name, instead of the config's")
    own.add_argument("--run.root", dest="root", help="folder of all runs (runs)")
    own.add_argument("--output", type=Path, help="where to write; explained_N beside the checkpoints unless given")
    chosen = own.parse_args(args)

    config = read_configs(chosen.config)
    path = _checkpoint(chosen, config.get("run") or {})
    task = load_task(path, (config.get("model") or {}).get("class_path"))
    batches = _read(task, chosen.input)

    folder = chosen.output or next(
        place for number in itertools.count() if not (place := run_of(path) / f"explained_{number}").exists()
    )
    gallery, rows = Gallery(folder), []
    for batch in batches:
        batch = task.transfer_batch_to_device(batch, task.device, 0)
        (entry,) = gallery.add(task, batch, limit=1)
        with torch.no_grad():
            predictions = task.predictions(task(batch))[0].cpu()
        target = task.target(batch)[0].cpu() if entry.decision.target else None
        rows.append(Row(entry.decision.id, predictions, target))
        print(entry.decision.title)
        for file in entry.files:
            print(f"Map: {file}")
    write_predictions(folder / "predictions.csv", rows, task)
    page = gallery.write(task)
    print(f"Look at: {page if len(batches) > 1 else gallery.entries[0].picture}")
    return folder


def _checkpoint(chosen: argparse.Namespace, run: dict[str, Any]) -> Path:
    name = chosen.name or run.get("name")
    if chosen.ckpt_path in ("best", "last") and not name:
        raise BadInput(f"whose {chosen.ckpt_path}.ckpt? Give --ckpt_path FILE, -c CONFIG or --run.name NAME")
    return checkpoint(chosen.ckpt_path, {"root": chosen.root or run.get("root") or "runs", "name": name})


def _read(task: PoolingTask, sources: list[str]) -> list[Any]:
    batches, wrong = [], []
    for source in sources:
        try:
            batches.append(task.read(source))
        except BadInput as error:
            wrong.append(str(error))
    if wrong:
        raise BadInput("\n  ".join(["these inputs cannot be used:", *wrong]) if len(wrong) > 1 else wrong[0])
    return batches
