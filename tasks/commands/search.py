"""``python -m tasks search --index FILE --query ID|FILE|SMILES``: the nearest samples of a table of vectors."""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from tasks.commands.checkpoints import checkpoint, load_task
from tasks.commands.cli import plan
from tasks.commands.inputs import free_folder
from tasks.commands.show import Shower
from tasks.commands.tables import write_csv
from tasks.data.digests import digest_file
from tasks.data.problems import BadInput
from tasks.match.task import load_match
from tasks.outputs.predictions import safe
from tasks.outputs.report import write_report
from tasks.search.index import Index
from tasks.search.page import Row, write_page
from tasks.search.table import read_table
from tasks.task.base import PoolingTask


class Query(NamedTuple):
    """What is looked for: its vector as it is compared, its row in the index, or the batch that shows it."""

    name: str
    vector: np.ndarray
    row: int | None = None
    batch: Any = None


def search(args: list[str]) -> Path:
    """Find what is most like a sample, in a table that `embed` wrote, and show it.

    Vectors are compared by their cosine after PCA-whitening (`tasks.search.whitening`), fitted to the table. A query
    is an id of the table, which is left out of its own answer, or what `explain` reads: a sound file, a NIfTI file, a
    graph ``FOLDER/NAME-17``, a SMILES; that is embedded by the checkpoint which the table names. In a table of `match`
    a query that is neither an id nor a file is a text. Up to 100 000 vectors all are compared; of more, faiss asks an
    index (`tasks.search.approximate`), which ``--save`` keeps.

    Args:
        args: ``--index`` (a table or a saved folder), ``--query ONE [MORE ...]``, ``-k 10``, ``--whiten 64``
            (directions; 0 = plain cosine), ``--kind exact|HNSW|IVF|IVF-SQ8``, ``--save FOLDER``, ``--add TABLE``,
            ``--ckpt_path FILE``, ``--output FOLDER``; with ``-c CONFIG`` and its flags the samples are drawn.

    Returns:
        The folder, with ``neighbours.csv`` (query, rank, id, similarity, and the table's columns) and ``index.html``;
        without a query that of the saved index.

    Raises:
        BadInput: Naming every query that is neither an id nor can be read, or why the table cannot be searched.
    """
    own = argparse.ArgumentParser(prog="python -m tasks search", description=__doc__, allow_abbrev=False)
    own.add_argument("--index", type=Path, required=True, help="embeddings.parquet or .npz, or a folder of --save")
    own.add_argument("--query", nargs="+", default=[], help="ids of the table, files, graphs as FOLDER/NAME-17, SMILES")
    own.add_argument("-k", type=int, default=10, help="how many neighbours")
    own.add_argument("--whiten", type=int, help="directions that PCA-whitening keeps; 64, of two towers 0 = plain")
    own.add_argument(
        "--kind", choices=("exact", "HNSW", "IVF", "IVF-SQ8"), help="by the number of vectors unless given"
    )
    own.add_argument("--save", type=Path, help="keep the index in this folder")
    own.add_argument("--add", type=Path, help="a table whose vectors are added to the index")
    own.add_argument("--ckpt_path", default="", help="what embeds a query that is no id; the table's unless given")
    own.add_argument("--output", type=Path, help="where to write; search_N beside the index unless given")
    chosen, rest = own.parse_known_args(args)
    for name, value, least in (("-k", chosen.k, 1), ("--whiten", chosen.whiten, 0)):
        if value is not None and value < least:
            raise BadInput(f"search: expected {name} from {least}, got {value}")
    if not chosen.query and not chosen.save:
        raise BadInput("search: expected --query or --save, got neither; say what is looked for")

    index = _index(chosen)
    if chosen.save:
        index.save(chosen.save)
        print(f"index of {len(index.ids)} vectors ({index.kind}): {chosen.save}")
    if not chosen.query:
        saved: Path = chosen.save
        return saved
    planned = plan(rest) if rest else None
    queries, task = _queries(chosen, index, draw=planned is not None)
    found = index.neighbours(np.stack([query.vector for query in queries]), chosen.k + 1)

    folder: Path = chosen.output or free_folder(chosen.index.parent, "search")
    folder.mkdir(parents=True, exist_ok=True)
    shower = Shower(task, None if planned is None else planned.datamodule, folder / "samples")
    table: list[dict[str, Any]] = []
    rows = []
    for query, near, scores in zip(queries, *found, strict=True):
        hits = [(int(row), float(score)) for row, score in zip(near, scores, strict=True) if row not in (-1, query.row)]
        own_facts = {} if query.row is None else _facts(index, query.row)
        cards = [shower.card(query.name, {"query": "", **own_facts}, query.batch)]
        print(f"{query.name}{_told(own_facts)}")
        for rank, (row, score) in enumerate(hits[: chosen.k], 1):
            facts = _facts(index, row)
            print(f"  {rank:>3}  {score:.3f}  {index.ids[row]}{_told(facts)}")
            shown = {"rank": str(rank), "similarity": f"{score:.3f}", **facts}
            cards.append(shower.card(index.ids[row], shown))
            table.append(
                {"query": query.name, "rank": rank, "id": index.ids[row], "similarity": f"{score:.6g}", **facts}
            )
        rows.append(Row(query.name, cards))
    write_csv(folder / "neighbours.csv", [{name: safe(cell) for name, cell in row.items()} for row in table])
    how = f"after whitening to {index.vectors.shape[1]} directions" if index.whitening else "plain"
    about = f"{len(index.ids)} vectors of {chosen.index.name}, cosine {how}, {index.kind}"
    page = write_page(folder / "index.html", "Nearest samples", about, rows)
    if (folder.parent / "summary.json").is_file():  # of a run, whose report then leads here
        write_report(folder.parent)
    print(f"look at: {page}")
    return folder


def _index(chosen: argparse.Namespace) -> Index:
    if chosen.index.is_dir():
        index = Index.load(chosen.index)
    else:
        index = Index.of(read_table(chosen.index), dims=chosen.whiten, kind=chosen.kind)
    if chosen.add:
        index.append(read_table(chosen.add))
    return index


def _queries(chosen: argparse.Namespace, index: Index, *, draw: bool) -> tuple[list[Query], PoolingTask | None]:
    """The queries, and the task where one is needed: to embed what is no id, or to draw."""
    rows = {name: number for number, name in enumerate(index.ids)}
    given = chosen.ckpt_path or index.about.get("checkpoint", "")
    unknown = [name for name in chosen.query if name not in rows]
    task, towers = None, None
    if unknown or draw:
        if not given:
            raise BadInput(f"{chosen.index} does not say which checkpoint made it; give --ckpt_path FILE")
        path = checkpoint(given, {"root": "runs", "name": ""})
        wanted = index.about.get("digest")
        if wanted and digest_file(path) != wanted:
            raise BadInput(
                f"{path} is not the checkpoint that made {chosen.index} (its content is another); embed the samples "
                "again, or give --ckpt_path of the one that did"
            )
        if index.about.get("match"):
            towers = load_match(path)
            task = towers.first
        else:
            task = load_task(path, index.about.get("task"))
    queries, wrong = [], []
    for name in chosen.query:
        if name in rows:
            queries.append(Query(name, np.asarray(index.vectors[rows[name]]), rows[name]))
            continue
        try:
            if towers is not None:
                queries.append(Query(name, index.prepare(towers.query(name).numpy()[None])[0]))
                continue
            assert task is not None
            batch = task.read(name)
            with torch.no_grad():
                vector = task.embed(task.transfer_batch_to_device(batch, task.device, 0)).vectors[0]
            flat = _flat(vector.float().cpu().numpy(), index)
            queries.append(Query(name, index.prepare(flat[None])[0], batch=batch))
        except BadInput as error:
            wrong.append(f"{name}: neither an id of the index nor readable ({error})")
    if wrong:
        raise BadInput("\n  ".join(["these queries cannot be answered:", *wrong]) if len(wrong) > 1 else wrong[0])
    return queries, task


def _flat(vector: np.ndarray, index: Index) -> np.ndarray:
    """A vector as the table has it: zeros behind kept axes that are shorter than its longest, then flat."""
    shape = tuple(index.about.get("shape", vector.shape))
    if len(shape) != vector.ndim or any(own > most for own, most in zip(vector.shape, shape, strict=True)):
        raise BadInput(
            f"its vector is {' x '.join(map(str, vector.shape))}, those of the index {' x '.join(map(str, shape))}"
        )
    padded = np.zeros(shape, np.float32)
    padded[tuple(slice(size) for size in vector.shape)] = vector
    return padded.reshape(-1)


def _facts(index: Index, row: int) -> dict[str, str]:
    return {name: _cell(column[row]) for name, column in index.columns.items()}


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _told(facts: dict[str, str]) -> str:
    text = ", ".join(value for value in facts.values() if value)
    return f"  ({text})" if text else ""
