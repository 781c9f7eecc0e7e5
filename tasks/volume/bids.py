"""Volumes of a BIDS folder (Gorgolewski et al. 2016), raw or derived, whose files bids2table lists."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tasks.data.manifest import Row, read_manifest
from tasks.data.problems import BadInput, Problems
from tasks.extras import require
from tasks.volume.data import VolumeData
from tasks.volume.records import Record, names_of

Image = Mapping[str, Any]
"""A file as bids2table lists it: its entities by their short names, suffix, path."""

_SCAN = ("acq", "run")  # entities that tell scans of a session apart; others are versions of one scan
_VERSIONS = ("ce", "rec", "echo", "part", "chunk", "inv", "mod", "space", "res", "den", "desc", "split", "cohort")


class BIDSData(VolumeData):
    """Volumes of a BIDS folder and the columns of participants.tsv, or of a participant's sessions.tsv.

    Every session, acquisition and run of a participant is a sample with the participant's (or the session's) target;
    all stay in one part. Of several versions of one scan (``space``, ``desc``, ``rec``...) one has to be chosen.

    Args:
        root: The BIDS folder: of raw data, or of a pipeline's derivatives, whose participants.tsv is then looked for in
            the raw folder above.
        images: Suffixes of the images, with commas between: T1w or T1w,FLAIR, of one session, the channels of a sample.
        entities: What the images' names hold, such as ``{"space": "MNI152NLin2009cAsym", "acq": "mprage"}``; null for
            an entity that they do not hold.
        derivatives: Take the images from this pipeline's folder in ``derivatives``, such as fmriprep.
        options: See `VolumeData`; ``target`` is a column of participants.tsv or of sessions.tsv, and ``pool_mask`` the
            ``desc`` of masks, such as brain: ``*_desc-brain_mask.nii.gz`` beside the images or in a derivative.
    """

    def __init__(
        self,
        root: str,
        *,
        images: str | list[str] = "T1w",
        entities: dict[str, str | int | None] | None = None,
        derivatives: str | None = None,
        **options: Any,
    ):
        super().__init__(**options)
        self.root, self.images, self.entities = Path(root), names_of(images), entities or {}
        self.folder = self.root if derivatives is None else self.root / "derivatives" / derivatives

    @property
    def source(self) -> str:
        """The folder's name."""
        return self.root.name

    @property
    def channels(self) -> list[str]:
        """The suffixes."""
        return self.images

    def records(self, problems: Problems) -> list[Record]:
        """One record a scan whose participant has a row."""
        if not self.folder.is_dir():
            raise BadInput(f"BIDS folder {self.folder} does not exist; give the folder that holds participants.tsv")
        files = [one for one in _index(self.folder) if one["suffix"] in self.images and self._meant(one)]
        people = self._people(problems)
        listed: list[Record] = []
        found = {f"sub-{one['sub']}" for one in files}
        what = f"no image {'|'.join(self.images)}{self._said()}"
        for subject, row in people.items():
            if subject not in found:
                advice = "add it, delete the row, or change --data.images or --data.entities"
                problems.add(f"participants.tsv row {row.number} ({subject})", f"{what}; {advice}")
        sessions: dict[tuple[str, str | None], list[Image]] = defaultdict(list)
        for one in files:
            sessions[f"sub-{one['sub']}", one["ses"]].append(one)
        masks = self._masks()
        for (subject, session), images in sessions.items():
            if subject not in people:
                for image in images:
                    problems.add(image["path"], f"{subject} has no row in participants.tsv; add one")
                continue
            values = self._values(people[subject], subject, session, problems)
            for scan in self._scans(images, problems):
                first = next(one for one in scan if one is not None)
                where = f"participants.tsv row {people[subject].number} ({first['path']})"
                inside = self._mask_of(first, masks, where, problems) if self.pool_column else None
                if self.pool_column and inside is None:
                    continue
                paths = tuple(None if one is None else self.folder / one["path"] for one in scan)
                listed.append(Record(paths, where, first["path"], subject, values, pool_mask=inside))
        return listed

    def _meant(self, image: Image) -> bool:
        return all(_same(image.get(name), value) for name, value in self.entities.items())

    def _said(self) -> str:
        chosen = [f"{name}-{value}" if value is not None else f"no {name}" for name, value in self.entities.items()]
        return f" with {', '.join(chosen)}" if chosen else ""

    def _people(self, problems: Problems) -> dict[str, Row]:
        """Rows of participants.tsv by ``sub-XX``, whether it has the prefix or not."""
        places = [self.root, *[above for above in self.root.resolve().parents[:2] if self.folder == self.root]]
        table = next((one / "participants.tsv" for one in places if (one / "participants.tsv").is_file()), None)
        if table is None:
            raise BadInput(f"{self.root} and the folders above hold no participants.tsv; add it, or use a CSV table")
        people: dict[str, Row] = {}
        self._raw = table.parent
        rows = read_manifest(table, required=("participant_id",))
        wanted = [column for column in self.targets if not any(column in row for row in rows)]
        if wanted and not any(self._raw.glob("sub-*/sub-*_sessions.tsv")):
            read_manifest(table, required=("participant_id", *self.targets))  # says what there is
        for row in rows:
            subject = f"sub-{str(row.get('participant_id')).removeprefix('sub-')}"
            if subject in people:
                where = f"participants.tsv row {row.number} ({subject})"
                problems.add(where, "the participant has a row already; delete one of them")
            else:
                people[subject] = row
        return people

    def _values(self, row: Row, subject: str, session: str | None, problems: Problems) -> dict[str, Any]:
        """The participant's row, and over it the session's."""
        table = self._raw / subject / f"{subject}_sessions.tsv"
        if session is None or not table.is_file():
            return dict(row)
        rows = read_manifest(table, required=("session_id",))
        own = [one for one in rows if str(one.get("session_id")).removeprefix("ses-") == session]
        if len(own) > 1:
            problems.stop(table.name, f"ses-{session} has {len(own)} rows; delete all but one")
        return {**row, **(own[0] if own else {})}

    def _scans(self, images: list[Image], problems: Problems) -> Iterable[list[Image | None]]:
        """Of each scan of a session its sequences; a sequence that was scanned once belongs to all of them."""
        by_suffix: dict[str, dict[tuple[Any, ...], Image]] = {name: {} for name in self.images}
        for one in images:
            scan = tuple(one.get(entity) for entity in _SCAN)
            other = by_suffix[one["suffix"]].setdefault(scan, one)
            if other is not one:
                differ = [name for name in (*_VERSIONS, "ext") if one.get(name) != other.get(name)]
                what = f"is another version of {Path(other['path']).name} (they differ in {', '.join(differ)})"
                chosen = json.dumps({name: other.get(name) for name in differ})
                problems.add(one["path"], f"{what}; choose one, such as that with --data.entities '{chosen}'")
        once = {name: next(iter(scans.values())) for name, scans in by_suffix.items() if len(scans) == 1}
        several = {scan for name, scans in by_suffix.items() for scan in scans if name not in once}
        for scan in sorted(several, key=str) or [()]:
            yield [once.get(name) or by_suffix[name].get(scan) for name in self.images]

    def _masks(self) -> list[tuple[Path, Image]]:
        if self.pool_column is None:
            return []
        folders = [self.folder, *sorted(one for one in self._raw.glob("derivatives/*") if one.is_dir())]
        found = ((folder, one) for folder in dict.fromkeys(folders) for one in _index(folder))
        return [(folder, one) for folder, one in found if (one["suffix"], one["desc"]) == ("mask", self.pool_column)]

    def _mask_of(self, image: Image, masks: list[tuple[Path, Image]], where: str, problems: Problems) -> Path | None:
        """The mask of an image's session, in its space."""
        names = ("sub", "ses", "space", "res", "datatype")
        own = [(folder, one) for folder, one in masks if all(one.get(name) == image.get(name) for name in names)]
        if len(own) > 1:
            own = [(folder, one) for folder, one in own if all(one.get(name) == image.get(name) for name in _SCAN)]
        if len(own) != 1:
            got = ", ".join(one["path"] for _, one in own) or "none"
            problems.add(where, f"expected one *_desc-{self.pool_column}_mask of its session and space, got {got}")
            return None
        folder, one = own[0]
        found: Path = folder / one["path"]
        return found


def _index(folder: Path) -> list[dict[str, Any]]:
    """The images of a BIDS folder, without those of derivatives in it."""
    (bids2table,) = require("bids2table", extra="bids", what="tasks.volume.BIDSData")
    rows = bids2table.index_dataset(folder).to_pylist()
    images = [one for one in rows if one["ext"] in (".nii", ".nii.gz")]
    return sorted(({**one, **dict(one["extra_entities"] or [])} for one in images), key=lambda one: str(one["path"]))


def _same(value: Any, wanted: str | int | None) -> bool:
    """Whether an entity has a value; numbers with and without zeros before them are the same."""
    if value is None or wanted is None:
        return value is wanted
    one, other = str(value), str(wanted)
    return one == other or (one.isdecimal() and other.isdecimal() and int(one) == int(other))
