"""``python -m tasks embed -c CONFIG --ckpt_path best``: the vectors of all samples as a table to search in."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from tasks.commands.checkpoints import checkpoint, load_task, read, run_of
from tasks.commands.cli import plan
from tasks.commands.elements import draw_elements
from tasks.commands.inputs import each_input, file_options, open_task, result_folder, window_options
from tasks.commands.seen import ALLOW, check, expect
from tasks.data.digests import digest_file
from tasks.data.problems import BadInput
from tasks.search.table import VectorTable, has_arrow, usual_format, write_table
from tasks.task.base import PoolingTask
from tasks.task.embedding import stack_vectors


def embed(args: list[str]) -> Path:
    """Write what a trained task's pool makes of every sample: its id, its part, its target and its vector.

    Training samples are taken without random changes (`tasks.data.base.PoolingData.still`). The table is
    ``embeddings.parquet`` where pyarrow is installed, with the columns id, part, target (in regression one a value) and
    vector, else ``embeddings.npz`` with arrays of the same names, ``vector`` being ``(N, D)``. Vectors are flat;
    ``shape`` says what they were: channels, and the axes that the pool keeps. Where those differ in length, as the
    frames of clips do, short ones end in zeros. The table names its checkpoint, by which `search` embeds a query.

    With ``--input FILE ...`` it is the vectors of files, however long, and with ``--window`` those of windows in time,
    with the columns recording, onset and offset (s).

    With ``--figures``, test samples are drawn with their elements in the colours of the features' first three principal
    components, and of clusters (`tasks.frozen.elements`); how well the clusters agree with what is known of the
    elements is printed and written to ``elements.csv``.

    Args:
        args: What `test` takes, and ``--parts train,val,test``, ``--format parquet|npz``, ``--figures 8``,
            ``--clusters 4``; or ``--input FILE ...``, ``--window 1.0``, ``--hop 0.5``, and what `explain` takes.

    Returns:
        The table, in the folder of the run that wrote the checkpoint, or that ``--output`` names.

    Raises:
        BadInput: If there is no such checkpoint, part or library.
    """
    if "--input" in args:
        return embed_files(args)
    own = argparse.ArgumentParser(prog="python -m tasks embed", description=__doc__, epilog="All flags of test, too.",
                                  allow_abbrev=False)  # fmt: skip
    own.add_argument("--ckpt_path", default="best", help="a .ckpt file, or best or last of the newest run")
    own.add_argument("--allow_trained", action="store_true", help=ALLOW)
    own.add_argument("--parts", help="parts of the data; all there are unless given", default="")
    own.add_argument("--format", choices=("parquet", "npz"), help="parquet if pyarrow is installed unless given")
    own.add_argument("--figures", type=int, default=0, help="test samples drawn with their elements' features")
    own.add_argument("--clusters", type=int, default=4, help="clusters of the elements in the figures")
    chosen, rest = own.parse_known_args(args)

    ending = _ending(chosen.format)
    planned = plan(rest)
    path = checkpoint(chosen.ckpt_path, planned.config["run"])
    task, data = load_task(path, planned.config["model"]["class_path"]), planned.datamodule
    expect(data, read(path))
    data.setup()
    parts = chosen.parts.split(",") if chosen.parts else list(data.datasets)
    if unknown := [part for part in parts if part not in data.datasets]:
        raise BadInput(f"embed: expected parts of {', '.join(data.datasets)}, got {', '.join(unknown)}")
    check("embed", path, data, [part for part in parts if part not in ("train", "val")], allow=chosen.allow_trained)

    ids: list[str] = []
    where: list[str] = []
    targets: list[Tensor] = []
    vectors: list[Tensor] = []
    for part in parts:
        for batch in tqdm(data.loader(data.still(part), False), desc=f"embed {part}", unit="batch", dynamic_ncols=True):
            batch = task.transfer_batch_to_device(batch, task.device, 0)
            with torch.no_grad():
                vectors += list(task.embed(batch).vectors.float().cpu())
            ids += task.ids(batch)
            where += [part] * len(task.ids(batch))
            targets += list(task.target(batch).cpu())
    columns = {"part": where, **_targets(targets, data.spec)}
    table = _write(run_of(path) / f"embeddings.{ending}", ids, vectors, columns, task, path)
    if chosen.figures:
        draw_elements(task, data, table.parent, samples=chosen.figures, clusters=chosen.clusters)
    print(f"look at: {table}")
    return table


def embed_files(args: list[str]) -> Path:
    """The same for files: a vector of each, or of each of its windows."""
    own = file_options("embed", __doc__)
    window_options(own)
    own.add_argument("--format", choices=("parquet", "npz"), help="parquet if pyarrow is installed unless given")
    chosen = own.parse_args(args)
    ending = _ending(chosen.format)
    path, task = open_task(chosen)
    ids: list[str] = []
    vectors: list[Tensor] = []
    columns: dict[str, list[Any]] = {}
    if chosen.window is None:
        batches = iter(each_input(chosen.input, task.read))
    else:
        columns = {"recording": [], "onset": [], "offset": []}
        batches = _windows(task, chosen.input, chosen.window, chosen.hop or chosen.window / 2, columns)
    for batch in batches:
        batch = task.transfer_batch_to_device(batch, task.device, 0)
        with torch.no_grad():
            vectors += list(task.pooled(batch)[0].float().cpu())
        ids += task.ids(batch)
    table = _write(result_folder(chosen, path, "embedded") / f"embeddings.{ending}", ids, vectors, columns, task, path)
    print(f"look at: {table}")
    return table


def _windows(
    task: PoolingTask, sources: list[str], window: float, hop: float, columns: dict[str, list[Any]]
) -> Iterator[Any]:
    """Batches of windows, whose times go into the columns."""
    for source in sources:
        for begins, ends, batch in task.windows(source, window, hop):
            columns["recording"] += [Path(source).name] * len(begins)
            columns["onset"] += begins
            columns["offset"] += ends
            yield batch


def _ending(given: str | None) -> str:
    if given == "parquet" and not has_arrow():
        raise BadInput("embed: --format parquet needs pyarrow: run pip install pyarrow, or leave it out for npz")
    return given or usual_format()


def _write(
    table: Path, ids: list[str], vectors: list[Tensor], columns: dict[str, list[Any]], task: PoolingTask, maker: Path
) -> Path:
    """Write vectors as a table that names the checkpoint which made them."""
    stacked = stack_vectors(vectors)
    flat, shape = stacked.flatten(1).numpy(), list(stacked.shape[1:])
    about = {
        "shape": shape,
        "checkpoint": str(maker),
        "digest": digest_file(maker),
        "task": f"{type(task).__module__}.{type(task).__qualname__}",
    }
    write_table(table, VectorTable(ids, flat, columns, about))
    print(f"{len(ids)} vectors of {flat.shape[1]} numbers ({' x '.join(map(str, shape))}), {table.suffix[1:]}")
    return table


def _targets(targets: list[Tensor], spec: dict[str, Any]) -> dict[str, list[Any]]:
    """The columns of the targets: names of classes, or one a label or value, NaN where it is not known."""
    names = spec["classes"]
    if spec["kind"] in ("regression", "multilabel"):
        return {f"target {name}": [float(target[i]) for target in targets] for i, name in enumerate(names)}
    words = []
    for target in targets:
        if target.is_floating_point() and target.isnan().any():  # samples to predict
            words.append("")
        else:
            words.append(names[int(target)])
    return {"target": words}
