"""``python -m tasks floors -c CONFIG``: what baselines without a network reach on the folds of the data."""

import argparse
from pathlib import Path

from tqdm import tqdm

from tasks.commands.cli import plan
from tasks.commands.floor_tables import floor_table, write_floors
from tasks.commands.runs import fold_names, numbered, start
from tasks.data.problems import BadInput
from tasks.task.floors import measure_floors


def floors(args: list[str]) -> Path:
    """Fit the task's floors (`tasks.task.floors`) on every fold and write and print how far they come.

    Args:
        args: What `fit` takes, and ``--folds 0,1``, and ``--parts train,val`` to learn from the validation samples,
            too, as a baseline may that stops at no epoch; train alone unless given.

    Returns:
        The folder, ``runs/NAME/floors_N``, with ``floors.csv``: a row for each fold and floor.

    Raises:
        BadInput: If the data cannot be used or have no such fold, or ``--parts`` names others than train and val.
    """
    own = argparse.ArgumentParser(prog="python -m tasks floors", description=__doc__, epilog="All flags of fit, too.",
                                  allow_abbrev=False)  # fmt: skip
    own.set_defaults(seeds=None)  # nothing here is drawn
    own.add_argument("--folds", help="the folds to measure, by number or name; all unless given", type=fold_names)
    own.add_argument("--parts", help="what is learned from: train, or train,val", default="train")
    chosen, rest = own.parse_known_args(args)
    parts = chosen.parts.split(",")
    if parts not in (["train"], ["train", "val"]):
        raise BadInput(f"floors: expected --parts train or train,val, got {chosen.parts}; the test samples only test")

    planned = plan(rest)
    folds = start("floors", chosen, planned.datamodule)["folds"]
    found = {}
    for fold in tqdm(folds, desc="floors", unit="fold", dynamic_ncols=True):
        own_plan = plan([*rest, f"--data.init_args.fold={fold}"])
        data = own_plan.datamodule
        found[fold] = measure_floors(own_plan.build_task(data.spec), data, parts=parts)
    folder = numbered(planned.config["run"], "floors", False)
    folder.mkdir(parents=True)
    write_floors(folder, found)
    print("\n".join(floor_table(found)))
    print(f"look at: {folder / 'floors.csv'}")
    return folder
