"""Cubes cut out of scans, listed in a table: is there a lesion in it? Leave one patient out."""

from dataclasses import replace
from pathlib import Path
from string import Formatter
from typing import Any

import nibabel
import numpy as np
import torch
from monai import transforms as mt
from monai.data import Dataset as MonaiDataset
from nibabel.affines import from_matvec
from torch import Tensor
from torch.utils.data import Dataset

from tasks.data.leaks import Identity
from tasks.data.manifest import Row, read_manifest
from tasks.data.problems import Problems
from tasks.data.splits import PARTS
from tasks.volume.data import VolumeData
from tasks.volume.intensity import foreground_scale
from tasks.volume.records import Record, names_of
from tasks.volume.transforms import Augment, augmentation


class PatchData(VolumeData):
    """Cubes of scans with a class or a number each, from a table with a row a cube (CSV, TSV, JSON, JSONL).

    Columns are the subject, the first voxel along the file's three axes, the edge of the cube in voxels (the same for
    all) and the target. Fold k tests the k-th subject, all others train. Of each training subject the hindmost cubes
    along the file's ``slab`` axis validate, and cubes that overlap them are left out, so that no voxel is seen twice.

    Each scan is normalised once, before cutting: of what is not 0 the median becomes 0 and the spread (1.48 times the
    median absolute deviation) 1, which a patient full of lesions does not shift, clipped to -3 to 6.

    Args:
        root: The table.
        images: Path of a row's scan, relative to the table, columns in braces: ``{patient}/FLAIR.nii.gz``; several on
            one grid, with commas between, are the channels of its cubes.
        mask: Path of its mask on the same grid, likewise; never trained on. Leave it out if there is none.
        subject: Column with the subject.
        corner: Columns with the first voxel.
        edge: Column with the cube's edge.
        slab: Axis of the files along which validation is cut off.
        options: See `VolumeData`.
    """

    def __init__(
        self,
        root: str,
        *,
        images: str | list[str],
        mask: str | None = None,
        subject: str = "patient",
        corner: tuple[str, str, str] = ("i", "j", "k"),
        edge: str = "size",
        slab: int = 0,
        augment: Augment | None = None,
        val: float = 0.25,
        **options: Any,
    ):
        super().__init__(
            augment=augment,
            val=val,
            size=(1, 1, 1),
            spacing=None,
            fit="crop",
            intensity="foreground",
            cache="memory",
            **options,
        )
        # Cubes are cut, not cropped; what was learnt on them may be asked of whole scans.
        self.geometry["size"] = None
        self.root = Path(root)
        self.images, self.mask, self.subject = names_of(images), mask, subject
        self.corner, self.edge, self.slab = tuple(corner), edge, slab

    @property
    def source(self) -> str:
        """The table's name."""
        return self.root.name

    def records(self, problems: Problems) -> list[Record]:
        """One record a row."""
        named = [
            field for text in (*self.images, self.mask or "") for _, field, _, _ in Formatter().parse(text) if field
        ]
        rows = read_manifest(self.root, required=(self.subject, *self.corner, self.edge, *self.targets, *named))
        listed, edges = [], {row.get(self.edge) for row in rows}
        if len(edges) > 1:
            problems.stop(
                f"column {self.edge}", f"expected one size, got {sorted(map(str, edges))}; use a table a size"
            )
        for row in rows:
            where = f"{self.root.name} row {row.number} ({row.get(self.subject)})"
            wanted = (self.subject, *self.corner, self.edge, *named)
            empty = [column for column in dict.fromkeys(wanted) if row.get(column) is None]
            numbers = [str(row.get(column)) for column in (*self.corner, self.edge)]
            if empty:
                problems.add(where, f"column {', '.join(empty)} is empty; fill it in or delete the row")
            elif not all(number.isdecimal() for number in numbers):
                problems.add(where, f"expected whole numbers from 0 as corner and size, got {numbers}; correct the row")
            else:
                name = "-".join([str(row[self.subject]), *numbers[:3]])
                mask = self._file(row, self.mask) if self.mask else None
                files = tuple(self._file(row, text) for text in self.images)
                listed.append(Record(files, where, name, str(row[self.subject]), row, mask=mask))
        return listed

    def _file(self, row: Row, text: str) -> Path:
        return (self.root.parent / text.format(**row)).resolve()

    @property
    def channels(self) -> list[str]:
        """The names of the files, without their endings."""
        return [Path(text).name.split(".")[0] for text in self.images]

    @property
    def folds(self) -> list[int]:
        """One fold a subject."""
        return list(range(len({record.subject for record in self.records(Problems(self.source))})))

    def _checked(self, listed: list[Record], problems: Problems) -> list[Record]:
        good = []
        for record in super()._checked(listed, problems):
            shape = _shape(record.path)
            start, edge = self._window(record)
            if any(first + edge > n for first, n in zip(start, shape, strict=True)):
                problems.add(
                    record.where,
                    f"expected a cube inside {shape}, got {edge} voxels from {tuple(start)}; correct the row",
                )
            elif others := [one for one in record.there[1:] if _shape(one) != shape]:
                what = f"expected {others[0].name} of shape {shape}, as {record.path.name}, got {_shape(others[0])}"
                problems.add(record.where, f"{what}; resample it to the scan")
            elif record.mask and _shape(record.mask) != shape:
                got = _shape(record.mask)
                problems.add(record.where, f"expected a mask of shape {shape}, got {got}; resample it to the scan")
            else:
                good.append(record)
        return good

    def identity(self, record: Record) -> Identity:
        """A cube is told by its scan and its place."""
        keys = {"content": self._content(record), "subject": record.subject}
        return Identity(record.id, record.where, keys, int(record.target))

    def _content(self, record: Record) -> int:
        return record.digest(self.told_by, str(self._window(record)))

    def _cube(self, record: Record, scan: Tensor, affine: np.ndarray) -> tuple[Tensor, Tensor]:
        """A record's cube, ``(1, edge, edge, edge)``, axes right, anterior, superior, and its affine."""
        start, edge = self._window(record)
        moved = affine @ from_matvec(np.eye(3), start)
        cube = scan[tuple(slice(first, first + edge) for first in start)]
        turned = nibabel.as_closest_canonical(nibabel.Nifti1Image(cube.numpy(), moved))
        return torch.from_numpy(np.array(turned.dataobj))[None], torch.from_numpy(turned.affine.copy())

    def _window(self, record: Record) -> tuple[list[int], int]:
        return [int(record.values[column]) for column in self.corner], int(record.values[self.edge])

    def _split(self, records: list[Record], problems: Problems) -> dict[str, list[Record]]:
        subjects = sorted({record.subject for record in records})
        if len(subjects) < 2:
            problems.stop("split", f"expected two or more subjects to leave one out, got {subjects}; add some")
            return {name: [] for name in PARTS}
        if not 0 <= self.fold < len(subjects):
            raise ValueError(f"expected a fold between 0 and {len(subjects) - 1}, got {self.fold}; choose another fold")
        held = subjects[self.fold]
        parts: dict[str, list[Record]] = {name: [] for name in PARTS}
        parts["test"] = [record for record in records if record.subject == held]
        for subject in subjects:
            if subject == held:
                continue
            own = [record for record in records if record.subject == subject]
            starts = {id(record): self._window(record)[0][self.slab] for record in own}
            border = sorted(starts.values())[int(len(own) * (1 - self.val))]
            # The parts share a subject on purpose, but no voxel: each counts as a subject of its own.
            parts["val"] += [
                replace(record, subject=f"{subject}, slab") for record in own if starts[id(record)] >= border
            ]
            parts["train"] += [record for record in own if starts[id(record)] + self._window(record)[1] <= border]
        for name in ("train", "val"):
            if not parts[name]:
                problems.stop("split", f"no cube is left to {name}; change --data.val or --data.slab")
        return parts

    def _dataset(self, records: list[Record], part: str) -> Dataset[Any]:
        scans = {path: foreground_scale(_load(path)) for path in {file for record in records for file in record.there}}
        masks = {path: _load(path) > 0 for path in {record.mask for record in records if record.mask}}
        samples = []
        for record, item in zip(records, self._items(records, part), strict=True):
            place = nibabel.load(record.path).affine
            sample = {**item, "id": record.id}
            cubes = [self._cube(record, scans[file], place) for file in record.there]
            sample["image"], sample["affine"] = torch.cat([cube for cube, _ in cubes]), cubes[0][1]
            if record.mask:
                sample["mask"] = self._cube(record, masks[record.mask].to(torch.uint8), place)[0].bool()
            samples.append(sample)
        random = augmentation(self.augment if part == "train" else None)
        return MonaiDataset(samples, mt.Compose(random) if random else None)


def _load(path: Path) -> Tensor:
    voxels = np.asanyarray(nibabel.load(path).dataobj).astype(np.float32)
    return torch.from_numpy(voxels.reshape(voxels.shape[:3]))


def _shape(path: Path) -> tuple[int, ...]:
    shape: tuple[int, ...] = nibabel.load(path).shape[:3]
    return shape
