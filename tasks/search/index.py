"""An index: vectors made comparable, saved as a folder, mapped from the disk, added to, and asked for neighbours."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tasks.data.problems import BadInput
from tasks.search import approximate, exact
from tasks.search.table import VectorTable, check
from tasks.search.whitening import Whitening, fit_whitening, unit

PARTS = ("about.json", "vectors.npy")
FAISS = "index.faiss"


class Index:
    """Neighbours by cosine similarity, after whitening unless there is none.

    Up to `approximate.EXACT` vectors all are compared; of more, faiss asks a graph or compressed cells.

    Args:
        ids: Whose each vector is.
        vectors: (N, K), of length one, in memory or mapped.
        whitening: What made them; None = only their lengths were changed.
        kind: exact, HNSW, IVF or IVF-SQ8; by the number of vectors unless given.
        columns: What else is known of each.
        about: What `VectorTable.about` says.
        file: Where faiss' index is, which is built unless given.

    Example:
        >>> table = VectorTable(["a", "b", "c"], np.array([[1, 0], [0, 1], [1, 0.1]], "f4"))
        >>> rows, scores = Index.of(table, dims=0).search(table.vectors[:1], k=2)
        >>> rows.tolist(), scores.round(3).tolist()
        ([[0, 2]], [[1.0, 0.9950000047683716]])
    """

    def __init__(
        self,
        ids: list[str],
        vectors: np.ndarray,
        whitening: Whitening | None,
        *,
        kind: str | None = None,
        columns: Mapping[str, list[Any]] | None = None,
        about: Mapping[str, Any] | None = None,
        file: Path | None = None,
    ):
        self.ids, self.vectors, self.whitening = ids, vectors, whitening
        self.kind = kind or approximate.kind_for(len(vectors))
        self.columns, self.about = dict(columns or {}), dict(about or {})
        self._file = file
        self._built: Any = None
        if self.kind != "exact":
            self._built = approximate.build(vectors, self.kind) if file is None else approximate.read(file, mapped=True)

    @classmethod
    def of(cls, table: VectorTable, *, dims: int | None = None, kind: str | None = None) -> "Index":
        """The index of a table; ``dims`` directions are kept by whitening, 0 = none is done.

        Unless given they are 64; of two towers, which learned what angles mean between them, none is done.
        """
        if dims is None:
            dims = 0 if table.about.get("match") else 64
        try:
            whitening = fit_whitening(table.vectors, dims) if dims else None
        except ValueError as error:
            raise BadInput(str(error)) from error
        vectors = unit(table.vectors) if whitening is None else whitening(table.vectors)
        return cls(table.ids, vectors, whitening, kind=kind, columns=table.columns, about=table.about)

    @property
    def width(self) -> int:
        """Numbers of a vector as it is given."""
        return int(self.vectors.shape[1] if self.whitening is None else len(self.whitening.mean))

    def prepare(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors (N, D) as they are compared.

        Raises:
            BadInput: If they have another size.
        """
        if vectors.shape[1] != self.width:
            raise BadInput(
                f"expected vectors of {self.width} numbers, as the index has, got {vectors.shape[1]}; embed by the "
                "same checkpoint and pool"
            )
        return unit(vectors) if self.whitening is None else self.whitening(vectors)

    def search(self, vectors: np.ndarray, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """The ``k`` nearest of each of (Q, D) vectors: rows and similarities, (Q, k), the nearest first."""
        return self.neighbours(self.prepare(vectors), k)

    def neighbours(self, prepared: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The same of vectors that are as they are compared; rows of -1 where an approximate index found fewer."""
        k = min(k, len(self.vectors))
        if self._built is None:
            scores, rows = exact.nearest(prepared, self.vectors, k)
        else:
            scores, rows = self._built.search(np.ascontiguousarray(prepared, np.float32), k)
        return rows, scores

    def append(self, table: VectorTable) -> None:
        """Add vectors; the whitening stays that of the first ones.

        Raises:
            BadInput: If an id is there already, or the vectors have another size or came from another checkpoint.
        """
        mine, other = self.about.get("digest"), table.about.get("digest")
        if mine and other and mine != other:
            raise BadInput(
                f"expected vectors of {self.about.get('checkpoint')}, as the index has, got those of "
                f"{table.about.get('checkpoint')}; make an index of their own"
            )
        new = self.prepare(table.vectors)
        joined = VectorTable([*self.ids, *table.ids], np.concatenate([self.vectors, new]))
        check(joined._replace(vectors=np.ones((len(joined.ids), 1), np.float32)), "the index with what is added")
        names = dict.fromkeys([*self.columns, *table.columns])
        blank = ([None] * len(self.ids), [None] * len(table.ids))
        self.columns = {name: [*self.columns.get(name, blank[0]), *table.columns.get(name, blank[1])] for name in names}
        self.ids, self.vectors = joined.ids, joined.vectors
        if self._file is not None:  # what is mapped is not to be written
            self._built, self._file = approximate.read(self._file, mapped=False), None
        if self._built is not None:
            approximate.add(self._built, new)

    def save(self, folder: Path) -> None:
        """Write a folder that `load` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "vectors.npy", self.vectors)
        if self.whitening is not None:
            np.savez(folder / "whitening.npz", **self.whitening._asdict())
        if self._built is not None:
            approximate.write(self._built, folder / FAISS)
        about = {"kind": self.kind, "ids": self.ids, "columns": self.columns, "about": self.about}
        (folder / "about.json").write_text(json.dumps(about), encoding="utf-8")  # last: it says that all is there

    @classmethod
    def load(cls, folder: Path) -> "Index":
        """Read a folder that `save` wrote; its vectors stay on the disk until they are compared.

        Raises:
            BadInput: If it is none.
        """
        if missing := [name for name in PARTS if not (folder / name).is_file()]:
            raise BadInput(f"{folder}: expected an index that search saved, got a folder without {missing[0]}")
        told = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        whitening = None
        if (folder / "whitening.npz").is_file():
            with np.load(folder / "whitening.npz") as read:
                whitening = Whitening(read["mean"], read["matrix"])
        file = folder / FAISS if told["kind"] != "exact" else None
        vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        rest = {"kind": told["kind"], "columns": told["columns"], "about": told["about"], "file": file}
        return cls(told["ids"], vectors, whitening, **rest)
