"""A field's libraries, or which command installs them."""

import importlib
from types import ModuleType


def require(*modules: str, extra: str) -> tuple[ModuleType, ...]:
    """Import a field's libraries, or say in one line which command installs them.

    Args:
        modules: Names to import.
        extra: The extra of `modalpool` that brings them.

    Returns:
        The imported modules.

    Raises:
        ImportError: If one is missing, or its native library does not load with the installed torch.
    """
    try:
        return tuple(importlib.import_module(name) for name in modules)
    except (ImportError, OSError) as error:
        cause = str(error).strip().splitlines()[0]
        raise ImportError(
            f"tasks.{extra} needs {', '.join(modules)} ({cause}): "
            f"run pip install -c constraints.txt -e '.[{extra},train]'"
        ) from None
