"""The file that a cell of a table means, wherever the table was written; and what to do where there is none."""

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote, urlsplit

from tasks.data.manifest import Row
from tasks.data.problems import BadInput

COLUMNS = (
    "path", "file", "wav", "filename", "file_name", "audio", "audio_path", "audio_filepath", "filepath", "fname",
)  # fmt: skip
"""What tables of recordings call the column of their paths; the first one that a table has is meant."""

_URL = re.compile(r"^[A-Za-z][\w+.-]+://")
_DRIVE = re.compile(r"^[A-Za-z]:[\\/]")
_PLACEHOLDER = re.compile(r"^\{\w+\}[\\/]")  # {data_root}/ in SpeechBrain's tables
_MOST = 10_000  # files of a folder that are looked through for a name like a missing one


def path_column(rows: Sequence[Row], named: str | None, source: str) -> str:
    """The column that holds the paths.

    Args:
        rows: Of the table.
        named: What the user calls it; None = whichever of `COLUMNS` there is.
        source: What the table is called, for the error.

    Raises:
        BadInput: If there is none.
    """
    there = list(dict.fromkeys(key for row in rows for key in row))
    for column in COLUMNS if named is None else (named,):
        if column in there:
            return column
    what = named or f"path (or {', '.join(COLUMNS[1:])})"
    raise BadInput(
        f"manifest {source}: expected the column {what}, got {', '.join(there)}; name yours, --data.path_column NAME"
    )


def locate(text: str, folder: Path, strip: str | None = None) -> Path:
    r"""Find the file that a cell names.

    Backslashes are taken for slashes where no file has them in its name, ``file://`` and a placeholder such as
    ``{data_root}/`` are left out, ``~`` is the home folder.

    Args:
        text: The cell.
        folder: Where paths start that are not absolute.
        strip: Beginning that is left out, such as ``C:\corpus``.

    Raises:
        ValueError: If there is no such file, saying what to do.
    """
    if strip and text.startswith(strip):
        text = text[len(strip) :].lstrip("\\/")
    if text.lower().startswith("file://"):
        text = unquote(urlsplit(text).path)
    if _URL.match(text):
        raise ValueError("is a URL, and nothing is downloaded; download the file and give its path")
    text = _PLACEHOLDER.sub("", text)
    try:
        for one in dict.fromkeys((text, text.replace("\\", "/"))):
            path = (folder / Path(one).expanduser()).resolve()
            if path.is_file():
                return path
    except (OSError, RuntimeError) as error:  # a name too long for a file; nobody's home
        raise ValueError(f"cannot be a path ({error}); correct it") from None
    if path.is_dir():
        raise ValueError("is a folder; name a file in it")
    raise ValueError(_absent(text, path, folder))


def _absent(text: str, path: Path, folder: Path) -> str:
    """What to do about a path that leads nowhere."""
    drive = _DRIVE.match(text)
    if drive or text.startswith(("/", "\\")):
        parts = (PureWindowsPath(text) if drive or "\\" in text else PurePosixPath(text)).parts
        for first in range(1, len(parts)):
            if folder.joinpath(*parts[first:]).is_file():
                rest = "/".join(parts[first:])
                start = text[: -len(rest)].rstrip("\\/")
                return (
                    f"does not exist here, but {rest} is in {folder}: leave the beginning out with "
                    f"--data.strip '{start}'"
                )
        what = "is a path of a Windows machine" if drive else "file does not exist"
        return f"{what}; write paths relative to {folder}, or say where the files are with --data.root and --data.strip"
    alike = _beside(path.parent).get(path.stem.lower()) or _beside(path.parent).get(path.name.lower())
    if alike:
        return f"file does not exist, but {alike} does; correct the path"
    return f"file does not exist in {folder}; correct the path, leave it out, or give the folder with --data.root"


@lru_cache(maxsize=64)
def _beside(folder: Path) -> dict[str, str]:
    """Names in a folder, by themselves without ending, in small letters."""
    if not folder.is_dir():
        return {}
    names = [path.name for _, path in zip(range(_MOST), folder.iterdir(), strict=False)]
    return {Path(name).stem.lower(): name for name in names}
