"""``python -m tasks match -c CONFIG``: two towers, of samples and of what is said of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser

from tasks.commands.cli import CLI, DEFAULTS, run_cli
from tasks.commands.inner import given, options, spec_of
from tasks.commands.tables import write_csv
from tasks.data.base import PoolingData
from tasks.data.digests import digest_file
from tasks.data.problems import BadInput
from tasks.data.splits import PARTS
from tasks.match.data import MatchData
from tasks.match.floors import ridge_floor
from tasks.match.retrieval import recall
from tasks.match.task import MatchTask, load_match
from tasks.outputs.callback import run_folder
from tasks.outputs.curves import draw_curves
from tasks.outputs.files import whole
from tasks.search.table import VectorTable, usual_format, write_table
from tasks.task.floors import matrices, told_of
from tasks.task.modality import ForForest

INNER = {"model": ("task", MatchTask), "data": ("source", MatchData)}
"""Where a config's own model and data stand inside of those of two towers."""


class MatchCLI(CLI):
    """The command line of two towers: a task in `MatchTask`, data in `MatchData`."""

    two = False
    """Whether the second tower is a task, too."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run's name, and tell the tasks about the data."""
        self.add_run(parser)
        parser.add_argument("--floors", type=bool, default=True, help="Measure ridge regression between counts, too.")
        parser.add_argument(
            "--zero_shot", type=str | None, default=None, help="Column whose classes are guessed from their names."
        )
        parser.link_arguments("data", "model.task.init_args.spec", compute_fn=spec_of, apply_on="instantiate")
        if self.two:
            parser.link_arguments("data", "model.other.init_args.spec", compute_fn=_other, apply_on="instantiate")

    def _parse_ckpt_path(self) -> None:
        """A training of two towers begins anew."""
        if self.config[self.config["subcommand"]].get("ckpt_path"):
            raise BadInput("match: expected no --ckpt_path, as a training of two towers begins anew; leave it out")

    def keep(self, trainer: Any) -> None:
        """Keep the epoch in which most validation pairs find each other, and the last."""
        trainer.callbacks = [one for one in trainer.callbacks if type(one).__name__ != "ModelCheckpoint"]
        trainer.callbacks += [ModelCheckpoint(monitor="val/R@1", mode="max", filename="best"), self.last()]

    def before_fit(self) -> None:
        """Nothing to go on with."""

    def after_fit(self) -> None:
        """Test the best epoch beside its floors, and write the vectors of both towers."""
        trainer = self.trainer
        folder = run_folder(trainer)  # asks all processes
        if trainer.fast_dev_run or not trainer.is_global_zero:
            return
        best = next(one for one in trainer.callbacks if isinstance(one, ModelCheckpoint)).best_model_path
        model, data = load_match(best), self.datamodule
        vectors = {part: _vectors(model, data, part) for part in PARTS if part in data.datasets}
        a, b = vectors["test"]
        keys = data.keys("test")
        rows = [{"pairs": "two towers", **recall(a @ b.T, keys)}]
        if self._get(self.config, "floors") and data.texts is not None:
            rows += [{"pairs": row.pop("floor"), **row} for row in _floors(model, data)]
        summary: dict[str, Any] = {"candidates": len(keys), "different": len(set(keys)), "test": rows}
        column = self._get(self.config, "zero_shot")
        if column:
            summary["zero-shot"] = zero_shot(a, model, data, column)
        write_csv(folder / "retrieval.csv", rows)
        with whole(folder / "summary.json") as place:
            place.write_text(json.dumps(summary, indent=2))
        print(_told(summary))
        _write(folder, Path(best), model, data, vectors)
        pictures = draw_curves(folder)
        print(f"Results: {folder}")
        print(f"Look at: {pictures[0] if pictures else folder / 'retrieval.csv'}")


def match(args: list[str]) -> Path | None:
    """Train two towers on pairs: what a config of `fit` describes, and what is said of its samples.

    The epoch with the best recall within the validation part is tested: how often the right text is among the first 1,
    5 and 10 of those of the test part, and the right sample for a text, beside ridge regression from the modality's
    floors to counts of letters. ``retrieval.csv`` has it; ``samples.parquet`` and ``texts.parquet`` have the vectors of
    both towers, which `search` takes: there a file is a sample, and whatever else is asked a text.

    Args:
        args: ``-c CONFIG``, configs of `fit`, options of `MatchTask` as ``--model.NAME`` and of `MatchData` as
            ``--data.NAME``; what these do not have goes to the config's own task and data, as for `pretrain`.
            ``--zero_shot COLUMN`` guesses the classes of a column that the captions name from their names alone.

    Returns:
        The run's folder; nothing where nothing is trained (``--print_config``, ``--help``).
    """
    if not args or args[0] in ("-h", "--help"):
        own = options("match", __doc__, INNER)
        own.add_argument("--zero_shot", metavar="COLUMN", help="guess the classes of this column from their names")
        own.add_argument("--floors", metavar="BOOL", help="measure ridge regression between counts, too [True]")
        own.print_help()
        return None
    known = given(args, INNER)
    two = any("model.other" in one or '"other"' in one for one in known)
    cli: MatchCLI = run_cli(
        ["fit", *known],
        cli_class=type("MatchCLI", (MatchCLI,), {"two": two}),
        subcommands=("fit",),
        classes=(MatchTask, MatchData),
        subclasses=False,
        defaults=DEFAULTS.with_name("pretrain.yaml"),
    )
    return run_folder(cli.trainer)


@torch.no_grad()
def zero_shot(vectors: torch.Tensor, model: MatchTask, data: MatchData, column: str) -> dict[str, float]:
    """Guess each test sample's class by the mean vector of what would be said of training samples of each class.

    An ensemble of prompts (Radford et al. 2021, section 3.1.4).

    Args:
        vectors: Of the test samples, (N, D).
        model: The towers.
        data: Pairs with captions.
        column: The classes' column.

    Returns:
        Accuracy, the share of the largest class, and how many classes there are.
    """
    assert data.texts is not None
    train, test = data.samples("train"), data.samples("test")
    names = sorted({str(sample.columns.get(column)) for sample in train})
    prompts = []
    for name in names:
        texts = sorted({data.texts.of_class(name, column, sample) for sample in train})
        prompts.append(torch.nn.functional.normalize(model.others(texts).mean(0), dim=0))
    guessed = (vectors @ torch.stack(prompts).T).argmax(1).tolist()
    labels = [str(sample.columns.get(column)) for sample in test]
    right = [names[guess] == label for guess, label in zip(guessed, labels, strict=True)]
    most = max(labels.count(name) for name in set(labels)) / len(labels)
    return {"accuracy": sum(right) / len(right), "largest class": most, "classes": len(names)}


def _other(data: MatchData) -> dict[str, Any]:
    assert data.other is not None
    return data.other.spec


@torch.no_grad()
def _vectors(model: MatchTask, data: MatchData, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The vectors of both towers of a part, (N, D) each."""
    found = [(model.samples(samples), model.others(others)) for samples, others in data.loader(data.still(part), False)]
    a, b = zip(*found, strict=True)
    return torch.cat(a), torch.cat(b)


def _floors(model: MatchTask, data: MatchData) -> list[dict[str, Any]]:
    source: PoolingData = data.source
    told = {part: told_of(model.first, source, source.still(part))[0] for part in PARTS}
    features = {}
    for name, train in told["train"].items():
        if not isinstance(train, ForForest):
            x, val = matrices(train, told["val"][name])
            features[name] = (x, val, matrices(train, told["test"][name])[1])
    texts = tuple(data.said(part) for part in PARTS)
    return ridge_floor(features, texts, tuple(data.keys(part) for part in PARTS))


def _write(folder: Path, best: Path, model: MatchTask, data: MatchData, vectors: dict[str, Any]) -> None:
    """The tables of both towers."""
    about = {"checkpoint": str(best), "digest": digest_file(best), "match": True}
    ids = [sample.id for part in vectors for sample in data.samples(part)]
    where = [part for part in vectors for _ in data.samples(part)]
    columns: dict[str, list[Any]] = {"part": where}
    if data.texts is not None:
        columns["text"] = [text for part in vectors for text in data.said(part)]
    for name, side in (("samples", 0), ("texts" if data.texts is not None else "others", 1)):
        flat = np.concatenate([both[side].numpy() for both in vectors.values()])
        write_table(folder / f"{name}.{usual_format()}", VectorTable(ids, flat, columns, about))


def _told(summary: dict[str, Any]) -> str:
    lines = [
        f"{summary['candidates']} test pairs, {summary['different']} of them different; recall in %, of texts and back"
    ]
    names = [name for name in summary["test"][0] if name != "pairs"]
    lines.append(f"{'':40}" + "".join(f"{name:>10}" for name in names))
    lines += [
        f"{row['pairs'][:38]:40}" + "".join(f"{100 * row[name]:10.1f}" for name in names) for row in summary["test"]
    ]
    if "zero-shot" in summary:
        own = summary["zero-shot"]
        guess = f"{100 * own['accuracy']:.1f} % of {own['classes']:.0f} classes"
        lines.append(f"zero-shot: {guess} (largest {100 * own['largest class']:.1f} %)")
    return "\n".join(lines)
