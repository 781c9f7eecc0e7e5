"""``python -m tasks curate -c CONFIG --out DIR``: copies, leaks, and what is beside the question."""

import argparse
import json
import os
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from tasks.commands.checkpoints import load_task
from tasks.commands.cli import plan
from tasks.commands.show import Shower
from tasks.commands.tables import write_csv
from tasks.curate.distances import clean_threshold, nearest_elsewhere, neighbours
from tasks.curate.groups import Pair, groups_of, near_pairs, representative, same_content
from tasks.curate.histogram import draw_histogram
from tasks.data.base import PoolingData, Sample
from tasks.data.problems import BadInput
from tasks.outputs.files import whole
from tasks.outputs.predictions import safe
from tasks.search.index import Index
from tasks.search.page import Row, write_page
from tasks.search.table import VectorTable, read_table
from tasks.task.base import PoolingTask
from tasks.task.embedding import stack_vectors

SHOWN = 30  # groups on the page
OF_SEEDS = 3  # nearest seeds whose mean similarity says how relevant a sample is


class Everyone(NamedTuple):
    """All samples of a data set, and the part that each is in."""

    samples: list[Sample]
    parts: list[str]
    contents: list[Hashable]

    @property
    def ids(self) -> list[str]:
        """Their names."""
        return [sample.id for sample in self.samples]

    @property
    def owners(self) -> list[str]:
        """Whose each is."""
        return [sample.group or sample.id for sample in self.samples]


class Left(NamedTuple):
    """A sample that is left out, why, because of which other, and how near that is."""

    row: int
    stage: str
    of: int | None
    similarity: float


def curate(args: list[str]) -> Path:
    """Say which samples of a data set should go, and write the table without them if asked. Nothing is deleted.

    Stages, each where it is asked for, one after the other, after Oquab et al. 2024 (arXiv 2304.07193, section 3):

    - ``--duplicates``: samples of one content (`PoolingData.contents`), and those whose whitened vectors are nearer
      than ``--near``; connected copies are a group, of which one stays (`representative`).
    - ``--decontaminate``: training and validation samples nearer to a test sample than test samples of other groups are
      to each other: the ``--clean`` quantile of these, or ``--threshold``.
    - ``--relevant SEEDS``: what is not among the ``-k`` nearest of any seed; with ``--threshold`` what is less similar
      on average to its three nearest seeds.

    Vectors are those of ``--vectors``, which `embed` writes, or fingerprints that need no network
    (`tasks.task.fingerprint`); a network that was taught to ignore what tells copies apart finds them less well.

    The first run is a dry one: it writes the page and ``left_out.csv`` alone. ``--apply`` writes what is left, too: a
    copy of the table of samples with their ``split`` (paths lead from the new place to the old files), or for data
    without a table ``splits.json``.

    Args:
        args: What `fit` takes, ``--out DIR``, the flags above, and ``--whiten 64``: directions that whitening keeps, of
            fingerprints 256, and at most a fifth as many as there are samples.

    Returns:
        The page, ``DIR/index.html``: how near samples are, and those that belong together side by side.

    Raises:
        BadInput: If a flag or the vectors do not fit the data.
    """
    own = argparse.ArgumentParser(prog="python -m tasks curate", description=__doc__, allow_abbrev=False)
    own.add_argument("--out", type=Path, required=True, help="folder of the report and of what is left")
    own.add_argument("--vectors", type=Path, help="a table that embed wrote of these samples; else fingerprints")
    own.add_argument(
        "--whiten", type=int, help="directions that PCA-whitening keeps, 64, of fingerprints 256; 0 = none"
    )
    own.add_argument("--duplicates", action="store_true", help="leave copies out")
    own.add_argument("--near", type=float, help="from which similarity vectors are copies; without it contents alone")
    own.add_argument("--decontaminate", action="store_true", help="leave out what is too near to a test sample")
    own.add_argument("--clean", type=float, default=0.99, help="quantile of clean similarities that is too near")
    own.add_argument("--threshold", type=float, help="a similarity instead of that quantile, or of -k")
    own.add_argument("--relevant", type=Path, help="a file with an id of a seed on each line")
    own.add_argument("-k", type=int, default=10, help="neighbours of a seed that are relevant")
    own.add_argument("--apply", action="store_true", help="write the table without what is left out")
    chosen, rest = own.parse_known_args(args)
    if not (chosen.duplicates or chosen.decontaminate or chosen.relevant):
        raise BadInput(
            "curate: expected --duplicates, --decontaminate or --relevant FILE, got none; say what to look for"
        )
    if chosen.relevant and not chosen.vectors:
        raise BadInput("curate: --relevant compares what a network learned; give --vectors FILE, which embed writes")

    planned = plan(rest)
    data = planned.datamodule
    everyone = _everyone(data)
    task = planned.build_task(data.spec).eval()  # what tells fingerprints and shows samples need not be trained
    index = None
    if chosen.vectors:
        index = _index(chosen, everyone)
    elif chosen.near is not None or chosen.decontaminate:
        index = _fingerprints(chosen, task, data, everyone)
    chosen.out.mkdir(parents=True, exist_ok=True)
    left: dict[int, Left] = {}
    rows: list[tuple[str, str, list[tuple[int, dict[str, str]]]]] = []
    figures: list[Path] = []
    if chosen.duplicates:
        _duplicates(chosen, everyone, index, left, rows, figures)
    if chosen.decontaminate and index is not None:
        _decontaminate(chosen, everyone, index, left, rows, figures)
    if chosen.relevant and index is not None:
        _relevant(chosen, everyone, index, left, figures)

    _write_left(chosen.out, everyone, left)
    maker = Path(str(index.about.get("checkpoint", ""))) if index else Path()
    shower = Shower(load_task(maker) if maker.is_file() else task, data, chosen.out / "samples")
    shown = [Row(title, [shower.card(everyone.ids[row], facts) for row, facts in cards], note)
             for title, note, cards in rows[:SHOWN]]  # fmt: skip
    kept = len(everyone.samples) - len(left)
    about = (
        f"{len(everyone.samples)} samples, {len(left)} to leave out, {kept} left; {len(shown)} of {len(rows)} groups"
    )
    page = write_page(chosen.out / "index.html", "Curated", about, shown, figures=figures)
    print(about)
    if chosen.apply:
        print(f"written: {_apply(chosen.out, data, everyone, left)}")
    else:
        print("a dry run: nothing is written but the report; --apply writes what is left")
    print(f"look at: {page}")
    return page


def _everyone(data: PoolingData) -> Everyone:
    data.setup()
    samples: list[Sample] = []
    parts: list[str] = []
    contents: list[Hashable] = []
    for part in data.datasets:
        own = data.samples(part)
        samples, parts, contents = [*samples, *own], [*parts, *[part] * len(own)], [*contents, *data.contents(part)]
    return Everyone(samples, parts, contents)


def _index(chosen: argparse.Namespace, everyone: Everyone) -> Index:
    """The vectors of the samples, in their order."""
    table = read_table(chosen.vectors)
    rows = {name: row for row, name in enumerate(table.ids)}
    missing = [name for name in everyone.ids if name not in rows]
    if missing:
        raise BadInput(
            f"{chosen.vectors}: expected a vector of every sample, got none of {len(missing)} "
            f"({', '.join(missing[:3])}); embed them by the same config"
        )
    order = [rows[name] for name in everyone.ids]
    return Index.of(table._replace(ids=everyone.ids, vectors=table.vectors[order], columns={}), dims=chosen.whiten)


def _fingerprints(chosen: argparse.Namespace, task: PoolingTask, data: PoolingData, everyone: Everyone) -> Index:
    """What the samples are from afar, in their order."""
    found: list[Tensor] = []
    for part in data.datasets:
        batches = data.loader(data.still(part), False)
        for batch in tqdm(batches, desc=f"fingerprints of {part}", unit="batch", dynamic_ncols=True):
            with torch.no_grad():
                own = task.fingerprints(batch)
            if own is None:
                raise BadInput(
                    f"curate: {type(task).__name__} has no fingerprints; give --vectors FILE, which embed writes, "
                    "or --duplicates alone, which compares contents"
                )
            found += own
    dims = min(256, len(found) // 5) if chosen.whiten is None else chosen.whiten
    return Index.of(VectorTable(everyone.ids, stack_vectors(found).numpy()), dims=dims)


def _duplicates(chosen: argparse.Namespace, everyone: Everyone, index: Index | None, left: dict[int, Left],
                rows: list[Any], figures: list[Path]) -> None:  # fmt: skip
    pairs: list[Pair] = same_content(everyone.contents)
    equal = len(pairs)
    if chosen.near is not None and index is not None:
        near, similar = neighbours(index, np.arange(len(everyone.ids)), 10)
        pairs += near_pairs(near, similar, chosen.near)
        figures.append(draw_histogram(chosen.out / "nearest.png", {"nearest neighbour": similar[:, 0]}, chosen.near))
    labelled = [sample.target is not None for sample in everyone.samples]
    best = {(pair.first, pair.second): pair.similarity for pair in pairs}
    for group in groups_of(pairs, len(everyone.ids)):
        stays = representative(group, everyone.parts, labelled)
        for row in group:
            if row != stays:
                similarity = best.get((min(row, stays), max(row, stays)), float("nan"))
                left[row] = Left(row, "duplicates", stays, similarity)
        targets = {str(everyone.samples[row].target) for row in group}
        note = "their targets differ" if len(targets) > 1 else ""
        cards = [(row, {"": "stays" if row == stays else "goes", "part": everyone.parts[row]}) for row in group]
        rows.append((f"{len(group)} copies of {everyone.ids[stays]}", note, cards))
    print(f"duplicates: {len(left)} copies in {len(rows)} groups ({equal} of the same content)")


def _decontaminate(chosen: argparse.Namespace, everyone: Everyone, index: Index, left: dict[int, Left],
                   rows: list[Any], figures: list[Path]) -> None:  # fmt: skip
    test = np.array([row for row, part in enumerate(everyone.parts) if part == "test"])
    if not len(test):
        raise BadInput("curate: expected test samples to keep training away from, got none")
    clean = nearest_elsewhere(_part(index, test), np.arange(len(test)), [everyone.owners[row] for row in test])
    try:
        threshold = clean_threshold(clean, chosen.clean) if chosen.threshold is None else chosen.threshold
    except ValueError as error:
        raise BadInput(f"--decontaminate: {error}") from error
    others = np.array([row for row, part in enumerate(everyone.parts) if part != "test" and row not in left])
    near, scores = _part(index, test).neighbours(np.asarray(index.vectors[others]), 1)
    gone = 0
    for row, place, score in zip(others.tolist(), near[:, 0].tolist(), scores[:, 0].tolist(), strict=True):
        if score > threshold:
            gone += 1
            left[row] = Left(row, "decontaminate", int(test[place]), score)
            cards = [(int(test[place]), {"part": "test"}), (row, {"": "goes", "similarity": f"{score:.3f}"})]
            rows.append((f"{everyone.ids[row]} is too near to {everyone.ids[test[place]]}", "", cards))
    curves = {"test to test": clean, "training to test": scores[:, 0]}
    figures.append(draw_histogram(chosen.out / "decontaminated.png", curves, threshold))
    print(f"decontaminate: {gone} of {len(others)} nearer to a test sample than {threshold:.3f}")


def _relevant(chosen: argparse.Namespace, everyone: Everyone, index: Index, left: dict[int, Left],
              figures: list[Path]) -> None:  # fmt: skip
    if not chosen.relevant.is_file():
        raise BadInput(f"{chosen.relevant}: expected a file with an id of a seed on each line, got none")
    names = [line.strip() for line in chosen.relevant.read_text(encoding="utf-8").splitlines() if line.strip()]
    known = {name: row for row, name in enumerate(everyone.ids)}
    if unknown := [name for name in names if name not in known] or ([] if names else ["an empty file"]):
        raise BadInput(
            f"{chosen.relevant}: expected ids of the samples, got {len(unknown)} others: {', '.join(unknown[:5])}"
        )
    seeds = np.array([known[name] for name in names])
    near, scores = _part(index, seeds).neighbours(np.asarray(index.vectors), OF_SEEDS)
    best = scores.mean(1)
    best[seeds] = 1.0
    if chosen.threshold is not None:
        kept = set(np.flatnonzero(best >= chosen.threshold).tolist())
    else:
        kept = {int(row) for row in neighbours(index, seeds, chosen.k)[0].flat if row >= 0}
    kept |= set(seeds.tolist())
    gone = [row for row in range(len(everyone.ids)) if row not in kept and row not in left]
    left.update({row: Left(row, "relevant", int(seeds[near[row, 0]]), float(best[row])) for row in gone})
    figures.append(
        draw_histogram(chosen.out / "relevant.png", {"nearest seeds": np.delete(best, seeds)}, chosen.threshold)
    )
    print(f"relevant: {len(gone)} beside the question, {len(kept)} near one of {len(seeds)} seeds")


def _part(index: Index, rows: np.ndarray) -> Index:
    """The index of some rows alone, as they are compared."""
    return Index([index.ids[row] for row in rows], np.asarray(index.vectors[rows]), None)


def _write_left(folder: Path, everyone: Everyone, left: dict[int, Left]) -> None:
    names = ("id", "part", "stage", "because of", "similarity")
    table = []
    for row, one in sorted(left.items()):
        of = "" if one.of is None else everyone.ids[one.of]
        values = (everyone.ids[row], everyone.parts[row], one.stage, of, f"{one.similarity:.6g}")
        table.append({name: safe(value) for name, value in zip(names, values, strict=True)})
    write_csv(folder / "left_out.csv", table, names)


def _apply(folder: Path, data: PoolingData, everyone: Everyone, left: dict[int, Left]) -> Path:
    kept = [row for row in range(len(everyone.ids)) if row not in left]
    source = getattr(data, "manifest", None) or getattr(data, "root", None)
    if source and Path(source).is_file() and all(everyone.samples[row].columns for row in kept):
        return _write_manifest(folder, Path(source).parent, everyone, kept)
    splits = {part: [everyone.ids[row] for row in kept if everyone.parts[row] == part] for part in data.datasets}
    with whole(folder / "splits.json") as place:
        place.write_text(json.dumps(splits, indent=1), encoding="utf-8")
    return folder / "splits.json"


def _write_manifest(folder: Path, home: Path, everyone: Everyone, kept: Sequence[int]) -> Path:
    """The kept rows with their part; what is a file beside the old table is named from the new place."""
    rows = []
    for row in kept:
        cells = dict(everyone.samples[row].columns)
        for name, cell in cells.items():
            if isinstance(cell, str) and cell and (home / cell).is_file():
                cells[name] = Path(os.path.relpath(home / cell, folder)).as_posix()
        rows.append({**cells, "split": everyone.parts[row]})
    with whole(folder / "manifest.csv") as place:
        write_csv(place, rows, list(dict.fromkeys(name for row in rows for name in row)))
    return folder / "manifest.csv"
