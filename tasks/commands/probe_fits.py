"""What training the whole network comes to with the labels that a probe has: from scratch, and from a checkpoint."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.commands.runs import fit_all
from tasks.commands.seen import Heard
from tasks.frozen.budgets import Budget
from tasks.frozen.probing import Row

UNVALIDATED = ["--trainer.limit_val_batches=0", "--checkpoint.monitor=null", "--early_stopping.strict=false"]
"""With few labels there are none to choose an epoch by: the last counts."""


def fits(
    args: list[str],
    folder: Path,
    frozen: Sequence[Row],
    budgets: Sequence[Budget],
    known: Mapping[int, Mapping[Path, Heard]],
    seeds: Sequence[int],
    *,
    scratch: bool,
    finetune: bool,
) -> list[Row]:
    """Fit and test on every fold, with every budget and seed, and read what came of it.

    The labelled samples are those of the probes. With all of them the validation part chooses the epoch, as in `fit`;
    with fewer the last one is taken, because a probe has no further labels either.

    Args:
        args: The flags of `fit`.
        folder: Where the runs go.
        frozen: The probes' rows, which say the metrics and how many labels a budget is.
        budgets: The budgets.
        known: By fold, what each checkpoint knew of the test samples.
        seeds: Seeds of training and of the draws.
        scratch: Whether to train from random weights.
        finetune: Whether to train from each checkpoint that is fair.

    Returns:
        Rows like those of the probes; the network's head stands in for the linear probe.
    """
    metrics = [name for name in frozen[0] if name not in ("fold", "features", "network", "heard", "seed", "probe",
                                                          "budget", "labels")]  # fmt: skip
    labels = {(row["fold"], row["budget"], row["seed"]): row["labels"] for row in frozen}
    found: list[Row] = []
    quiet = ["--outputs.maps=0", "--outputs.every=0", "--outputs.bootstrap=0", "--floors=false"]
    for fold, paths in known.items():
        starts: dict[str, tuple[dict[str, Any], list[str]]] = {}
        if scratch:
            starts["scratch"] = ({"features": "from scratch", "network": "", "heard": ""}, [])
        for number, (path, one) in enumerate(paths.items()):
            if finetune and one.fair:
                about = {"features": f"fine-tuned, {one.name}", "network": str(path), "heard": one.share}
                starts[f"finetuned_{number}"] = (about, [f"--model.init_args.pretrained={path}"])
        for budget in budgets:
            for seed in seeds:
                own = [*quiet, *args] + (
                    [] if budget.labels is None else [
                        f"--data.init_args.labelled={budget.labels}", f"--data.init_args.labelled_seed={seed}",
                        *UNVALIDATED,
                    ]
                )  # fmt: skip
                variants = {
                    folder / f"{name}_{budget.name.replace('%', 'pc')}": [*own, *flags]
                    for name, (_, flags) in starts.items()
                }
                done = list(fit_all(variants, [fold], [seed], f"{budget.name}, fold {fold}, seed {seed}"))[-1]
                for (about, _), (row, *_) in zip(starts.values(), done.values(), strict=True):
                    count = labels.get((fold, budget.name, seed), labels[fold, budget.name, seeds[0]])
                    same = {"probe": "linear", "budget": budget.name, "labels": count, "seed": seed}
                    found.append({"fold": fold, **about, **same, **{name: row[name] for name in metrics}})
    return found
