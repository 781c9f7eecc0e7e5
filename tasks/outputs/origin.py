"""Where a result comes from: the command, when, and the versions that made it."""

import datetime
import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("modalpool", "torch", "lightning", "torchmetrics", "torch-geometric", "torchaudio", "monai")


def origin() -> dict[str, Any]:
    """The command line as it can be typed again, the time, and the versions of Python and of what is installed."""
    here = Path(sys.argv[0])
    typed = sys.argv[1:] if here.parts[-2:] == ("tasks", "__main__.py") else sys.argv
    command = shlex.join(typed)
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "command": f"python -m tasks {command}" if typed is not sys.argv else command,
        "time": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": versions,
    }
