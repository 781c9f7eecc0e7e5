"""What config files say, read without the parser of the command line."""

from pathlib import Path
from typing import Any

import yaml

from tasks.data.problems import BadInput


def read_configs(paths: list[str]) -> dict[str, Any]:
    """The top level of config files, later ones over earlier ones, section by section.

    Raises:
        BadInput: If one is missing or no mapping.
    """
    merged: dict[str, Any] = {}
    for path in map(Path, paths):
        if not path.is_file():
            raise BadInput(f"config {path} does not exist; correct the path")
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except yaml.YAMLError as error:
            raise BadInput(f"config {path} is not valid YAML: {error}") from error
        if not isinstance(content, dict):
            raise BadInput(f"config {path}: expected sections such as run and model, got {type(content).__name__}")
        for section, values in content.items():
            earlier = merged.get(section)
            merged[section] = (
                {**earlier, **values} if isinstance(earlier, dict) and isinstance(values, dict) else values
            )
    return merged
