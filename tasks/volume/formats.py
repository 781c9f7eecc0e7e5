"""Where a list of volumes comes from: a table, or a Medical Segmentation Decathlon dataset.json."""

import json
from pathlib import Path
from typing import Any

from tasks.data.manifest import read_manifest
from tasks.data.problems import BadInput, Problems
from tasks.data.splits import PARTS
from tasks.volume.data import VolumeData
from tasks.volume.records import Record, names_of


class CSVData(VolumeData):
    """Volumes listed in a table (CSV, TSV, JSON, JSONL) with paths relative to it.

    Args:
        root: The table.
        images: Column with the path of the image; several, with commas between, are sequences of a subject (T1,FLAIR),
            which become the channels of one image, on the grid of the first.
        volumes: Volumes in each file, where one file holds several sequences (4-D); each is a channel.
        subject: Column with the subject; images of one subject never fall into different parts. Where the table has
            no such column each row counts as a subject of its own.
        split: Column with train, val, test or predict (rows to predict need no target). Where the table has no such
            column, or with null, the split is made from the folds.
        mask: Column with the path of a mask, of any grid in the same space: what a map should find (not zero). It is
            never trained on.
        options: See `VolumeData`.
    """

    def __init__(
        self,
        root: str,
        *,
        images: str | list[str] = "path",
        volumes: int = 1,
        subject: str = "subject",
        split: str | None = "split",
        mask: str | None = None,
        **options: Any,
    ):
        super().__init__(**options)
        self.root = Path(root)
        self.images, self.volumes = names_of(images), volumes
        if volumes > 1 and len(self.images) > 1:
            raise ValueError(f"images: expected one column where each file holds {volumes} volumes, got {self.images}")
        self.subject, self.split, self.mask = subject, split, mask

    @property
    def source(self) -> str:
        """The table's name."""
        return self.root.name

    @property
    def channels(self) -> list[str]:
        """The columns; or one column's name with the volume's number."""
        if self.volumes == 1:
            return self.images
        return [f"{self.images[0]} {number}" for number in range(self.volumes)]

    def records(self, problems: Problems) -> list[Record]:
        """One record a row."""
        masks = [column for column in (self.mask, self.pool_column) if column]
        rows = read_manifest(self.root, required=(*self.images, *self.targets, *masks))
        column = self.split if self.split is not None and any(row.get(self.split) for row in rows) else None
        listed = []
        for row in rows:
            names = [row.get(column) for column in self.images]
            known = next((str(name) for name in names if name is not None), None)
            where = f"{self.root.name} row {row.number} ({known})"
            part = row.get(column) if column else None
            empty = [name for name in masks if part != "predict" or name != self.mask if row.get(name) is None]
            if known is None:
                columns = ", ".join(self.images)
                problems.add(where, f"column {columns} is empty; fill it in or delete the row")
            elif column and part not in (*PARTS, "predict"):
                problems.add(where, f"expected train, val, test or predict in column {self.split}, got '{part}'")
            elif empty:
                what = f"column {', '.join(empty)} is empty; name a mask, or an empty one where there is nothing"
                problems.add(where, what)
            else:
                files = tuple(None if row.get(name) is None else row.resolve(name) for name in self.images)
                subject = str(row.get(self.subject) or known)
                mask = row.resolve(self.mask) if self.mask and part != "predict" else None
                inside = row.resolve(self.pool_column) if self.pool_column else None
                listed.append(Record(files, where, known, subject, row, part, mask, inside))
        return listed


class DecathlonData(VolumeData):
    """Volumes listed in a dataset.json as the Medical Segmentation Decathlon has them.

    Entries under ``training`` (and ``validation``, if it is there) are objects with ``image``, a path relative to the
    file, and the target, such as ``{"image": "imagesTr/a.nii.gz", "label": 1}``; other keys may serve as targets, and
    ``subject`` groups images. Entries under ``test`` are plain paths or objects; those without a target are predicted.
    Where ``modality`` names several, each file holds a volume of each (4-D), and they are the channels of the input.

    Args:
        root: The dataset.json, or the folder that holds it.
        images: Names of modalities to take, with commas between; None = all.
        options: See `VolumeData`; ``target`` is a key of the entries.
    """

    def __init__(self, root: str, *, images: str | list[str] | None = None, **options: Any):
        super().__init__(**options)
        self.root = Path(root) / "dataset.json" if Path(root).is_dir() else Path(root)
        self.images = None if images is None else names_of(images)

    @property
    def channels(self) -> list[str]:
        """The modalities that are taken."""
        return self.images or list(self._read()["modality"].values())

    @property
    def source(self) -> str:
        """The file and its folder."""
        return f"{self.root.parent.name}/{self.root.name}"

    def records(self, problems: Problems) -> list[Record]:
        """One record an entry."""
        content = self._read()
        lists = {name: list(content.get(name) or []) for name in ("training", "validation", "test")}
        modalities = list(content["modality"].values())
        self.volumes = len(modalities)
        unknown = [name for name in self.channels if name not in modalities]
        if unknown:
            what = f"expected some of {', '.join(modalities)}, got {', '.join(unknown)}; correct --data.images"
            problems.stop("modality", what)
        elif self.channels != modalities:
            self.geometry["take"] = [modalities.index(name) for name in self.channels]
        tested = any(self._labelled(entry) for entry in lists["test"])
        divided = tested and bool(lists["training"])
        parts = {"training": "train" if divided else None, "validation": "val" if divided else None, "test": "test"}
        listed = []
        for name, entries in lists.items():
            for number, entry in enumerate(entries, start=1):
                entry = entry if isinstance(entry, dict) else {"image": entry}
                where = f"{self.root.name} {name} {number} ({entry.get('image')})"
                if not isinstance(entry.get("image"), str):
                    problems.add(where, "expected the key image with one path; correct the entry")
                    continue
                part = "predict" if name == "test" and not self._labelled(entry) else parts[name]
                mask = entry.get(self.pool_column) if self.pool_column else None
                if self.pool_column and not isinstance(mask, str):
                    problems.add(
                        where, f"expected the key {self.pool_column} with the path of a mask; correct the entry"
                    )
                    continue
                path, mask = (one and (self.root.parent / one).resolve() for one in (entry["image"], mask))
                identity = Path(entry["image"]).as_posix().removeprefix("./")
                subject = str(entry.get("subject") or identity)
                listed.append(Record((path,), where, identity, subject, entry, part, pool_mask=mask))
        return listed

    def _labelled(self, entry: object) -> bool:
        return isinstance(entry, dict) and all(entry.get(column) is not None for column in self.targets)

    def _read(self) -> dict[str, Any]:
        if not self.root.is_file():
            raise BadInput(f"{self.root} does not exist; give a dataset.json or the folder that holds one")
        try:
            content = json.loads(self.root.read_text(encoding="utf-8"))
        except ValueError as error:
            raise BadInput(f"{self.root.name}: not valid JSON: {error}") from error
        needed = "training" if self.trained is None else "test"  # a trained model needs no more to be tested
        if not isinstance(content, dict) or not (content.get("training") or content.get(needed)):
            raise BadInput(f"{self.root.name}: expected an object with a list training; see the Decathlon's format")
        modality = content.get("modality")
        return {**content, "modality": modality if isinstance(modality, dict) and modality else {"0": "image"}}
