"""``python -m tasks heads -c CONFIG``: the pooled head beside flatten and fully connected layers."""

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import Subset

from tasks.commands.checkpoints import load_task
from tasks.commands.cli import plan
from tasks.commands.costs import Memory, head_memory
from tasks.commands.paired import difference
from tasks.commands.runs import fit_all, mean_and_sd, numbered, options, start
from tasks.commands.settings import same_settings
from tasks.commands.sizes import largest
from tasks.commands.tables import read_json, write_csv
from tasks.data.base import PoolingData
from tasks.data.problems import BadInput
from tasks.outputs.files import whole
from tasks.task.certainty import bootstrap
from tasks.task.flatten import by

Row = dict[str, Any]


class HeadCosts(NamedTuple):
    """Parameters of two heads for the same features."""

    pooled: int
    """Global average pooling and one linear layer."""
    flatten: int
    """Every element flattened, and fully connected layers."""

    @property
    def saved(self) -> float:
        """The share of the flatten head's parameters that the pooled head does without."""
        return 1 - self.pooled / self.flatten

    @property
    def bytes(self) -> tuple[int, int]:
        """Both in float32: pooled, flatten."""
        return 4 * self.pooled, 4 * self.flatten


def head_costs(
    elements: int = 7 * 7, channels: int = 512, hidden: Sequence[int] = (4096, 4096), outputs: int = 1000
) -> HeadCosts:
    """Count weights and biases of a pooled head, C·K + K, and of fully connected layers on N·C flattened numbers.

    Pooled parameters do not depend on N (Lin et al. 2014, Network in Network, section 3.2). The defaults are VGG-16's
    head (Simonyan and Zisserman 2015); AlexNet's fc6, fc7 and fc8 read 6·6 elements of 256 channels (Krizhevsky et al.
    2012).

    Args:
        elements: N, elements of a sample.
        channels: C, channels of an element.
        hidden: Neurons of the fully connected layers before the last.
        outputs: K.

    Example:
        >>> vgg = head_costs()
        >>> vgg.pooled, vgg.flatten
        (513000, 123642856)
        >>> round(100 * head_costs(6 * 6, 256).saved, 2)
        99.56
        >>> head_costs(7 * 7, 512, hidden=(), outputs=4096).flatten  # the first of VGG-16's layers alone
        102764544
    """
    layers = itertools.pairwise([elements * channels, *hidden, outputs])
    return HeadCosts((channels + 1) * outputs, sum((fan_in + 1) * fan_out for fan_in, fan_out in layers))


def heads(args: list[str]) -> Path:
    """Train the config's pooled head and flatten heads on the same folds and seeds; print costs, accuracy and gap.

    A flatten head reads every element of the encoder's features, each in a place of its own, and so is built for one
    size: here the largest of the data, all three parts; smaller graphs and shorter clips end in zeros. All else is as
    the config has it for the pool. The generalisation gap is train less test of the same checkpoint (the best on the
    validation data) in evaluation mode, the training samples without random changes. ``--resume`` goes on after an
    interruption.

    Args:
        args: What `fit` takes, and ``--hidden 0,256`` (neurons between the flattened features and the outputs, a head
            for each number; 0: none between), ``--folds 0,1``, ``--seeds 0,1,2``, ``--resume`` (further
            heads only need naming).

    Returns:
        The folder, ``runs/NAME/heads_N``: ``heads.csv`` (a row for each head and metric), ``heads.md``, and for each
        head a folder like that of a cross-validation, each run with its ``train.json``.

    Raises:
        BadInput: If the encoder cannot read the data, ``--hidden`` names no sizes, or runs are to go on with other
            settings.
    """
    own = options("heads", __doc__)
    own.add_argument("--hidden", help="neurons of the fully connected layer, 0 = none; a head each; 256 unless given")
    chosen, rest = own.parse_known_args(args)
    # Pictures take longer than small runs, and the tables have no floors; flags go over it.
    rest = ["--outputs.maps=0", "--outputs.every=0", "--floors=false", *rest]

    planned = plan(rest)
    known = planned.datamodule.folds
    folder = numbered(planned.config["run"], "heads", chosen.resume)
    before = folder / "heads.json"
    known_heads = chosen.hidden is None and before.is_file()
    asked = [] if known_heads else _hidden("256" if chosen.hidden is None else chosen.hidden)
    started = start("heads", chosen, planned.datamodule, before, hidden=asked)
    data = _data(rest, started["folds"][0])
    task = planned.build_task(data.spec).eval()
    sizes = largest(task, data)
    variants = {folder / "pooled": rest}
    for neurons in started["hidden"]:
        own_flags = [f"--model.init_args.flatten={sizes}", f"--model.init_args.flatten_layers={[neurons][:neurons]}"]
        variants[folder / f"flatten_{neurons}"] = [*rest, *own_flags]
    batch = next(iter(data.loader(data.still("train"), False)))
    costs = {place: head_memory(plan(flags).build_task(data.spec), batch) for place, flags in variants.items()}

    same_settings("heads", folder, planned.config)
    before.write_text(json.dumps(started, indent=2) + "\n")

    own_pool = " ".join(str(task.pool).split())
    about = f"{by(sizes)} elements in the largest sample; pooled is {own_pool}"
    for done in fit_all(variants, started["folds"], started["seeds"], "heads", planned.datamodule.fold_names):
        runs = {}
        for place in [place for place in variants if done[place]]:
            for row in done[place]:
                run = _run(place, row)
                if (run / "train.json").is_file():
                    continue
                if data.fold != row["fold"]:
                    data = _data(rest, row["fold"])
                with whole(run / "train.json") as place_of_file:
                    place_of_file.write_text(json.dumps(_train_metrics(run, data), indent=2) + "\n")
            train = [row | read_json(_run(place, row) / "train.json") for row in done[place]]
            runs[place] = (done[place], train)
        _write(folder, runs, costs, len(known), about)
    print((folder / "heads.md").read_text())
    print(f"look at: {folder / 'heads.md'}")
    return folder


def _hidden(text: str) -> list[int]:
    found = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in found) or len(set(found)) < len(found):
        raise BadInput(f"heads: expected --hidden like 0,256 (neurons, 0 = no layer between), each once, got '{text}'")
    return [int(part) for part in found]


def _data(args: list[str], fold: int) -> PoolingData:
    data: PoolingData = plan([*args, f"--data.init_args.fold={fold}"]).datamodule
    data.setup()
    return data


def _run(place: Path, row: Row) -> Path:
    return place / f"fold_{row['fold']}_seed_{row['seed']}"


def _train_metrics(run: Path, data: PoolingData) -> Row:
    """The metrics of a run's best checkpoint, which was tested, on its training samples: those that kept a label."""
    task = load_task(run / "checkpoints" / "best.ckpt")
    train = data.still("train")
    predictions, targets = [], []
    for batch in data.loader(Subset(train, data.kept) if data.kept else train, False):
        batch = task.transfer_batch_to_device(batch, task.device, 0)
        with torch.no_grad():
            predictions.append(task.predictions(task(batch)).cpu())
        targets.append(task.target(batch).cpu())
    found = bootstrap(task.kind, len(task.classes), torch.cat(predictions), torch.cat(targets), samples=0)
    return {name: result["value"] for name, result in found.items()}


def _write(
    folder: Path, runs: dict[Path, tuple[list[Row], list[Row]]], costs: dict[Path, Memory], folds: int, about: str
) -> None:
    """Write the tables of all runs so far."""
    table = []
    base = next(iter(runs.values()))[0]
    for place, (test, train) in runs.items():
        gaps = [
            one | {name: one[name] - other[name] for name in one if name not in ("fold", "seed")}
            for one, other in zip(train, test, strict=True)
        ]
        parts = {"test": mean_and_sd(test), "train": mean_and_sd(train), "gap": mean_and_sd(gaps)}
        for metric in parts["test"]:
            row = {"head": place.name, "metric": metric, "runs": len(test)}
            row |= {f"{part}_{name}": value for part, all_of in parts.items() for name, value in all_of[metric].items()}
            against = difference(test, base, metric, folds=folds)._asdict()
            table.append(
                row | {f"difference_{name}": value for name, value in against.items()} | costs[place]._asdict()
            )
    write_csv(folder / "heads.csv", table)
    shown = [row for row in table if row["metric"] == table[0]["metric"]]
    (folder / "heads.md").write_text(_markdown(shown, about), encoding="utf-8")


def _markdown(table: list[Row], about: str) -> str:
    """The table of one metric, and what its columns are."""
    metric = table[0]["metric"]
    lines = [
        f"| head | parameters | of the task | training, MB | activations, kB | test {metric} | train {metric} | gap | "
        "to pooled, 95 % interval | runs |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in table:
        three = " | ".join(f"{row[f'{part}_mean']:.4g} ± {row[f'{part}_sd']:.2g}" for part in ("test", "train", "gap"))
        against = f"{row['difference_mean']:+.3g}"
        if not math.isnan(row["difference_low"]):
            against += f" [{row['difference_low']:+.3g}, {row['difference_high']:+.3g}]"
        lines.append(
            f"| {row['head']} | {row['parameters']} | {row['parameters'] / row['task_parameters']:.1%} | "
            f"{row['training_bytes'] / 1e6:.3g} | {row['activation_bytes'] / 1e3:.3g} | {three} | "
            f"{'' if row is table[0] else against} | {row['runs']} |"
        )
    lines += [
        "",
        f"Features: {about}. flatten_N has a layer of N neurons between these and the outputs (0: none).",
        "Training: float32 weights of the head, their gradients and AdamW's two moments. Activations: what the head "
        "keeps of a sample for the backward pass, beside weights and features.",
        "Gap: train less test, mean ± sd over runs, of the checkpoint that was best in validation.",
    ]
    return "\n".join(lines) + "\n"
