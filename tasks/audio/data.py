"""Recordings that a table lists: read, checked and split before training."""

from collections.abc import Hashable, Sequence
from functools import partial
from math import isnan
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from tasks.audio.base import Recordings
from tasks.audio.clips import Clip, Clips, Fill
from tasks.audio.labels import Labels, Target
from tasks.audio.reading import Cache, Heard, Listed, Sounds
from tasks.audio.rows import fold_numbers, given_parts
from tasks.audio.tables import Table
from tasks.audio.times import Unit, clip_name
from tasks.data.base import Sample
from tasks.data.checking import Check
from tasks.data.leaks import Identity
from tasks.data.manifest import Row
from tasks.data.problems import BadInput, Problems
from tasks.data.splits import PARTS, hold_out, split


class AudioManifest(Recordings):
    """Recordings listed in a table (`tasks.data.manifest`) with the columns path and label, one row a clip.

    Further columns: ``start`` and ``duration`` or ``end`` (`tasks.audio.times`) for a part of a file, ``split`` (train,
    val, test, or predict for a row without a label), ``fold``.
    Who is tested: the rows with split ``test``; else the held-out fold; else one of five stratified folds. Validation
    rows have the split ``val``; where there is none, they are drawn from the training rows, class by class. For a model
    that was trained on others, every row with a label tests unless it is marked otherwise, and every row is predicted.

    Args:
        manifest: The table; a folder whose files' names say what they are (`tasks.audio.folders`); or tar files as
            WebDataset writes them, ``shards/{000..099}.tar`` (`tasks.data.shards`).
        pattern: In a folder, what the names are made of, such as ``{label}_{speaker}_{take}.wav``.
        path_column: Column of the paths; None = the first of path, file, wav, filename, audio and others
            (`tasks.audio.paths`) that there is.
        root: Where paths start that are not absolute; None = the table's own folder.
        strip: Beginning of paths that is left out, where the table is from another machine.
        times: What starts and ends count: seconds, or samples of the file.
        channel: The channel of each file that is read, from 0; None = the mean of all.
        label: Column of the label; several tags of a clip are written ``drums|bass``, or as a list in JSON, an empty
            cell is none. Or the columns of zeros and ones that are a tag each, as a list or as ``tag_*``.
        fold_column: Column of the folds; it goes before a column ``split``. None = ``fold``, where there is no
            ``split``. Whole numbers are the folds' numbers; other names are numbered from 0 in sorted order.
        apart: Folds that are in no training set and in no cross-validation, such as recordings from another source;
            test on one by giving its number as the fold.
        group: Column of groups (a player, a recording) that are never divided between training and validation, nor
            between random folds.
        copies: Column that is empty for recordings and holds the recording's path for what was made from it (another
            rendering, a transposition). Copies only train, and never where their recording validates or tests.
        val: Share of the training rows that validates.
        target: What a label is: one class, several tags, or a number. None = tags where cells look so, else a class.
        separator: Stands between the tags of a cell.
        tags: The tags to learn; others are not looked at. None = all.
        sample_rate: Samples per second that every recording is converted to, in Hz.
        shift: Longest random shift in training, in seconds.
        test_shift: Longest random shift in validation and test, in seconds; a clip has the same one at every look.
        shift_fill: What a shift brings in: the clip's own end (a loop), or silence.
        cache: Keep all clips in memory, or read each when a batch needs it, for more than memory holds.
        check: What is read before training, without a cache: all clips, the files' headers, or a thousand clips drawn
            at random; with the last two, copies under other names are not noticed, and a bad file is when it comes.
        base: batch_size, num_workers, fold, seed, on_bad.
    """

    def __init__(
        self,
        manifest: str,
        *,
        pattern: str | None = None,
        path_column: str | None = None,
        root: str | None = None,
        strip: str | None = None,
        times: Unit = "seconds",
        channel: int | None = None,
        label: str | list[str] = "label",
        fold_column: str | None = None,
        apart: list[int] | None = None,
        group: str | None = None,
        copies: str | None = None,
        val: float = 0.1,
        target: Target | None = None,
        separator: str = "|",
        tags: list[str] | None = None,
        sample_rate: int = 16000,
        shift: float = 0.0,
        test_shift: float = 0.0,
        shift_fill: Fill = "wrap",
        cache: Cache = "memory",
        check: Check = "all",
        **base: Any,
    ):
        super().__init__(**base)
        self.manifest = manifest
        self.table = Table(
            manifest, pattern=pattern, path_column=path_column, root=root, strip=strip, times=times, channel=channel
        )
        self.label, self.fold_column = label, fold_column
        self.group, self.copies = group, copies
        self.apart = list(apart or [])
        self.val, self.target, self.sample_rate = val, target, sample_rate
        self.separator, self.tags = separator, tags
        self.shift, self.test_shift, self.shift_fill = shift, test_shift, shift_fill
        self.sounds = Sounds(
            self.table, sample_rate=sample_rate, cache=cache, check=check, on_bad=self.on_bad, seed=self.seed
        )

    def rows(self) -> list[Row]:
        """The table's rows, read once; their paths are in the column ``path``, whatever the table calls it."""
        labels = [self.label] if isinstance(self.label, str) else self.label
        named = (*(label for label in labels if "*" not in label), self.fold_column, self.group, self.copies)
        # What only training needs, another corpus may lack.
        return self.table.rows([column for column in named if column and self.trained is None])

    @property
    def folds(self) -> list[int]:
        """The column's folds without those apart; five random folds without a column; [0] for a fixed split."""
        if self._column:
            return sorted(set(fold_numbers(self.rows(), self._column).values()) - set(self.apart))
        return [0] if self._has("split") else list(range(5))

    @property
    def fold_names(self) -> dict[int, str]:
        """What the column calls them."""
        if not self._column:
            return {}
        numbers = fold_numbers(self.rows(), self._column)
        return {numbers[row.number]: str(row[self._column]) for row in self.rows() if row.number in numbers}

    @property
    def _column(self) -> str | None:
        """The column of the folds, if they are what divides the rows."""
        if self.fold_column is not None and (self.trained is None or self._has(self.fold_column)):
            return self.fold_column
        return "fold" if self._has("fold") and not self._has("split") else None

    def load(self) -> None:
        """Read and check every clip, then split them.

        Raises:
            BadInput: Naming every row that cannot be used, every unknown split or fold, clips that stand in two parts
                and classes without a training clip.
        """
        rows = self.rows()
        problems = Problems(self.manifest, on_bad=self.on_bad)
        known, target = None, self.target
        if self.trained is not None:
            known, self.sample_rate, kind = (self.trained.spec[name] for name in ("classes", "sample_rate", "kind"))
            self.sounds.serve(self.trained, self.sample_rate, self.unsaid.append)
            target = target or ("class" if kind in ("binary", "multiclass") else kind)
            self.trained.accept("multiclass" if target == "class" else target)
        self.labels = Labels(rows, self.label, target=target, separator=self.separator, tags=self.tags, known=known)
        self.told_by = self.sounds.told_by
        heard = self.sounds.look(rows, self._check_cells, problems)
        asked = [row for row in rows if row.number in heard and self._asked(row)]
        usable = [row for row in rows if row.number in heard and not self._asked(row)]
        targets, classes = self.labels.read(usable, partial(self.order_classes, problems), known)
        parts: dict[str, list[Row]] = {name: [] for name in PARTS}
        if not usable and self.trained is None:
            problems.stop("rows", "expected some with a label to learn from, got none; add them")
        if usable:
            new = self.all_new([heard[row.number].digest for row in usable])
            parts = self._parts(usable, targets, problems, new=new)
            if self.copies:
                parts |= {
                    name: [row for row in parts[name] if row.get(self.copies) is None] for name in ("val", "test")
                }
            parts = self.without_leaks(parts, partial(self._identity, heard=heard, targets=targets), problems)
        counts = []
        if parts["train"] and self.trained is None:
            counts = self.labels.count(parts, targets, classes, problems)
        problems.finish(total=len(rows))
        self._say(usable, asked, targets)

        if asked:
            parts["predict"] = asked
        for name, members in parts.items():
            self.datasets[name] = self._dataset(Listed(members, self.sounds, heard, targets), name)
            groups: Sequence[str | None] = self._groups(members) or [None] * len(members)
            self._samples[name] = [
                Sample(clip_name(row), group, row, targets.get(row.number))
                for row, group in zip(members, groups, strict=True)
            ]
        if self.trained is not None:
            self._spec = dict(self.trained.spec)
            return
        self._spec = {
            "kind": ("binary" if len(classes) == 2 else "multiclass")
            if self.labels.target == "class"
            else self.labels.target,
            "classes": classes,
            "channels": 1,
            "sample_rate": self.sample_rate,
            "train_size": len(parts["train"]),
            "class_counts": counts,
        }
        if self.labels.target == "multilabel":
            known_of = torch.stack([targets[row.number] for row in parts["train"]]).isfinite()
            self._spec["known_counts"] = known_of.sum(0).tolist()
        if self.labels.target == "regression":
            values = torch.stack([targets[row.number] for row in parts["train"]]).double()
            self._spec |= {"target_mean": values.mean(0).tolist(), "target_std": values.std(0).clamp(min=1e-8).tolist()}

    def _say(self, usable: Sequence[Row], asked: Sequence[Row], targets: dict[int, Tensor]) -> None:
        """Say what the table is taken for; of data for a model, once they are not refused."""
        low, least = self.table.lower(self.sample_rate), min(self.table.rates.values(), default=0)
        bare = sum(self.labels.target == "multilabel" and not bool((targets[row.number] != 0).any()) for row in usable)
        for text in (
            self.labels.said,
            f"{bare} clips have no tag and count as negatives of all" if bare else "",
            f"{len(asked)} without a label are left to predict" if asked else "",
            f"{low}; --data.sample_rate {least} takes no more than all have" if low and self.trained is None else low,
        ):
            if text:
                (rank_zero_info if self.trained is None else self.unsaid.append)(text)

    def _identity(self, row: Row, *, heard: dict[int, Heard], targets: dict[int, Tensor]) -> Identity:
        keys: dict[str, Hashable] = {
            "content": heard[row.number].digest,
            "file": str((self.copies and row.get(self.copies)) or self.table.files.get(row.number, row["path"])),
        }
        if self.group and row.get(self.group) is not None:
            keys[self.group] = str(row[self.group])
        target = tuple(None if isnan(one) else one for one in targets[row.number].flatten().tolist())
        return Identity(clip_name(row), row.where, keys, target)

    def _has(self, column: str) -> bool:
        """Whether any row that trains or tests says something there."""
        return any(row.get(column) is not None for row in self.rows() if str(row.get("split")).lower() != "predict")

    def _dataset(self, clips: Sequence[Clip], part: str) -> Clips:
        training = part == "train"
        return Clips(
            clips,
            sample_rate=self.sample_rate,
            shift=self.shift if training else self.test_shift,
            fill=self.shift_fill,
            fixed=not training,
            seed=self.seed,
        )

    def still(self, part: str) -> Clips:
        """Shift training clips as test clips are shifted: each always by the same, or not at all."""
        clips: Any = self.datasets[part]
        return self._dataset(clips.clips, "test")

    def digests(self, part: str) -> list[int]:
        """By what is heard, without shifts; by path and place where not all clips are read."""
        clips: Any = self.datasets[part]
        return list(clips.clips.digests)

    def _check_cells(self, row: Row) -> None:
        """Look at what a row says beside its sound.

        Raises:
            ValueError: If something is missing or cannot be.
        """
        asked = self._asked(row)
        empty = {"path": row.get("path") is None, self.labels.column: not asked and self.labels.lacking(row)}
        if self.group and self._has(self.group):
            empty[self.group] = row.get(self.group) is None
        if names := [name for name, bare in empty.items() if bare]:
            raise ValueError(f"{' and '.join(names)} is empty; fill it in or delete the row")
        if asked:
            return
        for name in self.labels.names(row):
            if self.trained and (wrong := self.trained.unknown(name)):
                raise ValueError(wrong)

    def _asked(self, row: Row) -> bool:
        """Whether a row is only to be predicted: it is marked so, or has no label, and a model has one to give."""
        marked = str(row.get("split") or "").lower() == "predict"
        return marked or (self.trained is not None and self.labels.lacking(row))

    def _parts(
        self, rows: Sequence[Row], targets: dict[int, Tensor], problems: Problems, *, new: bool
    ) -> dict[str, list[Row]]:
        """The rows of train, val and test; what is ``new`` to a model tests, unless it is marked otherwise."""
        if self._column:
            if self._has("split"):
                rank_zero_info(f"{self.manifest}: folds are those of {self._column}; the column split is not used")
            if not new:
                return self._with_val(self._held_out(rows, self._column, problems), targets, problems)
        elif self._has("split"):
            parts = given_parts(rows, problems, () if self.trained else ("train", "test"))
            enough = len(parts["train"]) > 1 or self.trained is None
            return self._with_val(parts, targets, problems) if enough and not (new or parts["val"]) else parts
        if new:
            return {"train": [], "val": [], "test": list(rows)}
        numbers = split(
            self._strata(rows, targets), groups=self._groups(rows), fold=self.fold, val=self.val, seed=self.seed,
            stratify=self.labels.target == "class",
        )  # fmt: skip
        return {name: [rows[i] for i in numbers[name]] for name in PARTS}

    def _held_out(self, rows: Sequence[Row], column: str, problems: Problems) -> dict[str, list[Row]]:
        """The held-out fold tests, the others train, those apart do neither."""
        folds = fold_numbers(rows, column)
        known = sorted(set(folds.values()))
        unknown = sorted({self.fold, *self.apart} - set(known))
        if unknown:
            raise BadInput(
                f"{self.manifest}: expected folds of its column {column}, which are "
                f"{', '.join(map(str, known))}, got {', '.join(map(str, unknown))}; correct fold or apart"
            )
        for row in rows:
            if row.number not in folds:
                problems.add(
                    row.where,
                    f"{column}: expected one of {known}, got '{row.get(column) or ''}'; correct it",
                )
        rows = [row for row in rows if row.number in folds]
        return {
            "train": [row for row in rows if folds[row.number] not in {self.fold, *self.apart}],
            "val": [],
            "test": [row for row in rows if folds[row.number] == self.fold],
        }

    def _with_val(
        self, parts: dict[str, list[Row]], targets: dict[int, Tensor], problems: Problems
    ) -> dict[str, list[Row]]:
        """Take validation rows out of the training rows."""
        rows = parts["train"]
        if len(rows) < 2:
            problems.stop("training rows", f"expected at least 2, got {len(rows)}; add some")
            return parts
        train, val = hold_out(
            self._strata(rows, targets), groups=self._groups(rows), share=self.val, seed=self.seed,
            stratify=self.labels.target == "class",
        )  # fmt: skip
        return {**parts, "train": [rows[i] for i in train], "val": [rows[i] for i in val]}

    def _strata(self, rows: Sequence[Row], targets: dict[int, Tensor]) -> list[float]:
        return [float(targets[row.number].flatten()[0]) for row in rows]

    def _groups(self, rows: Sequence[Row]) -> list[str] | None:
        if self.group and self._has(self.group):
            return [str(row[self.group]) for row in rows]
        files = [str((self.copies and row.get(self.copies)) or row["path"]) for row in rows]
        # Pieces of a file stay together, where there are files enough to divide; else they are leaks, and said to be.
        return files if self.copies or 2 < len(set(files)) < len(files) else None
