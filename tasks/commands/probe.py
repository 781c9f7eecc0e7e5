"""``python -m tasks probe -c CONFIG --ckpt_path FILE``: what frozen features are worth, beside their floors."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from tqdm import tqdm

from tasks.commands.checkpoints import checkpoint, load_task, read, untrained
from tasks.commands.checkpoints import fits as check_fits
from tasks.commands.cli import plan
from tasks.commands.probe_fits import fits
from tasks.commands.probe_tables import RANDOM, RAW, summary, tables
from tasks.commands.runs import fold_names, numbered, seed_numbers, start
from tasks.commands.seen import Heard, heard
from tasks.commands.tables import write_csv
from tasks.data.problems import BadInput
from tasks.frozen.budgets import budgets, distinct
from tasks.frozen.features import readout
from tasks.frozen.probing import Probes, Row, Table
from tasks.outputs.predictions import without_nan
from tasks.task.base import PoolingTask


def probe(args: list[str]) -> Path:
    """Learn from frozen features with few labels and with all, on every fold, and print how far each kind comes.

    The kinds: what knows the targets alone, the task's floors (`tasks.task.floors`), the network's input pooled, the
    network with random weights (one a seed), and every checkpoint's. Random networks, and the pool of the input, are
    like the first checkpoint's. A checkpoint of `pretrain` is *inductive* on a fold of whose test samples it has heard
    none, *transductive* where it has heard all, without their labels; a fold of which it has heard some is left out.
    One of `fit`, which has learned labels, is probed where it has seen none.

    Args:
        args: What `fit` takes, and ``--ckpt_path FILE,FILE`` (best, last; none: the floors alone), ``--budgets
            1,5,1%,10%,all`` (labelled samples of each class, or in all where the target is no class; shares; all),
            ``--probes linear,knn``, ``--scratch`` and ``--finetune`` (train the whole network with the same labels,
            too, from random weights and from each checkpoint), ``--folds``, ``--seeds 0,1,2`` (of the draw of labels
            and of the random networks), and ``--pool.reduction pyramid --pool.levels [[3,4,3]]``, another readout than
            the task's own.

    Returns:
        The folder, ``runs/NAME/probe_N``: ``probe.csv`` (a row for each fit), ``summary.json``, and ``probe.md``.

    Raises:
        BadInput: If an option or a checkpoint cannot be used.
    """
    chosen, rest = options().parse_known_args(args)
    pool_options, rest = _pool_options(rest)
    wanted = [name.strip() for name in chosen.probes.split(",")]
    if unknown := [name for name in wanted if name not in ("linear", "knn")]:
        raise BadInput(f"probe: expected --probes of linear, knn, got {', '.join(unknown)}; correct it")
    planned = plan(rest)
    started = start("probe", chosen, planned.datamodule)
    if planned.datamodule.labelled is not None:
        raise BadInput("probe: expected no --data.labelled, which --budgets says; leave it out")
    paths = [checkpoint(one, planned.config["run"]) for one in chosen.ckpt_path.split(",") if one]
    for path in paths:
        check_fits(path, read(path), planned.config["model"]["class_path"])

    folder = numbered(planned.config["run"], "probe", False)
    rows: list[Row] = []
    kept: dict[tuple[int, int], Tensor] = {}
    everyone: dict[int, dict[Path, Heard]] = {}
    with tqdm(started["folds"], desc="probe", unit="fold", dynamic_ncols=True) as bar:
        for fold in bar:
            fold_plan = plan([*rest, f"--data.init_args.fold={fold}"])
            data = fold_plan.datamodule
            asked = distinct(data, budgets(chosen.budgets or _default(data.spec["kind"])))
            probes = Probes(fold_plan.build_task(data.spec), data, asked, started["seeds"], kept)
            everyone[fold] = {path: heard(path, data) for path in paths}
            for about, table in _frozen(probes, pool_options, everyone[fold]):
                bar.set_postfix_str(f"fold {fold}, {about['features']}")
                rows += [{"fold": fold, **about, **row} for row in probes.measure(table, wanted)]
            folder.mkdir(parents=True, exist_ok=True)
            write_csv(folder / "probe.csv", rows)
    if chosen.scratch or chosen.finetune:
        rows += fits(rest, folder, rows, asked, everyone, started["seeds"], scratch=chosen.scratch,
                     finetune=chosen.finetune)  # fmt: skip
        write_csv(folder / "probe.csv", rows)
    for path in paths:
        if not any(known[path].fair for known in everyone.values()):
            print(f"{path} is left out: in no fold has it heard none of the test samples, or all without labels")
    found = summary(rows, folds=len(planned.datamodule.folds))
    (folder / "summary.json").write_text(json.dumps(without_nan(found), indent=2) + "\n", encoding="utf-8")
    text = tables(found)
    (folder / "probe.md").write_text(text, encoding="utf-8")
    print(text)
    print(f"look at: {folder / 'probe.csv'}")
    return folder


def options() -> argparse.ArgumentParser:
    """What it takes beside the flags of `fit`."""
    own = argparse.ArgumentParser(prog="python -m tasks probe", description=__doc__, epilog="All flags of fit, too.",
                                  allow_abbrev=False)  # fmt: skip
    own.add_argument("--ckpt_path", default="", help=".ckpt files, best or last, commas between; none: floors alone")
    own.add_argument("--budgets", help="labels: 1,5 (of each class), 1%%,10%% (shares), all")
    own.add_argument("--probes", default="linear,knn", help="linear, knn")
    own.add_argument("--scratch", action="store_true", help="train the whole network with the same labels, too")
    own.add_argument("--finetune", action="store_true", help="the same from each checkpoint")
    own.add_argument("--folds", help="the folds, by number or name; all unless given", type=fold_names)
    own.add_argument("--seeds", help="seeds of draws and random networks; 0,1,2 unless given", type=seed_numbers,
                     default=[0, 1, 2])  # fmt: skip
    return own


def _default(kind: str) -> str:
    return "1,5,1%,10%,all" if kind in ("binary", "multiclass") else "10%,all"


def _pool_options(args: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The options of ``--pool.NAME VALUE`` or ``--pool.NAME=VALUE``, and the other arguments."""
    found, rest, left = {}, [], iter(args)
    for one in left:
        if not one.startswith("--pool."):
            rest.append(one)
            continue
        name, equals, value = one.removeprefix("--pool.").partition("=")
        found[name] = yaml.safe_load(value if equals else next(left, ""))
    if found and not found.get("reduction"):
        raise BadInput(f"--pool: expected --pool.reduction beside --pool.{next(iter(found))}, got none; name a rule")
    return found, rest


def _frozen(probes: Probes, pool_options: dict[str, Any], known: dict[Path, Heard]) -> Iterator[tuple[Row, Table]]:
    """Every kind of features of a fold: what they are called and of which network, and the features."""

    def of(task: PoolingTask) -> Table:
        return probes.network(task, readout(task.pool, pool_options))

    tasks = {path: load_task(path) for path in known}
    first = next(iter(tasks.values()), probes.task)
    kind = probes.task.kind
    yield {"features": "mean" if kind == "regression" else "majority", "network": "", "heard": ""}, probes.nothing()
    for name, table in probes.floors.items():
        yield {"features": name, "network": "", "heard": ""}, table
    raw = probes.raw(readout(first.pool, pool_options))
    if raw is not None:
        yield {"features": RAW, "network": "", "heard": ""}, raw
    for seed in probes.seeds:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = untrained(first, probes.data.spec)
        yield {"features": RANDOM, "network": seed, "heard": ""}, of(network)
    for path, one in known.items():
        if one.fair:
            yield {"features": one.name, "network": str(path), "heard": one.share}, of(tasks[path])
