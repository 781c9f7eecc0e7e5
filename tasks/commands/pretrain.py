"""``python -m tasks pretrain -c CONFIG --model.objective ntxent``: train a config's encoder and pool without labels."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from tasks.commands.checkpoints import checkpoint, fits, pretrained, read
from tasks.commands.cli import CLI, DEFAULTS, run_cli
from tasks.commands.inner import given, options, spec_of
from tasks.data.problems import BadInput
from tasks.outputs.callback import run_folder
from tasks.outputs.checkpoints import continue_history, history
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
        parser.link_arguments("data", "model.task.init_args.spec", compute_fn=spec_of, apply_on="instantiate")

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
        trainer.callbacks = [one for one in trainer.callbacks if type(one).__name__ != "ModelCheckpoint"] + [
            self.last()
        ]

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
        own = options("pretrain", __doc__, INNER)
        own.add_argument("--ckpt_path", metavar="FILE", help="go on with a pretraining: a .ckpt file, or last")
        own.print_help()
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
