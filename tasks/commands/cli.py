"""LightningCLI with a run folder, and a trained model's own settings where one is loaded."""

import argparse
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse import Namespace
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger

from tasks.commands.checkpoints import checkpoint, fits, load_task, loading, pretrained, read
from tasks.commands.compiling import compile_network
from tasks.commands.configs import read_configs
from tasks.commands.floor_tables import floors_of_run
from tasks.commands.seen import ALLOW, check, expect, heard, unseen
from tasks.data.base import PoolingData
from tasks.data.problems import BadInput
from tasks.data.trained import Trained
from tasks.outputs.callback import Outputs
from tasks.outputs.checkpoints import Best, Last, Resumable, WholeFiles, continue_history, history
from tasks.outputs.report import write_report
from tasks.outputs.stopping import Patience, how_it_ended, sentence
from tasks.task.base import PoolingTask
from tasks.task.pretrained import take_weights

AnyCLI = TypeVar("AnyCLI", bound=LightningCLI)
DEFAULTS = Path(__file__).resolve().parents[2] / "configs" / "defaults.yaml"


class CLI(LightningCLI):
    """One command line for every modality: the config names the task and the data."""

    trainer: Any  # Lightning sets most of its attributes from elsewhere

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run's name, the checkpoint, early stopping and outputs, and tell the task about the data."""
        self.add_run(parser)
        parser.add_argument("--allow_trained", action="store_true", help=f"Test, predict: {ALLOW}.")
        parser.add_argument("--floors", type=bool, default=True, help="Measure simple baselines, too, after fit.")
        parser.add_argument("--compile", type=bool, default=False, help="Fit: let torch.compile the encoder.")
        parser.add_argument("--by", type=str | None, default=None, help="Columns whose values split the test metrics.")
        parser.add_argument("--permutations", type=int, default=0, help="Shuffles of the labels behind p values.")
        parser.add_lightning_class_args(Best, "checkpoint")
        parser.add_lightning_class_args(Patience, "early_stopping")
        parser.add_lightning_class_args(Outputs, "outputs")
        for name in ("by", "permutations"):
            parser.link_arguments(name, f"outputs.{name}")
        parser.link_arguments("data", "model.init_args.spec", compute_fn=self.spec_for, apply_on="instantiate")

    def add_run(self, parser: LightningArgumentParser) -> None:
        """Add what says where results go."""
        parser.add_argument("--run.name", type=str, default="run", help="Results go to ROOT/NAME/version_N.")
        parser.add_argument("--run.root", type=str, default="runs", help="Folder of all runs.")
        parser.add_argument("--run.version", type=str | None, default=None, help="A folder name instead of version_N.")
        parser.add_argument(
            "--run.save_every", type=int | None, default=None, help="Write last.ckpt after so many steps, too."
        )
        parser.add_argument(
            "--run.tensorboard", type=bool, default=False, help="Write TensorBoard's events there, too."
        )
        parser.add_argument(
            "--run.wandb", type=str | None, default=None, help="Project of Weights & Biases to write to there, too."
        )

    def spec_for(self, data: PoolingData) -> dict[str, Any]:
        """The data's spec; for a trained model the one it was trained with, which the data are told."""
        if self.subcommand in (None, "fit"):
            return data.spec
        if self.subcommand != "validate":
            expect(data, self.stored)
        spec: dict[str, Any] = self.stored["hyper_parameters"]["spec"]
        return spec

    def _parse_ckpt_path(self) -> None:
        """Find ``best`` and ``last`` of the newest run; when fitting, let the command line beat the checkpoint.

        Whatever is not `fit` looks at a trained model: at the best of the newest run unless another is given.
        """
        subcommand = self.config.get("subcommand")  # self.subcommand is not there yet
        if subcommand is None:
            return
        config = self.config[subcommand]
        given = config.get("ckpt_path") or (None if subcommand == "fit" else "best")
        if given is None:
            return
        path = checkpoint(given, config["run"])
        config["ckpt_path"] = str(path)
        self.stored = read(path)
        fits(path, self.stored, config["model"]["class_path"])
        if pretrained(self.stored):
            raise BadInput(
                f"{path}: expected a checkpoint that fit wrote, got one of pretrain, whose head has learned nothing; "
                f"begin a training with it: fit --model.pretrained {path}"
            )
        if subcommand != "fit":
            self._say_ignored(path, config["model"]["init_args"])
            super()._parse_ckpt_path()

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Remember what was given."""
        self.given = sys.argv[1:] if args is None else args
        super().parse_arguments(parser, args)

    def _say_ignored(self, path: Path, options: Namespace) -> None:
        """Name the options of the model that were given and are not those that it was trained with."""
        own = self.stored["hyper_parameters"]
        configs = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        configs.add_argument("-c", "--config", action="append", default=[])
        listed = read_configs(configs.parse_known_args(self.given)[0].config).get("model") or {}
        flags = [re.match(r"--model\.(?:init_args\.)?(\w+)", one) for one in self.given]
        for name in dict.fromkeys([*(listed.get("init_args") or {}), *(one[1] for one in flags if one)]):
            if name in own and own[name] != options.get(name):
                print(f"--model.{name} {options.get(name)} is ignored: {path} has {own[name]}")

    def instantiate_classes(self) -> None:
        """Say what a class found wrong with its options or inputs, without the parser's dump of all the rest."""
        with _in_its_own_words():
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Write whole checkpoints, and metrics.csv into the run folder beside other loggers that the config names."""
        others = self._get(self.config_init, "trainer")["logger"]
        if others is not False:
            run = self._get(self.config_init, "run")
            own = CSVLogger(run["root"], name=run["name"], version=run["version"])
            others = others if isinstance(others, list) else [others] if others not in (None, True) else []
            if run["tensorboard"]:
                others = [TensorBoardLogger(run["root"], name=run["name"], version=own.version), *others]
            if run["wandb"]:
                os.environ.setdefault("WANDB_MODE", "offline")
                label = f"{run['name']}/{Path(own.log_dir).name}"
                others = [WandbLogger(label, save_dir=run["root"], project=run["wandb"]), *others]
            kwargs["logger"] = [own, *others]
        trainer: Any = super().instantiate_trainer(**kwargs)
        trainer.callbacks += [Resumable()]
        self.keep(trainer)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeFiles()
        built: Trainer = trainer
        return built

    def keep(self, trainer: Any) -> None:
        """Choose the checkpoints that are written."""
        best = next(callback for callback in trainer.callbacks if isinstance(callback, Best))
        if best.save_last:  # Lightning's own is written with the best only
            best.save_last = None
            trainer.callbacks += [self.last()]

    def last(self) -> Last:
        """What writes the checkpoint that a training goes on from."""
        return Last(self._get(self.config_init, "run")["save_every"])

    def before_fit(self) -> None:
        """Go on with the curves of the training that is resumed, if its samples are not tested now.

        A new one may begin with the weights of another.
        """
        path, begun = self._get(self.config, "ckpt_path"), getattr(self.model, "pretrained", None)
        if path:
            self._check("fit")
            continue_history(self.trainer.loggers, history(Path(path), self.stored))
        elif begun:
            self._begin_with(checkpoint(begun, self._get(self.config, "run")))
        if self._get(self.config, "compile"):
            compile_network(self.model, self.trainer.strategy.root_device)

    def _begin_with(self, path: Path) -> None:
        """Take the network of another training, and say what that has heard of the samples that test this one."""
        told = heard(path, self.datamodule)
        if told.labels:
            self._check("fit", path)
            resumable = next(one for one in self.trainer.callbacks if isinstance(one, Resumable))
            resumable.earlier = Trained.read(read(path))
        take_weights(self.model, load_task(path), str(path))
        if self.trainer.is_global_zero:
            print(f"begins with {path}, {told}")

    def after_fit(self) -> None:
        """Test the best checkpoint, so that one command ends in numbers and pictures."""
        if self.trainer.fast_dev_run or self.trainer.interrupted:
            return
        ended = how_it_ended(self.trainer)
        best = self.trainer.checkpoint_callback.best_model_path if self.trainer.checkpoint_callback else None
        # A checkpoint's weights are the averaged ones; this callback would bring back those it was still training.
        self.trainer.callbacks = [one for one in self.trainer.callbacks if not isinstance(one, WeightAveraging)]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*callbacks used to create the checkpoint.*")
            self.trainer.test(self.model, datamodule=self.datamodule, ckpt_path=best or None, weights_only=True)
        if ended and self.trainer.is_global_zero:
            print(sentence(ended))
        if self._get(self.config, "floors") and self.trainer.is_global_zero and self.outputs.written:
            print("\n".join(floors_of_run(self.model, self.datamodule, self.outputs.folder)))
        self.say_where()

    def before_test(self) -> None:
        """Refuse samples that the checkpoint was trained on."""
        self._check("test")

    def before_predict(self) -> None:
        """Refuse them, too, and take every other row that the data have."""
        self._check("predict")
        allow = self._get(self.config, "allow_trained")
        self.datamodule.predicted = unseen(self.datamodule, allow=allow, say=self.trainer.is_global_zero)

    def _check(self, command: str, path: Path | None = None) -> None:
        allow = self._get(self.config, "allow_trained")
        check(command, path or Path(self._get(self.config, "ckpt_path")), self.datamodule, allow=allow)

    def after_test(self) -> None:
        """End with what to look at."""
        self.say_where()

    def after_predict(self) -> None:
        """End with what to look at."""
        self.say_where()

    def say_where(self) -> None:
        """Write the report of a test, and print the run's folder and what to look at as the last lines."""
        outputs = self.outputs
        if self.trainer.is_global_zero and outputs.written:
            if self.trainer.state.fn == "test":
                outputs.written.insert(0, write_report(outputs.folder))
            print(f"Results: {outputs.folder}")
            print(f"Look at: {outputs.written[0]}")

    @property
    def outputs(self) -> Outputs:
        """What writes the run's results."""
        return next(callback for callback in self.trainer.callbacks if isinstance(callback, Outputs))


class Plan(CLI):
    """The command line parsed, and of its classes only the data built, which has read nothing yet."""

    def instantiate_classes(self) -> None:
        """Build the data."""
        self.datamodule = self._build("data", PoolingData)

    def build_task(self, spec: dict[str, Any]) -> PoolingTask:
        """The task that `fit` would train on data of this ``spec``."""
        self.config["model"]["init_args"]["spec"] = spec
        task: PoolingTask = self._build("model", PoolingTask)
        return task

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


@contextmanager
def _error_first() -> Iterator[None]:
    """Say what is wrong with the options, and where to read of them; not all there are, before it."""
    try:
        yield
    except argparse.ArgumentError as error:
        sys.stderr.write(f"error: {_cause(str(error))}\ntip: --help after the command lists its options\n")
        sys.exit(2)


def _cause(message: str) -> str:
    """What a class says of its options, out of what the parser says of all the types that might be there instead."""
    found = re.search(
        r"Problem with given class_path '(\S+)':\n((?:.*\n)+?)\s*- Expected a <class 'NoneType'>", message
    )
    return message if found is None else f"{found[1]}: {' '.join(found[2].split())}"


def plan(args: list[str]) -> Plan:
    """Parse what `fit` takes, without reading data: ``config`` is what is set, ``datamodule`` the data to ask."""
    return run_cli(args, run=False, cli_class=Plan)


def _skipped(names: Sequence[str]) -> dict[str, set[str]]:
    """Subcommands by name, and which arguments of the trainer's methods are none of theirs."""
    return {name: skipped for name, skipped in LightningCLI.subcommands().items() if name in names}


def run_cli(
    args: list[str] | None = None,
    *,
    run: bool = True,
    cli_class: type[AnyCLI] = CLI,  # type: ignore[assignment]
    subcommands: Sequence[str] = ("fit", "validate", "test", "predict"),
    classes: tuple[type, type] = (PoolingTask, PoolingData),
    subclasses: bool = True,
    defaults: Path = DEFAULTS,
) -> AnyCLI:
    """Parse arguments and run them.

    Args:
        args: None = the process's own.
        run: False only builds model, data and trainer.
        cli_class: The command line.
        subcommands: What it can run.
        classes: Of the model and the data.
        subclasses: Whether the config names subclasses of them.
        defaults: A config that all others go over.
    """
    common = {"default_config_files": [str(defaults)], "exit_on_error": False}
    first = (sys.argv[1:] if args is None else args)[:1]
    named = [name for name in subcommands if first == [name]] or subcommands  # the others' options need no parser
    own: dict[str, Any] = {name: common for name in named} if run else common
    narrowed: type[AnyCLI] = type(
        cli_class.__name__, (cli_class,), {"subcommands": staticmethod(lambda: _skipped(named))}
    )
    with _error_first(), loading():
        return narrowed(
            *classes,
            subclass_mode_model=subclasses,
            subclass_mode_data=subclasses,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={"prog": "python -m tasks", "exit_on_error": False, **own},
            run=run,
            args=args,
        )
