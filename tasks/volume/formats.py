"""Where a list of volumes comes from: a table, a BIDS folder, or a Medical Segmentation Decathlon dataset.json."""

import json
from pathlib import Path
from typing import Any

from tasks.data.manifest import read_manifest
from tasks.data.problems import BadInput, Problems
from tasks.data.splits import PARTS
from tasks.volume.data import VolumeData
from tasks.volume.records import Record


class CSVData(VolumeData):
    """Volumes listed in a table (CSV, TSV, JSON, JSONL) with paths relative to it.

    Args:
        root: The table.
        image: Column with the path of the image.
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
        image: str = "path",
        subject: str = "subject",
        split: str | None = "split",
        mask: str | None = None,
        **options: Any,
    ):
        super().__init__(**options)
        self.root = Path(root)
        self.image, self.subject, self.split, self.mask = image, subject, split, mask

    @property
    def source(self) -> str:
        """The table's name."""
        return self.root.name

    def records(self, problems: Problems) -> list[Record]:
        """One record a row."""
        rows = read_manifest(self.root, required=(self.image, *self.targets, *([self.mask] if self.mask else [])))
        column = self.split if self.split is not None and any(row.get(self.split) for row in rows) else None
        listed = []
        for row in rows:
            where = f"{self.root.name} row {row.number} ({row.get(self.image)})"
            part = row.get(column) if column else None
            if row.get(self.image) is None:
                problems.add(where, f"column {self.image} is empty; fill it in or delete the row")
            elif column and part not in (*PARTS, "predict"):
                problems.add(where, f"expected train, val, test or predict in column {self.split}, got '{part}'")
            elif self.mask and part != "predict" and row.get(self.mask) is None:
                problems.add(where, f"column {self.mask} is empty; name a mask, or an empty one where there is nothing")
            else:
                path = row.resolve(self.image)
                name = str(row[self.image])
                subject = str(row.get(self.subject) or name)
                mask = row.resolve(self.mask) if self.mask and part != "predict" else None
                listed.append(Record(path, where, name, subject, row, part, mask))
        return listed


class BIDSData(VolumeData):
    """Volumes of a BIDS folder: ``sub-XX[/ses-YY]/anat/*_T1w.nii.gz`` and the columns of participants.tsv.

    Every session and run of a participant is a sample with the participant's target; all stay in one part.

    Args:
        root: The BIDS folder.
        suffix: Which images: T1w, T2w, FLAIR...
        options: See `VolumeData`; ``target`` is a column of participants.tsv.
    """

    def __init__(self, root: str, *, suffix: str = "T1w", **options: Any):
        super().__init__(**options)
        self.root = Path(root)
        self.suffix = suffix

    @property
    def source(self) -> str:
        """The folder's name."""
        return self.root.name

    def records(self, problems: Problems) -> list[Record]:
        """One record an image whose participant has a row."""
        if not self.root.is_dir():
            raise BadInput(f"BIDS folder {self.root} does not exist; give the folder that holds participants.tsv")
        rows = read_manifest(self.root / "participants.tsv", required=("participant_id", *self.targets))
        images = self._images()
        listed, known = [], set()
        for row in rows:
            subject = str(row.get("participant_id"))
            where = f"participants.tsv row {row.number} ({subject})"
            if subject in known:
                problems.add(where, "the participant has a row already; delete one of them")
                continue
            known.add(subject)
            if subject not in images:
                image = f"{subject}[/ses-*]/anat/*_{self.suffix}.nii[.gz]"
                what = f"no image {image}; add it, delete the row, or change --data.suffix"
                problems.add(where, what)
            for path in images.get(subject, []):
                name = path.relative_to(self.root).as_posix()
                listed.append(Record(path, f"participants.tsv row {row.number} ({name})", name, subject, row))
        for subject in sorted(images.keys() - known):
            for path in images[subject]:
                problems.add(
                    path.relative_to(self.root).as_posix(), f"{subject} has no row in participants.tsv; add one"
                )
        return listed

    def _images(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for folder in ("sub-*/anat", "sub-*/ses-*/anat"):
            for path in sorted(self.root.glob(f"{folder}/*_{self.suffix}.nii*")):
                if path.name.endswith((".nii", ".nii.gz")):
                    found.setdefault(path.relative_to(self.root).parts[0], []).append(path)
        return found


class DecathlonData(VolumeData):
    """Volumes listed in a dataset.json as the Medical Segmentation Decathlon has them.

    Entries under ``training`` (and ``validation``, if it is there) are objects with ``image``, a path relative to the
    file, and the target, such as ``{"image": "imagesTr/a.nii.gz", "label": 1}``; other keys may serve as targets, and
    ``subject`` groups images. Entries under ``test`` are plain paths or objects; those without a target are predicted.

    Args:
        root: The dataset.json, or the folder that holds it.
        options: See `VolumeData`; ``target`` is a key of the entries.
    """

    def __init__(self, root: str, **options: Any):
        super().__init__(**options)
        self.root = Path(root) / "dataset.json" if Path(root).is_dir() else Path(root)

    @property
    def source(self) -> str:
        """The file and its folder."""
        return f"{self.root.parent.name}/{self.root.name}"

    def records(self, problems: Problems) -> list[Record]:
        """One record an entry."""
        lists = self._read()
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
                path = (self.root.parent / entry["image"]).resolve()
                identity = Path(entry["image"]).as_posix().removeprefix("./")
                listed.append(Record(path, where, identity, str(entry.get("subject") or identity), entry, part))
        return listed

    def _labelled(self, entry: object) -> bool:
        return isinstance(entry, dict) and all(entry.get(column) is not None for column in self.targets)

    def _read(self) -> dict[str, list[Any]]:
        if not self.root.is_file():
            raise BadInput(f"{self.root} does not exist; give a dataset.json or the folder that holds one")
        try:
            content = json.loads(self.root.read_text(encoding="utf-8"))
        except ValueError as error:
            raise BadInput(f"{self.root.name}: not valid JSON: {error}") from error
        needed = "training" if self.trained is None else "test"  # a trained model needs no more to be tested
        if not isinstance(content, dict) or not (content.get("training") or content.get(needed)):
            raise BadInput(f"{self.root.name}: expected an object with a list training; see the Decathlon's format")
        return {name: list(content.get(name) or []) for name in ("training", "validation", "test")}
