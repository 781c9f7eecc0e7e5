"""Many runs of `fit` in one folder: every variant on each fold with each seed, and what they come to."""

import argparse
import contextlib
import io
import itertools
import json
import logging
import math
import shutil
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm

from tasks.commands.cli import CLI, run_cli
from tasks.commands.tables import read_json, write_csv
from tasks.data.base import PoolingData
from tasks.data.problems import BadInput
from tasks.outputs.predictions import values, without_nan


def options(command: str, text: str | None) -> argparse.ArgumentParser:
    """What commands that fit many times take beside the flags of `fit`."""
    own = argparse.ArgumentParser(
        prog=f"python -m tasks {command}", description=text, epilog="All flags of fit, too.", allow_abbrev=False
    )
    own.add_argument("--folds", help="the folds to run, by number or name; all unless given", type=fold_names)
    own.add_argument(
        "--seeds", help="seeds of training; every fold is run with each; 0 unless given", type=seed_numbers
    )
    own.add_argument("--resume", help=f"go on with the newest {command} of this name", action="store_true")
    return own


def seed_numbers(text: str) -> list[int]:
    """The numbers in ``--seeds``."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers with commas between, such as 0,1,2, got '{text}'") from None


def fold_names(text: str) -> list[str]:
    """The names, or numbers, in ``--folds``."""
    return [name.strip() for name in text.split(",")]


def start(
    command: str, chosen: argparse.Namespace, data: PoolingData, before: Path | None = None, **asked: list[Any]
) -> dict[str, list[Any]]:
    """What to run: as asked for, or as the runs that go on were started, with what is asked for beside.

    Args:
        command: Stands before the error's message.
        chosen: ``folds`` and ``seeds`` of `options`.
        data: The data, which know their folds.
        before: The file that says what the runs were started with, if there are any.
        asked: What else is run in all folds, by its name: pools, heads.

    Returns:
        The folds, the seeds, and what is asked for.

    Raises:
        BadInput: If a fold is not one of the data's, or a fold or a seed stands twice.
    """
    started = read_json(before) if before is not None and before.is_file() else {}
    for name, further in asked.items():
        asked[name] = [*started.get(name, []), *(one for one in further if one not in started.get(name, []))]
    known, names = data.folds, data.fold_names
    numbers = {str(number): number for number in known} | {name: number for number, name in names.items()}
    folds = [numbers.get(name, name) for name in chosen.folds or ()] or started.get("folds") or known
    seeds = chosen.seeds or started.get("seeds") or [0]
    for name, all_of_them in (("folds", folds), ("seeds", seeds)):
        if twice := sorted({one for one in all_of_them if all_of_them.count(one) > 1}):
            raise BadInput(f"{command}: expected each of --{name} once, got {_words(twice)} twice; name each once")
    if unknown := [fold for fold in folds if fold not in known]:
        have = [names.get(fold, fold) for fold in known]
        raise BadInput(f"{command}: expected --folds of {_words(have)}, which the data have, got {_words(unknown)}")
    return {**asked, "folds": folds, "seeds": seeds}


def _words(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def numbered(run: dict[str, Any], name: str, resume: bool) -> Path:
    """The next free folder ``name_N`` where a run has its versions; to resume, the newest there is."""
    root = Path(run["root"], run["name"])
    earlier = sorted((int(path.name.split("_")[1]), path) for path in root.glob(f"{name}_*") if path.is_dir())
    if resume and earlier:
        return earlier[-1][1]
    return root / f"{name}_{earlier[-1][0] + 1 if earlier else 0}"


def fit_all(
    variants: dict[Path, list[str]],
    folds: list[int],
    seeds: list[int],
    title: str,
    names: Mapping[int, str] | None = None,
) -> Iterator[dict[Path, list[dict[str, Any]]]]:
    """Fit and test each variant on each fold with each seed, all variants of a fold before the next fold.

    Each run gets a folder ``fold_K_seed_S`` of its own. A run that is finished there, by its summary, is not run again;
    one that was interrupted starts over: what workers draw would not be as in a run that was not interrupted, and runs
    would no longer be pairs.

    Args:
        variants: The flags of `fit` by the folder that gets their runs, ``crossval.csv`` and ``summary.json``.
        folds: The folds.
        seeds: The seeds.
        title: Stands before the progress bar.
        names: What the folds are called in ``crossval.csv``, where their numbers are not their names.

    Yields:
        The rows of all variants so far, fold, seed and test metrics: what there is to begin with, and after each run.
    """
    runs = [(seed, fold) for seed in seeds for fold in folds]
    for folder, (seed, fold) in itertools.product(variants, runs):
        _discard_damaged(folder / f"fold_{fold}_seed_{seed}" / "summary.json")
    rows = {folder: _finished(folder, runs) for folder in variants}
    done = sum(map(len, rows.values()))
    if done:  # what an earlier call left is in the tables from the start
        for folder, own_rows in rows.items():
            if own_rows:
                _write(folder, own_rows, names)
        yield rows
    with tqdm(total=len(variants) * len(runs), initial=done, desc=title, unit="run", dynamic_ncols=True) as bar:
        for (seed, fold), (folder, args) in itertools.product(runs, variants.items()):
            place = folder / f"fold_{fold}_seed_{seed}"
            if (place / "summary.json").is_file():
                continue
            shutil.rmtree(place, ignore_errors=True)
            own = [f"--run.root={folder.parent}", f"--run.name={folder.name}", f"--run.version={place.name}"]
            own += [f"--data.init_args.fold={fold}", f"--seed_everything={seed}"]
            if (seed, folder) != (seeds[0], next(iter(variants))):
                own.append("--floors=false")  # they are the data's, and the same whatever is trained
            _fit([*args, *own], bar, f"{folder.name}, fold {fold}, seed {seed}")
            rows[folder] = _finished(folder, runs)
            _write(folder, rows[folder], names)
            bar.update()
            yield rows


def _discard_damaged(summary: Path) -> None:
    """Name a summary that cannot be read, and take it away, so that its run is made again."""
    if summary.is_file():
        try:
            _values(summary)
        except BadInput as error:
            print(f"{error.args[0].removesuffix('; delete it')}; its run is made again", file=sys.stderr)
            summary.unlink()


def _finished(folder: Path, runs: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """The rows of the runs that have a summary, in order."""
    places = [(seed, fold, folder / f"fold_{fold}_seed_{seed}" / "summary.json") for seed, fold in runs]
    return [{"fold": fold, "seed": seed, **_values(path)} for seed, fold, path in places if path.is_file()]


def _fit(args: list[str], bar: tqdm, title: str) -> None:
    """One run, which says nothing but how far it is: what it would print is in its folder."""
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with contextlib.redirect_stdout(io.StringIO()):
            # Pictures of the training are for somebody who watches it; a config or flag may ask for them.
            run_cli(["fit", "--outputs.every=0", *args, *quiet], cli_class=_telling(bar, title))
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _telling(bar: tqdm, title: str) -> type[CLI]:
    """A command line whose trainer tells the bar the epoch."""

    class Epochs(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            # In a log, which keeps every state of the bar, one a run is enough.
            state = f"{title}, epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
            bar.set_postfix_str(state, refresh=sys.stderr.isatty())

    class Telling(CLI):
        def instantiate_trainer(self, **kwargs: Any) -> Trainer:
            trainer = super().instantiate_trainer(**kwargs)
            trainer.callbacks.append(Epochs())  # type: ignore[attr-defined]
            return trainer

    return Telling


def _values(summary: Path) -> dict[str, float]:
    try:
        return values(read_json(summary))
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{summary} is damaged (it has no test metrics); delete it") from error


def mean_and_sd(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation (n - 1) of each metric over the rows in which it is defined.

    Example:
        >>> mean_and_sd([{"fold": 0, "seed": 0, "acc": 0.5}, {"fold": 1, "seed": 0, "acc": 0.7}])["acc"]["mean"]
        0.6
    """
    names = [name for name in rows[0] if name not in ("fold", "seed")]
    columns = {name: [row[name] for row in rows if not math.isnan(row[name])] for name in names}
    return {
        name: {
            "mean": statistics.fmean(column) if column else math.nan,
            "sd": statistics.stdev(column) if len(column) > 1 else 0.0 if column else math.nan,
        }
        for name, column in columns.items()
    }


def _write(folder: Path, rows: list[dict[str, Any]], names: Mapping[int, str] | None) -> None:
    write_csv(folder / "crossval.csv", [{**row, "fold": (names or {}).get(row["fold"], row["fold"])} for row in rows])
    (folder / "summary.json").write_text(
        json.dumps(without_nan({"runs": len(rows), "test": mean_and_sd(rows)}), indent=2) + "\n"
    )
