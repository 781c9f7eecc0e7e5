"""LightningCLI with a run folder, and a trained model's own settings where one is loaded."""

import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, WeightAveraging
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger

from tasks.commands.checkpoints import checkpoint
from tasks.data.base import PoolingData
from tasks.data.problems import BadInput
from tasks.outputs.callback import Outputs
from tasks.task.base import PoolingTask

AnyCLI = TypeVar("AnyCLI", bound=LightningCLI)
DEFAULTS = Path(__file__).resolve().parents[2] / "configs" / "defaults.yaml"


class CLI(LightningCLI):
    """One command line for every modality: the config names the task and the data."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run's name, the checkpoint, early stopping and outputs, and tell the task about the data."""
        parser.add_argument("--run.name", type=str, default="run", help="Results go to ROOT/NAME/version_N.")
        parser.add_argument("--run.root", type=str, default="runs", help="Folder of all runs.")
        parser.add_argument("--run.version", type=str | None, default=None, help="A folder name instead of version_N.")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.add_argument("--by", type=str | None, default=None, help="Columns whose values split the test metrics.")
        parser.add_argument("--permutations", type=int, default=0, help="Shuffles of the labels behind p values.")
        parser.add_lightning_class_args(Outputs, "outputs")
        for name in ("by", "permutations"):
            parser.link_arguments(name, f"outputs.{name}")
        parser.link_arguments("data", "model.init_args.spec", compute_fn=self.spec_for, apply_on="instantiate")

    def spec_for(self, data: PoolingData) -> dict[str, Any]:
        """The data's spec; for a trained model the one it was trained with."""
        if self.subcommand in (None, "fit"):
            return data.spec
        path = self._get(self.config, "ckpt_path")
        if not path:
            return data.spec
        return torch.load(path, map_location="cpu", weights_only=True)["hyper_parameters"]["spec"]

    def _parse_ckpt_path(self) -> None:
        """Find ``best`` and ``last`` of the newest run; when fitting, let the command line beat the checkpoint."""
        subcommand = self.config.get("subcommand")  # self.subcommand is not there yet
        if subcommand is not None:
            config = self.config[subcommand]
            if config.get("ckpt_path"):
                config["ckpt_path"] = str(checkpoint(config["ckpt_path"], config["run"]))
        if subcommand != "fit":
            super()._parse_ckpt_path()

    def instantiate_classes(self) -> None:
        """Say what a class found wrong with its options or inputs, without the parser's dump of all the rest."""
        with _in_its_own_words():
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Write metrics.csv into the run folder, beside any other loggers the config asks for."""
        others = self._get(self.config_init, "trainer")["logger"]
        if others is not False:
            run = self._get(self.config_init, "run")
            own = CSVLogger(run["root"], name=run["name"], version=run["version"])
            others = others if isinstance(others, list) else [others] if others not in (None, True) else []
            kwargs["logger"] = [own, *others]
        trainer = super().instantiate_trainer(**kwargs)
        if trainer.fast_dev_run:  # Lightning would still write last.ckpt, into the working directory
            for callback in trainer.checkpoint_callbacks:
                callback.save_last = False
        return trainer

    def after_fit(self) -> None:
        """Test the best checkpoint, so that one command ends in numbers and pictures."""
        if self.trainer.fast_dev_run or self.trainer.interrupted:
            return
        best = self.trainer.checkpoint_callback.best_model_path if self.trainer.checkpoint_callback else None
        # A checkpoint's weights are the averaged ones; this callback would bring back those it was still training.
        self.trainer.callbacks = [one for one in self.trainer.callbacks if not isinstance(one, WeightAveraging)]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*callbacks used to create the checkpoint.*")
            self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=best or None, weights_only=True)
        self.say_where()

    def after_test(self) -> None:
        """End with what to look at."""
        self.say_where()

    def after_predict(self) -> None:
        """End with what to look at."""
        self.say_where()

    def say_where(self) -> None:
        """Print the run's folder and its most telling picture as the last lines."""
        outputs = next(callback for callback in self.trainer.callbacks if isinstance(callback, Outputs))
        if self.trainer.is_global_zero and outputs.written:
            print(f"Results: {outputs.folder}")
            print(f"Look at: {outputs.written[0]}")


class Plan(CLI):
    """The command line parsed, and of its classes only the data built, which has read nothing yet."""

    def instantiate_classes(self) -> None:
        """Build the data."""
        self.datamodule = self._build("data", PoolingData)

    def build_task(self, spec: dict[str, Any]) -> PoolingTask:
        """The task that `fit` would train on data of this ``spec``."""
        self.config["model"]["init_args"]["spec"] = spec
        return self._build("model", PoolingTask)

    def _build(self, name: str, base: type) -> Any:
        parser = LightningArgumentParser()
        parser.add_lightning_class_args(base, name, subclass_mode=True)
        with _in_its_own_words():
            return parser.instantiate(Namespace({name: self.config[name]}))[name]


@contextmanager
def _in_its_own_words() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        found = _said_by_class(error)
        if found is None:
            raise
        raise BadInput(str(found)) from found


def _said_by_class(error: BaseException | None) -> Exception | None:
    """The first exception behind ``error`` that a class raised, not the parser."""
    while error is not None:
        raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
        if "jsonargparse" not in raised_in and isinstance(error, ValueError | TypeError | ImportError):
            return error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def plan(args: list[str]) -> Plan:
    """Parse what `fit` takes, without reading data: ``config`` is what is set, ``datamodule`` the data to ask."""
    return run_cli(args, run=False, cli_class=Plan)


def run_cli(args: list[str] | None = None, *, run: bool = True, cli_class: type[AnyCLI] = CLI) -> AnyCLI:
    """Parse ``args`` (None: the process's own) and run them; ``run=False`` only builds model, data and trainer."""
    subcommands = ("fit", "validate", "test", "predict")
    defaults = {"default_config_files": [str(DEFAULTS)]}
    return cli_class(
        PoolingTask,
        PoolingData,
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        seed_everything_default=0,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={"prog": "python -m tasks", **({name: defaults for name in subcommands} if run else defaults)},
        run=run,
        args=args,
    )
