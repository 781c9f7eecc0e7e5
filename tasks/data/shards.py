"""Samples in tar files, as WebDataset writes them, by an index: whoever knows where a sample begins needs no stream.

A shard holds the files of one sample one after another, ``KEY.flac``, ``KEY.json``. WebDataset reads shards from their
beginning to their end, which asks for no index, but then neither a split nor its check, nor an order that a training
could go on in, is known before all has been read. Here headers are read once; then a sample is a row like any other.
"""

import glob
import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tasks.data.manifest import Row
from tasks.data.problems import BadInput, listed
from tasks.data.threads import side_by_side

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_LARGEST = 2**20  # bytes of a file that describes a sample


class Member(NamedTuple):
    """Where a file is in a shard."""

    shard: Path
    start: int
    size: int

    def open(self) -> io.BytesIO:
        """What it holds.

        Raises:
            OSError: If the shard cannot be read.
        """
        with self.shard.open("rb") as file:
            file.seek(self.start)
            return io.BytesIO(file.read(self.size))


def find_shards(pattern: str) -> list[Path]:
    """The shards that are meant, in order: one .tar, a folder of them, ``*`` or WebDataset's ``{000..099}`` in a name.

    Returns:
        The files; an empty list where something else is meant, such as a table.

    Example:
        >>> find_shards("clips.csv")
        []
    """
    if Path(pattern).is_dir():
        return sorted(Path(pattern).glob("*.tar"))
    if not pattern.lower().endswith(".tar"):
        return []
    if Path(pattern).is_file():
        return [Path(pattern)]
    found = _RANGE.search(pattern)
    if found is None:
        return sorted(map(Path, glob.glob(pattern)))
    first, last = found.groups()
    names = (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
    return [path for name in names for path in find_shards(pattern[: found.start()] + name + pattern[found.end() :])]


def read_shards(shards: Iterable[Path], endings: Iterable[str]) -> tuple[list[Row], dict[str, Member]]:
    """The index of some shards.

    A sample is what stands together under one name up to its first dot. Its ``.json`` is an object whose entries are
    columns, its ``.cls`` the column label, its ``.txt`` the column text.

    Args:
        shards: The tar files, not packed.
        endings: Of the files that are a sample, in small letters, such as ``.flac``.

    Returns:
        A row for each sample, and where its file is: ``path``, which is SHARD/NAME.

    Raises:
        BadInput: Naming every shard that cannot be read, and every sample without such a file, or with several.
    """
    shards, endings = list(shards), set(endings)
    rows: list[Row] = []
    members: dict[str, Member] = {}
    wrong: list[str] = []
    read = side_by_side(lambda shard: _index(shard, endings), shards, "shards")
    for shard, found in zip(shards, read, strict=True):
        if isinstance(found, str):
            wrong.append(f"{shard.name}: {found}")
            continue
        for key, files, columns in found:
            if len(files) != 1:
                names = ", ".join(files) or "none"
                what = f"expected one file with an ending of {', '.join(sorted(endings))}, got {names}"
                wrong.append(f"{shard.name}/{key}: {what}")
                continue
            ((name, member),) = files.items()
            path = f"{shard.name}/{name}"
            if path in members:
                wrong.append(f"{path}: is there twice; give every sample a name of its own")
                continue
            members[path] = member
            rows.append(Row({**columns, "path": path}, manifest=shard, number=len(rows) + 1))
    if wrong:
        raise BadInput(f"shards: {len(wrong):,} problem{'s' * (len(wrong) > 1)} found\n{listed(wrong, most=20)}")
    if not rows:
        raise BadInput(f"shards: expected samples in {', '.join(one.name for one in shards[:3])}, got none")
    return rows, members


def _index(shard: Path, endings: set[str]) -> list[tuple[str, dict[str, Member], dict[str, Any]]] | str:
    """The samples of a shard: name, files, columns; or why it cannot be read."""
    samples: list[tuple[str, dict[str, Member], dict[str, Any]]] = []
    try:
        with tarfile.open(shard, "r:") as archive, shard.open("rb") as content:
            size = shard.stat().st_size
            for one in _files(archive):
                key, ending = _parted(one.name)
                if not samples or samples[-1][0] != key:
                    samples.append((key, {}, {}))
                if one.offset_data + one.size > size:
                    return "is truncated; copy it again"
                if f".{ending.rpartition('.')[2]}" in endings:
                    samples[-1][1][one.name] = Member(shard, one.offset_data, one.size)
                elif ending in ("json", "cls", "txt") and one.size <= _LARGEST:
                    content.seek(one.offset_data)
                    samples[-1][2].update(_described(one.name, ending, content.read(one.size)))
    except BadInput as error:
        return str(error)
    except (tarfile.TarError, OSError, EOFError) as error:
        return f"cannot be read as tar ({error}); a packed one has to be unpacked, gunzip it"
    return samples


def _files(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for one in archive:
        if one.isreg():
            yield one
        archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all


def _parted(name: str) -> tuple[str, str]:
    """A member's sample and its ending, at the first dot of the name without its folders."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return folder + slash + stem, ending.lower()


def _described(name: str, ending: str, content: bytes) -> dict[str, Any]:
    try:
        text = content.decode()
        if ending != "json":
            return {"label" if ending == "cls" else "text": text.strip()}
        found = json.loads(text)
    except ValueError as error:
        raise BadInput(f"{name} cannot be read ({error}); write it again") from error
    if not isinstance(found, dict):
        raise BadInput(f"{name}: expected an object, got {type(found).__name__}; its entries are a row's columns")
    return found
