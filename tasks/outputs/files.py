"""Files that are there whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Hand out a place beside ``path`` to write to, and put it in the place of ``path`` once it is on the disk.

    A process that is killed, a machine that goes down or a disk that is full leave what was there before.

    Args:
        path: The file; its folder is made.

    Yields:
        Where to write.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "numbers.txt"
        >>> with whole(target) as place:
        ...     _ = place.write_text("1 2 3")
        >>> target.read_text(), [file.name for file in target.parent.iterdir()]
        ('1 2 3', ['numbers.txt'])
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    place = path.with_name(f".{path.name}.part")
    try:
        yield place
        _to_disk(place)
        os.replace(place, path)
        if os.name == "posix":  # the new name, too; elsewhere folders cannot be opened
            _to_disk(path.parent)
    finally:
        place.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
