"""``python -m tasks pretrain -c CONFIG --model.objective ntxent``: train a config's encoder and pool without labels."""

import argparse
import inspect
import json
from pathlib import Path
from typing import Any

from docstring_parser import parse  # comes with jsonargparse[signatures]
from lightning.pytorch.cli import LightningArgumentParser

from tasks.commands.checkpoints import checkpoint, fits, pretrained, read
from tasks.commands.cli import CLI, DEFAULTS, run_cli
from tasks.commands.inner import given, own_options
from tasks.data.base import PoolingData
from tasks.data.problems import BadInput
from tasks.outputs.callback import run_folder
from tasks.outputs.checkpoints import Last, continue_history, history
from tasks.outputs.curves import draw_curves
from tasks.outputs.files import whole
from tasks.pretrain.data import PretrainData
from tasks.pretrain.task import PretrainTask

INNER = {"model": ("task", PretrainTask), "data": ("source", PretrainData)}
"""Where a config's own model and data stand inside of those of pretraining."""


class PretrainCLI(CLI):
    """The command line of a pretraining: a task in `PretrainTask`, data in `PretrainData`."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run's name, and tell the task about the data."""
        self.add_run(parser)
        parser.link_arguments("data", "model.task.init_args.spec", compute_fn=_spec, apply_on="instantiate")

    def _parse_ckpt_path(self) -> None:
        """Find a pretraining's ``last``, to go on with."""
        config = self.config[self.config["subcommand"]]
        if config.get("ckpt_path"):
            path = checkpoint(config["ckpt_path"], config["run"])
            config["ckpt_path"] = str(path)
            self.stored = read(path)
            fits(path, self.stored, config["model"]["task"]["class_path"])
            if not pretrained(self.stored):
                raise BadInput(
                    f"{path}: expected a checkpoint that pretrain wrote, got one of fit; leave --ckpt_path out, or "
                    "give --run.name of the pretraining to go on with"
                )

    def keep(self, trainer: Any) -> None:
        """Keep the last epoch's state alone: there is no label to call an epoch the best by."""
        trainer.callbacks = [one for one in trainer.callbacks if type(one).__name__ != "ModelCheckpoint"] + [Last()]

    def before_fit(self) -> None:
        """Go on with the curves of the training that is resumed."""
        path = self._get(self.config, "ckpt_path")
        if path:
            continue_history(self.trainer.loggers, history(Path(path), self.stored))

    def after_fit(self) -> None:
        """End with what the alarms say, the curves, and what to do next."""
        trainer, model = self.trainer, self.model
        folder = run_folder(trainer)  # asks all processes
        if trainer.fast_dev_run or not trainer.is_global_zero:
            return
        last = {name: float(value) for name, value in trainer.callback_metrics.items()}
        found = model.found
        with whole(folder / "summary.json") as place:
            place.write_text(
                json.dumps({"objective": model.options["objective"], "last": last, "alarms": found}, indent=2)
            )
        for line in found:
            print(f"warning: {line}")
        pictures = draw_curves(folder)
        print(f"Results: {folder}")
        print(f"Look at: {pictures[0] if pictures else folder / 'metrics.csv'}")
        print(f"Checkpoint: {folder / 'checkpoints' / 'last.ckpt'}")


def _spec(data: PoolingData) -> dict[str, Any]:
    return data.spec


def pretrain(args: list[str]) -> Path | None:
    """Train without labels what a config of `fit` describes.

    Args:
        args: ``-c CONFIG``, configs of `fit`, options of `PretrainTask` as ``--model.NAME`` and of `PretrainData` as
            ``--data.NAME``; what these do not have goes to the config's own task (``--model.widths`` is
            ``--model.task.widths``) and data (``--data.root``). The same holds for what stands in a config.

    Returns:
        The run's folder; nothing where nothing is trained (``--print_config``, ``--help``).
    """
    if not args or args[0] in ("-h", "--help"):
        options().print_help()
        return None
    cli = run_cli(
        ["fit", *given(args, INNER)],
        cli_class=PretrainCLI,
        subcommands=("fit",),
        classes=(PretrainTask, PretrainData),
        subclasses=False,
        defaults=DEFAULTS.with_name("pretrain.yaml"),
    )
    return run_folder(cli.trainer)


def options() -> argparse.ArgumentParser:
    """What it takes beside the flags of `fit`, as the classes themselves say it."""
    own = argparse.ArgumentParser(prog="python -m tasks pretrain", description=__doc__, usage="%(prog)s -c CONFIG ...",
                                  epilog="All flags of fit, too: what is none of these goes to the config's own task "
                                  "(--model) and data (--data).", allow_abbrev=False)  # fmt: skip
    own.add_argument("-c", "--config", metavar="CONFIG", help="a config of fit; several go over each other")
    own.add_argument("--ckpt_path", metavar="FILE", help="go on with a pretraining: a .ckpt file, or last")
    for section, (_, kind) in INNER.items():
        said = {one.arg_name: one.description or "" for one in parse(kind.__doc__ or "").params}
        for name in own_options(kind):
            default = inspect.signature(kind).parameters[name].default
            text = " ".join(f"{said[name]} [{default}]".split()).replace("%", "%%")
            own.add_argument(f"--{section}.{name}", metavar="VALUE", help=text)
    return own
