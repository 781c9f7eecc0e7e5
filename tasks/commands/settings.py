"""What runs that belong together were started with: going on with them needs the same settings."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from tasks.commands.tables import read_json
from tasks.data.problems import BadInput


def same_settings(command: str, folder: Path, config: Namespace) -> None:
    """Write all that may change a result to ``settings.json``, or hold it against what is there from before.

    Args:
        command: Stands before the error's message.
        folder: The folder of all runs; it is made.
        config: What is set (`tasks.commands.cli.plan`). Names of runs, pictures and floors may
            change.

    Raises:
        BadInput: If the runs in the folder were started with other settings.
    """
    settings, path = _settings(config.as_dict()), folder / "settings.json"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings, indent=2) + "\n")
        return
    before = read_json(path)
    other = [name for name in {**before, **settings} if before.get(name) != settings.get(name)]
    if other:
        change = "; ".join(f"{name} {before.get(name)}, now {settings.get(name)}" for name in sorted(other))
        raise BadInput(
            f"{command}: expected the settings that {folder} was started with, got others ({change}); "
            "give the same, or leave --resume out to start anew"
        )


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """Everything that is set and may change a result, by its full name."""
    other = ("config", "run", "outputs", "floors", "__default_config__")
    kept = {name: value for name, value in config.items() if name not in other}

    def flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict) and value:
            for key, part in value.items():
                yield from flat(part, f"{name}.{key}" if name else str(key))
        else:
            yield name, value

    again: dict[str, Any] = json.loads(json.dumps(dict(flat(kept, "")), default=str))
    return again  # as it will be read
