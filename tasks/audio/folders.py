"""Recordings without a table: what a folder's files are called says what they are."""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import soundfile
from lightning.pytorch.utilities import rank_zero_info

from tasks.data.manifest import Row
from tasks.data.problems import BadInput

BY_FOLDER = "{label}/**"
"""A folder for each class, as in Speech Commands and GTZAN."""
_NAMED = 3  # files that a message names


def read_folder(folder: Path, pattern: str | None = None, *, required: Iterable[str] = ()) -> list[Row]:
    """List the sound files of a folder, and of those in it, as rows of a table.

    Args:
        folder: The folder.
        pattern: What names are made of, such as ``{label}_{speaker}_{take}.wav``: each word in braces is a column.
            With a slash it is the path from ``folder``, without one the name alone, wherever the file is; ``*`` is
            anything but a slash, ``**`` anything. None = a folder for each class, `BY_FOLDER`.
        required: Columns that must be there.

    Returns:
        A row a file, by path, with ``path``; other sound files are named in a message and left out.

    Raises:
        BadInput: If no file is named so, or a column is missing.
    """
    pattern = pattern or BY_FOLDER
    expression = _expression(pattern)
    lacking = [name for name in required if name not in expression.groupindex]
    if lacking:
        raise BadInput(
            f"pattern {pattern}: expected {{{'}, {'.join(lacking)}}} in it, as a column of the table; name it so there"
        )
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in sound_endings() and path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    matched = [expression.fullmatch(name if "/" in pattern else name.rpartition("/")[2]) for name in names]
    rows = [
        Row({"path": name, **found.groupdict()}, manifest=folder, number=number)
        for number, (name, found) in enumerate(zip(names, matched, strict=True), start=1)
        if found
    ]
    others = [name for name, found in zip(names, matched, strict=True) if not found]
    few = ", ".join(others[:_NAMED]) + (", ..." if len(others) > _NAMED else "")
    if not rows:
        raise BadInput(
            f"folder {folder}: expected sound files named as {pattern}, got {few or 'no sound file'}; say how they are "
            "named, --data.pattern '{label}_{speaker}_{take}.wav'"
        )
    if others:
        rank_zero_info(f"{folder}: {len(others)} sound files are not named as {pattern} and are left out ({few})")
    return rows


def _expression(pattern: str) -> re.Pattern[str]:
    """A pattern as a regular expression.

    Example:
        >>> _expression("{label}_{speaker}_*.wav").fullmatch("7_jackson_32.wav").groupdict()
        {'label': '7', 'speaker': 'jackson'}
    """
    known = {"*": "[^/]*", "**": ".*"}
    made = ""
    for piece in re.split(r"(\{\w+\}|\*\*|\*)", pattern):
        if piece.startswith("{"):
            made += f"(?P<{piece[1:-1]}>[^/]+?)"
        else:
            made += known.get(piece, re.escape(piece))
    try:
        return re.compile(made)
    except re.error as error:
        raise BadInput(f"pattern {pattern}: {error}; give each column its own name, as a word in braces") from None


@cache
def sound_endings() -> set[str]:
    """Endings of files that libsndfile reads, but those without a header."""
    return {f".{name.lower()}" for name in soundfile.available_formats() if name != "RAW"} | {".aif", ".oga", ".opus"}
