"""A site's data and its task, as a config of `python -m tasks fit` describes them."""

import shlex
from functools import cache
from pathlib import Path

from flwr.app import Context

import tasks
from tasks.commands.cli import Plan, plan
from tasks.data.problems import BadInput

ROOT = Path(tasks.__file__).parents[1]


@cache
def planned(config: str, flags: str) -> Plan:
    """What is to be built; data that a process has read once stay read."""
    try:
        return plan(["-c", str(ROOT / config), *shlex.split(flags)])
    except SystemExit as end:  # it would take a simulated site's process with it
        raise BadInput(f"expected options of {config}, got {flags}; what is wrong stands in the log above") from end


def number(context: Context) -> int:
    """The site's number, from 0."""
    return int(context.node_config["partition-id"])


def site(context: Context) -> Plan:
    """The plan of the site that asks: what its node says of its data, or the run's list of all sites."""
    run, node = context.run_config, context.node_config
    own = node["data"] if "data" in node else str(run["sites"]).split(";")[number(context)]
    return planned(str(run["config"]), f"{run['flags']} {own}")
