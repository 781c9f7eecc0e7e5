"""A table of vectors: what `embed` writes, and what `search` and `curate` read."""

import difflib
import importlib.util
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks.data.problems import BadInput

ENDINGS = (".parquet", ".npz")


class VectorTable(NamedTuple):
    """Vectors, whose they are, and where they come from."""

    ids: list[str]
    vectors: np.ndarray
    """(N, D), float32."""
    columns: Mapping[str, list[Any]] = {}
    """What else is known of each: part, target, ..."""
    about: Mapping[str, Any] = {}
    """Of the table: ``shape`` of a vector before it was made flat, ``checkpoint`` that made it and its ``digest``, and
    ``match`` if that has two towers."""

    def row(self, name: str) -> int:
        """The row of an id.

        Raises:
            BadInput: If there is none, with the ids that are spelled most like it.
        """
        try:
            return self.ids.index(name)
        except ValueError:
            near = difflib.get_close_matches(name, self.ids, cutoff=0.0)
            raise BadInput(
                f"{name}: expected an id of the table's {len(self.ids)}, or a file that can be read, got neither; "
                f"ids like it are {', '.join(near)}"
            ) from None


def has_arrow() -> bool:
    """Whether Parquet can be read and written."""
    return importlib.util.find_spec("pyarrow") is not None


def usual_format() -> str:
    """What a table is written as unless asked otherwise: parquet where pyarrow is installed, else npz."""
    return "parquet" if has_arrow() else "npz"


def write_table(path: Path, table: VectorTable) -> None:
    """Write a table as Parquet or as NumPy's arrays, by the file's ending.

    Parquet has the columns id, then the others, then vector, a list of D float32; what the table is about stands in its
    metadata, a JSON text each. ``.npz`` has arrays of the same names.
    """
    columns = {"id": table.ids, **table.columns}
    if path.suffix == ".npz":
        arrays: dict[str, Any] = {name: np.array(column) for name, column in columns.items()}
        np.savez_compressed(path, **arrays, vector=table.vectors, about=np.array(json.dumps(table.about)))
        return
    import pyarrow
    from pyarrow import parquet

    flat = pyarrow.array(np.ascontiguousarray(table.vectors).reshape(-1))
    column = pyarrow.FixedSizeListArray.from_arrays(flat, table.vectors.shape[1])
    metadata = {name: json.dumps(value) for name, value in table.about.items()}
    parquet.write_table(pyarrow.table({**columns, "vector": column}).replace_schema_metadata(metadata), path)


def read_table(path: Path) -> VectorTable:
    """Read a table that `write_table` wrote, and check its vectors.

    Raises:
        BadInput: If there is no such table, or it cannot be searched: without vectors, with vectors not of numbers or
            all zero, or with two of one id.
    """
    if not path.is_file():
        raise BadInput(f"{path}: expected a table of vectors, got no such file; write one by python -m tasks embed")
    if path.suffix not in ENDINGS:
        raise BadInput(f"{path}: expected a table that ends in {' or '.join(ENDINGS)}, got '{path.suffix}'")
    if path.suffix == ".parquet" and not has_arrow():
        raise BadInput(f"{path}: Parquet needs pyarrow: run pip install pyarrow, or embed with --format npz")
    try:
        table = _from_parquet(path) if path.suffix == ".parquet" else _from_npz(path)
    except (KeyError, OSError, ValueError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{path}: expected columns id and vector, as embed writes, got another file ({text})") from error
    check(table, str(path))
    return table


def _from_parquet(path: Path) -> VectorTable:
    from pyarrow import parquet

    read = parquet.read_table(path)
    rows = read.column("vector").combine_chunks()
    if len(read):
        values = rows.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
        vectors = values.reshape(len(read), -1)
    else:
        vectors = np.empty((0, 0), np.float32)
    metadata = {key.decode(): value.decode() for key, value in (read.schema.metadata or {}).items()}
    own = {"shape", "checkpoint", "digest", "task", "match"}
    about = {name: json.loads(value) for name, value in metadata.items() if name in own}
    columns = {name: read.column(name).to_pylist() for name in read.column_names if name not in ("id", "vector")}
    return VectorTable([str(one) for one in read.column("id").to_pylist()], vectors, columns, about)


def _from_npz(path: Path) -> VectorTable:
    with np.load(path) as read:
        columns = {name: read[name].tolist() for name in read.files if name not in ("id", "vector", "about", "shape")}
        about = json.loads(str(read["about"])) if "about" in read.files else {}
        return VectorTable([str(one) for one in read["id"]], read["vector"].astype(np.float32), columns, about)


def check(table: VectorTable, name: str) -> None:
    """Ask for vectors that can be searched.

    Raises:
        BadInput: Naming the rows that cannot.
    """
    if not len(table.vectors):
        raise BadInput(f"{name}: expected vectors, got an empty table; embed samples first")
    finite = np.isfinite(table.vectors).all(1)
    for wrong, what in ((~finite, "is not a number"), (finite & ~table.vectors.any(1), "is zero and points nowhere")):
        if wrong.any():
            rows = [table.ids[number] for number in np.flatnonzero(wrong)]
            raise BadInput(
                f"{name}: expected vectors of finite numbers, got {len(rows)} that {what}: "
                f"{', '.join(rows[:5])}{', …' if len(rows) > 5 else ''}; leave these samples out"
            )
    twice = [one for one, count in Counter(table.ids).items() if count > 1]
    if twice:
        raise BadInput(
            f"{name}: expected every id once, got {len(twice)} more often: {', '.join(twice[:5])}"
            f"{', …' if len(twice) > 5 else ''}; embed the parts of one data set only"
        )
