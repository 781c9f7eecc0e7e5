"""A field's libraries, or which command installs them; and classes by their paths."""

import gc
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


def require(*modules: str, extra: str, what: str | None = None) -> tuple[ModuleType, ...]:
    """Import a field's libraries, or say in one line which command installs them.

    Args:
        modules: Names to import.
        extra: The extra of `modalpool` that brings them.
        what: What needs them; ``tasks.EXTRA`` unless given.

    Returns:
        The imported modules.

    Raises:
        ImportError: If one is missing, or its native library does not load with the installed torch.
    """
    try:
        with uncollected():
            return tuple(importlib.import_module(name) for name in modules)
    except (ImportError, OSError) as error:
        cause = str(error).strip().splitlines()[0]
        raise ImportError(
            f"{what or f'tasks.{extra}'} needs {', '.join(modules)} ({cause}): "
            f"run pip install -c constraints.txt -e '.[{extra},train]'"
        ) from None


@contextmanager
def uncollected() -> Iterator[None]:
    """Import large libraries while no garbage is looked for: what they make stays, and is never looked at again."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
        gc.freeze()


def find_class(path: str) -> Callable[..., Any]:
    """What stands at a dotted path.

    Raises:
        ValueError: If nothing does that can be called.

    Example:
        >>> find_class("collections.Counter")("aab").most_common(1)
        [('a', 2)]
    """
    module, _, name = path.rpartition(".")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            "expected the path of a class, such as mymodule.Mine for a class in mymodule.py where the command runs, "
            f"got what cannot be imported ({error}); correct it"
        ) from error
    if not callable(found):
        raise ValueError(f"expected a class, got {type(found).__name__}; name another")
    return found
