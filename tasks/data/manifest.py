"""Manifests: a table as CSV, TSV, JSON, JSON lines or Parquet; paths in it are relative to the table."""

import csv
import gzip
import importlib.util
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from tasks.data.problems import BadInput

MISSING = {"", "n/a", "N/A", "#N/A", "NA", "<NA>", "NaN", "nan", "NULL", "null", "None"}
"""Cells that say that nothing is known, as pandas reads them: a class may be called ``none``."""


class Row(dict[str, Any]):
    """One row of a manifest: its columns, where it stands, and which of its cells are ``blank``, not ``n/a``."""

    __slots__ = ("blank", "manifest", "number")  # a table may have a million rows

    def __init__(self, values: dict[str, Any], *, manifest: Path, number: int):
        super().__init__({key: _value(value) for key, value in values.items()})
        self.manifest = manifest
        self.number = number
        self.blank = frozenset(key for key, value in values.items() if isinstance(value, str) and not value.strip())

    @property
    def where(self) -> str:
        """The row as an error names it: ``clips.csv row 7 (a.wav)``. Row 1 is the first after the header."""
        path = self.get("path")
        return f"{self.manifest.name} row {self.number}" + (f" ({path})" if path else "")

    def resolve(self, column: str = "path") -> Path:
        """The file that a column names; relative paths start at the manifest's folder."""
        return (self.manifest.parent / str(self[column])).resolve()


def read_manifest(path: str | Path, *, required: Sequence[str] = ("path", "label")) -> list[Row]:
    """Read a manifest.

    CSV and TSV have a header line, and may be packed (``.csv.gz``). JSON is a list of objects, or an object of objects
    keyed by id (the key becomes the column ``id``). JSONL has one object per line. Parquet needs pyarrow.
    Empty cells, ``n/a``, ``NA``, ``NaN`` and the like (`MISSING`) become None.

    Args:
        path: The file; its ending (.csv, .tsv, .json, .jsonl, .parquet) says the format.
        required: Columns that must be there.

    Returns:
        The rows, in the file's order.

    Raises:
        BadInput: If the file is missing, empty, malformed, of an unknown format, or lacks a required column.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"manifest {path} does not exist; give the path of a .csv, .tsv, .json or .jsonl file")
    readers = {".csv": _read_csv, ".tsv": _read_csv, ".json": _read_json, ".jsonl": _read_jsonl}
    readers[".parquet"] = _read_parquet
    ending = _ending(path)
    if ending not in readers:
        raise BadInput(
            f"manifest {path.name}: expected .csv, .tsv, .json, .jsonl or .parquet, got '{path.suffix}'; "
            "rename or convert it"
        )
    try:
        records = list(readers[ending](path))
    except UnicodeDecodeError as error:
        raise BadInput(f"manifest {path.name}: expected UTF-8 text ({error}); save it as UTF-8") from error
    if not records:
        raise BadInput(f"manifest {path.name}: expected at least one row, got none")
    missing = [name for name in required if not any(name in record for record in records)]
    if missing:
        columns = ", ".join(dict.fromkeys(key for record in records for key in record))
        raise BadInput(
            f"manifest {path.name}: expected the column{'s' * (len(missing) > 1)} {', '.join(missing)}, got {columns}; "
            "rename the columns, or name yours in the config"
        )
    return [Row(record, manifest=path, number=number) for number, record in enumerate(records, start=1)]


def _value(value: Any) -> Any:
    if isinstance(value, float) and value != value:  # what Python's JSON reads for NaN
        return None
    if isinstance(value, str):
        value = value.strip()
        return None if value in MISSING else sys.intern(value)  # of a class's name, a million rows share one
    return value


def _ending(path: Path) -> str:
    """Of a packed table, that of the table."""
    packed = path.suffix.lower() == ".gz" and Path(path.stem).suffix.lower() in (".csv", ".tsv")
    return Path(path.stem).suffix.lower() if packed else path.suffix.lower()


def _read_csv(path: Path) -> Iterable[dict[str, Any]]:
    file: IO[str]
    packed = path.suffix.lower() == ".gz"
    with (
        gzip.open(path, "rt", newline="", encoding="utf-8-sig")
        if packed
        else path.open(newline="", encoding="utf-8-sig") as file
    ):
        reader = csv.DictReader(file, delimiter="\t" if _ending(path) == ".tsv" else ",")
        for number, record in enumerate(reader, start=1):
            if None in record:
                raise BadInput(
                    f"{path.name} row {number}: expected {len(reader.fieldnames or ())} cells as in the header, "
                    "got more; quote cells that hold a comma"
                )
            yield record


def _read_parquet(path: Path) -> Iterable[dict[str, Any]]:
    if importlib.util.find_spec("pyarrow") is None:
        raise BadInput(f"manifest {path.name}: Parquet needs pyarrow: run pip install pyarrow, or save it as .csv")
    from pyarrow import ArrowInvalid, parquet

    try:
        records: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    except ArrowInvalid as error:
        raise BadInput(f"manifest {path.name}: not valid Parquet: {error}") from error
    return records


def _read_json(path: Path) -> Iterable[dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise BadInput(f"manifest {path.name}: not valid JSON: {error}") from error
    if isinstance(content, dict):
        content = [{"id": key, **value} if isinstance(value, dict) else value for key, value in content.items()]
    if not isinstance(content, list) or not all(isinstance(record, dict) for record in content):
        raise BadInput(f"manifest {path.name}: expected a list of objects, or an object of objects keyed by id")
    return content


def _read_jsonl(path: Path) -> Iterable[dict[str, Any]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadInput(f"{path.name} line {number}: not valid JSON: {error}") from error
        if not isinstance(record, dict):
            raise BadInput(f"{path.name} line {number}: expected an object, got {type(record).__name__}")
        yield record
