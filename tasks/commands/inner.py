"""A config of `fit` inside of that of a module which holds its task and data: of pretraining, of two towers."""

import argparse
import inspect
import json
import re
from collections.abc import Mapping
from typing import Any

from docstring_parser import parse  # comes with jsonargparse[signatures]

from tasks.commands.configs import read_configs
from tasks.data.base import PoolingData

Inner = Mapping[str, tuple[str, type]]
"""By section, model and data: where a config's own stand, and the class whose options stand outside."""

SECTIONS = ("run", "model", "data", "trainer", "seed_everything", "ckpt_path", "zero_shot")
"""What such a command takes of a config that `fit` takes, too: what belongs to tests and to stopping is not for it."""


def given(args: list[str], inner: Inner) -> list[str]:
    """What is given to `fit`, as the command takes it."""
    configs, flags = split_configs(args)
    merged: dict[str, Any] = {}
    for path in configs:
        merged = deep_merge(merged, nested(read_configs([path]), inner))
    whole = [f"--config={json.dumps(merged)}"] if merged else []
    return [*whole, *(inner_flag(flag, inner) for flag in flags)]


def options(command: str, about: str | None, inner: Inner) -> argparse.ArgumentParser:
    """What a command takes beside the flags of `fit`, as the classes themselves say it."""
    own = argparse.ArgumentParser(prog=f"python -m tasks {command}", description=about, usage="%(prog)s -c CONFIG ...",
                                  epilog="All flags of fit, too: what is none of these goes to the config's own task "
                                  "(--model) and data (--data).", allow_abbrev=False)  # fmt: skip
    own.add_argument("-c", "--config", metavar="CONFIG", help="a config of fit; several go over each other")
    for section, (_, kind) in inner.items():
        said = {one.arg_name: one.description or "" for one in parse(kind.__doc__ or "").params}
        for name in own_options(kind):
            default = inspect.signature(kind).parameters[name].default
            text = " ".join(f"{said[name]} [{default}]".split()).replace("%", "%%")
            own.add_argument(f"--{section}.{name}", metavar="VALUE", help=text)
    return own


def spec_of(data: PoolingData) -> dict[str, Any]:
    """What the task inside is told about the data."""
    return data.spec


def split_configs(args: list[str]) -> tuple[list[str], list[str]]:
    """The config files among arguments, and the rest.

    Example:
        >>> split_configs(["-c", "a.yaml", "--model.lr", "1", "--config=b.yaml"])
        (['a.yaml', 'b.yaml'], ['--model.lr', '1'])
    """
    configs, rest, waiting = [], [], False
    for one in args:
        if waiting:
            configs.append(one)
        elif one.startswith(("--config=", "-c=")):
            configs.append(one.partition("=")[2])
        elif one not in ("-c", "--config"):
            rest.append(one)
        waiting = not waiting and one in ("-c", "--config")
    return configs, rest


def nested(config: Mapping[str, Any], inner: Inner) -> dict[str, Any]:
    """A config of `fit` as one of the command: its model and data inside of those, but for options that are theirs.

    Example:
        >>> own = {"model": ("task", type("Own", (), {"__init__": lambda self, task, hidden: None}))}
        >>> config = {"model": {"class_path": "my.Task", "init_args": {"hidden": 8, "depth": 2}}, "early_stopping": {}}
        >>> nested(config, own)
        {'model': {'hidden': 8, 'task': {'class_path': 'my.Task', 'init_args': {'depth': 2}}}}
    """
    made = {name: config[name] for name in SECTIONS if name in config}
    for section, (name, kind) in inner.items():
        values = dict(made.get(section) or {})
        if values and name not in values:
            options = dict(values.pop("init_args", {}))
            outer = {option: options.pop(option) for option in own_options(kind) if option in options}
            outer |= {option: values.pop(option) for option in own_options(kind) if option in values}
            inside = {**values, **({"init_args": options} if options else {})}
            made[section] = {**outer, **({name: inside} if inside else {})}
    return made


def inner_flag(flag: str, inner: Inner) -> str:
    """A flag of `fit` as one of the command.

    Example:
        >>> own = {"model": ("task", type("Own", (), {"__init__": lambda self, task, lr: None}))}
        >>> inner_flag("--model.lr", own), inner_flag("--model.init_args.depth=3", own)
        ('--model.lr', '--model.task.init_args.depth=3')
    """
    found = re.match(r"--(model|data)(?=[.=]|$)(?:\.(\w+))?", flag)
    if found is None or found[2] in own_options(inner[found[1]][1]):
        return flag
    name = inner[found[1]][0]
    return flag if found[2] == name else flag.replace(f"--{found[1]}", f"--{found[1]}.{name}", 1)


def own_options(kind: type) -> list[str]:
    """The options of a class."""
    return [name for name in inspect.signature(kind).parameters if name not in ("task", "source")]


def deep_merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two trees of settings, the second over the first.

    Example:
        >>> deep_merge({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}})
        {'a': {'b': 1, 'c': 3}}
    """
    merged = dict(below)
    for name, value in above.items():
        earlier = merged.get(name)
        if isinstance(earlier, Mapping) and isinstance(value, Mapping):
            value = deep_merge(earlier, value)
        merged[name] = value
    return merged
