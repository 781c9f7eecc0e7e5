"""From a list of images to checked, split, transformed and cached datasets; the lists come from `formats`."""

from abc import abstractmethod
from copy import copy
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info
from monai.data import DataLoader as MonaiLoader
from monai.data.utils import set_rnd
from monai.transforms import Compose, RandomizableTrait
from torch.utils.data import Dataset

from tasks.data.base import Sample
from tasks.data.checking import Check, drawn
from tasks.data.leaks import Identity
from tasks.data.problems import BadInput, Problems
from tasks.data.problems import listed as listed_lines
from tasks.data.splits import PARTS, split
from tasks.data.trained import ToldBy
from tasks.volume.base import Volumes
from tasks.volume.cache import Cache, cached
from tasks.volume.checks import Role, Wanted, look_at_all
from tasks.volume.covariates import take_off
from tasks.volume.files import Orientation
from tasks.volume.load import BODIES, MISSING, DropSequences
from tasks.volume.records import EMPTY, Record, bad_files, is_split, names_of, number_of
from tasks.volume.sites import leave_site_out, site_names
from tasks.volume.targets import SINGLE, bad_targets, describe_training
from tasks.volume.transforms import Augment, Fit, Intensity, Pad, augmentation, preprocessing


class VolumeData(Volumes):
    """Volumes with targets, from files.

    Args:
        target: Column (or columns) to predict. Several columns are several numbers to predict, or, in classification,
            several yes/no labels that hold 0 and 1.
        task: Whether the target is a class or a number.
        size: Voxels of the network's input: right-left, anterior-posterior, superior-inferior; with null every volume
            keeps its own, and a batch may hold several sizes.
        spacing: Voxel size in mm to resample to; leave it out to keep the files' own.
        fit: Crop or pad around the centre to ``size``, or stretch the field of view to it.
        pad: What is put around volumes smaller than ``size``: zeros, or the outermost voxels.
        intensity: How each volume is normalised: its 0.5th to 99.5th percentile to 0 to 1, or (clipped to the same)
            to mean 0 and standard deviation 1.
        augment: Random changes of the training volumes; none if left out.
        cache: Where preprocessed volumes are kept: nowhere, in memory, or as files.
        cache_dir: Folder of ``cache: disk``; each setting of the preprocessing gets a folder of its own in it.
        folds: Number of folds, where the data bring no split; None = 5.
        val: Share of the training part that validates, where the data bring no validation part.
        check: What is read before training: every voxel; only the headers (faster, but misses truncated files and NaN);
            or the voxels of a thousand images drawn at random, where copies under other names are not noticed either.
        orientation: Whether a file whose header does not say how its voxels lie is a problem, or is taken to lie as
            nibabel guesses.
        missing: What to do where a subject lacks some of several sequences: name it, or take zeros in its place.
        drop: With zeros, the chance that a sequence of a training sample is left out (modality dropout, Neverova et al.
            2016), so that the network learns to do without.
        leave_out: Column whose values are the folds, such as site: all of one tests, the others train. None = random.
        covariates: Columns with commas between, such as age,sex, whose linear part is taken off the target of
            regression (`tasks.volume.covariates`).
        pool_mask: Pool over these voxels alone, and let maps be zero outside: ``foreground`` (what is not 0),
            ``otsu`` (the head or body, without air), or the column with the path of a mask of any grid in the same
            space, such as a brain mask. None = all voxels.
        base: Batch size, workers, fold, seed, on_bad.
    """

    loader_class = MonaiLoader  # seeds the random transforms of its workers
    volumes = 1
    """Volumes in each file, where one file holds several sequences."""

    def __init__(
        self,
        *,
        target: str | list[str] = "label",
        task: Literal["classification", "regression"] = "classification",
        size: tuple[int, int, int] | None = (96, 96, 96),
        spacing: tuple[float, float, float] | None = None,
        fit: Fit = "crop",
        pad: Pad = "constant",
        intensity: Intensity = "percentile",
        augment: Augment | None = None,
        cache: Cache = "memory",
        cache_dir: str = "cache",
        folds: int | None = None,
        val: float = 0.15,
        check: Check = "all",
        orientation: Orientation = "check",
        missing: Literal["error", "zero"] = "error",
        drop: float = 0.2,
        pool_mask: str | None = None,
        leave_out: str | None = None,
        covariates: str | list[str] | None = None,
        **base: Any,
    ):
        super().__init__(**base)
        self.targets = [target] if isinstance(target, str) else list(target)
        self.task = task
        shape = None if size is None else tuple(size)
        self.geometry: dict[str, Any] = {
            "size": shape,
            "spacing": spacing,
            "fit": fit,
            "pad": pad,
            "intensity": intensity,
            "pool_mask": pool_mask,
        }
        self.augment = augment
        self.cache, self.cache_dir = cache, Path(cache_dir)
        self.asked_folds, self.n_folds, self.val = folds, 5 if folds is None else folds, val
        self.check: Check = check
        self.orientation: Orientation = orientation
        self.missing, self.drop = missing, drop
        self.leave_out, self.covariates = leave_out, [] if covariates is None else names_of(covariates)
        if self.covariates and task != "regression":
            raise ValueError("covariates: expected regression, whose target they are taken off, got classification")
        self.pool_column = None if pool_mask in BODIES else pool_mask

    @abstractmethod
    def records(self, problems: Problems) -> list[Record]:
        """List the images; report what cannot be listed. ``part`` is set where the data bring a split."""

    @property
    @abstractmethod
    def source(self) -> str:
        """What is read, for the headline of a report."""

    @property
    @abstractmethod
    def channels(self) -> list[str]:
        """Names of the sequences, which are the channels of the network's input."""

    @property
    def folds(self) -> list[int]:
        """All folds, or one for a split that came with the data."""
        listed = self.records(Problems(self.source))  # what is wrong is reported when they are read
        if self.leave_out:
            return list(range(len(site_names(listed, self.leave_out))))
        return [0] if is_split(listed) else list(range(self.n_folds))

    @property
    def fold_names(self) -> dict[int, str]:
        """The sites, where one is left out."""
        if not self.leave_out:
            return {}
        return dict(enumerate(site_names(self.records(Problems(self.source)), self.leave_out)))

    def load(self) -> None:
        """List, check, split; nothing is trained before everything is known to be usable."""
        problems = Problems(self.source, on_bad=self.on_bad)
        own: ToldBy = "index" if self.check == "sample" else "content"
        self.told_by = own if self.trained is None else self.trained.told_by
        listed = self.records(problems)
        total = len(listed) + len(problems.samples)
        good = self._checked(listed, problems)
        self._fixed = is_split(good)
        if self._fixed and self.asked_folds is not None:
            what = f"expected none where the data bring a split, got {self.asked_folds}"
            problems.stop("folds", f"{what}; leave --data.folds out, or set --data.split null")
        labelled = [record for record in good if record.part != "predict"]
        self._describe(labelled, problems)
        new = self.all_new([self._content(record) for record in labelled])
        parts = self._test_all(labelled) if new else self._split(labelled, problems)
        if not problems.fatal:
            parts = self.without_leaks(parts, self.identity, problems)
        if self.covariates and not problems.fatal:
            self._spec["covariates"] = take_off(parts, self.covariates, self.targets, self.trained)
        if self.trained is None:
            self._describe_training(parts, problems)
        problems.finish(total=total)
        self._spec = {**self._spec, "preprocessing": self.geometry} if self.trained is None else self.trained.spec
        parts["predict"] = [record for record in good if record.part == "predict"]
        self.datasets = {name: self._dataset(members, name) for name, members in parts.items() if members}
        self._records = parts
        self._samples = {
            name: [
                Sample(record.id, record.subject, record.values, None if name == "predict" else record.target)
                for record in members
            ]
            for name, members in parts.items()
        }

    def identity(self, record: Record) -> Identity:
        """What tells a record from others."""
        target = record.target.tolist() if isinstance(record.target, torch.Tensor) else [record.target]
        keys = {"content": self._content(record), "file": str(record.path), "subject": record.subject}
        return Identity(record.id, record.where, keys, tuple(target))

    def _checked(self, listed: list[Record], problems: Problems) -> list[Record]:
        looked_at = drawn(listed, self.check, self.seed)
        roles: dict[Path, Role] = {record.pool_mask: "inside" for record in looked_at if record.pool_mask}
        roles |= {record.mask: "mask" for record in looked_at if record.mask}
        roles |= {file: "image" for record in looked_at for file in record.there}
        size = self.geometry["size"] if self.geometry["fit"] == "crop" else None
        seen = look_at_all(
            roles,
            voxels=self.check != "header",
            volumes=self.volumes,
            orientation=self.orientation,
            wanted=Wanted(self.geometry["spacing"], size),
        )
        found = {file: one.wrong for file, one in seen.items()}
        odd = [f"{file.name}: {one.odd}" for file, one in seen.items() if one.odd]
        if odd:
            (rank_zero_info if self.trained is None else self.unsaid.append)(
                f"{self.source}: {len(odd)} file{'s' * (len(odd) > 1)} to look at\n{listed_lines(odd, 10)}"
            )
        good = []
        for record in listed:
            wrong = list(bad_files(record, self.channels, self.missing, found))
            if record.part != "predict":
                needed = [*self.covariates, *([self.leave_out] if self.leave_out else [])]
                wrong += bad_targets(record.values, self.targets, self.task, self.trained)
                wrong += [EMPTY.format(column) for column in needed if record.values.get(column) is None]
            for what in wrong:
                problems.add(record.where, what)
            if not wrong:
                good.append(record)
        return good

    def _describe(self, records: list[Record], problems: Problems) -> None:
        """Set each record's target, and the spec's kind and classes."""
        if self.task == "regression" or len(self.targets) > 1:
            kind = "regression" if self.task == "regression" else "multilabel"
            if self.trained is not None:
                self.trained.accept(kind, self.targets)
            self._spec = {"kind": kind, "classes": list(self.targets), **self._input}
            for record in records:
                record.target = torch.tensor([number_of(record.values[column]) for column in self.targets])
            return
        if self.trained is not None:
            self.trained.accept("multiclass")
        names = self.order_classes(problems, (str(record.values[self.targets[0]]) for record in records))
        if len(names) < 2:
            problems.stop(
                f"column {self.targets[0]}", f"expected two or more classes, got {names}; choose another target"
            )
        elif self.trained is None and len(names) > max(20, len(records) // 2):
            what = f"{len(names)} classes in {len(records)} rows; to predict a number add --data.task regression"
            problems.stop(f"column {self.targets[0]}", what)
        self._spec = {"kind": "binary" if len(names) <= 2 else "multiclass", "classes": names, **self._input}
        for record in records:
            record.target = names.index(str(record.values[self.targets[0]]))

    @property
    def _input(self) -> dict[str, Any]:
        return {"channels": len(self.channels), "images": self.channels, "volumes": self.volumes,
                "orientation": self.orientation}  # fmt: skip

    def _test_all(self, records: list[Record]) -> dict[str, list[Record]]:
        """Everything tests a model that has seen nothing of it, unless the data mark it otherwise."""
        return {name: [one for one in records if (one.part if self._fixed else "test") == name] for name in PARTS}

    def _split(self, records: list[Record], problems: Problems) -> dict[str, list[Record]]:
        """Keep the split of the data, with a validation part taken from training if it has none; else make folds."""
        if self.leave_out:
            share = {"share": self.val, "seed": self.seed, "stratify": self._spec["kind"] in SINGLE}
            parts = leave_site_out(records, self.leave_out, self.fold, problems, **share)
        elif self._fixed:
            parts = {name: [record for record in records if record.part == name] for name in PARTS}
            if not parts["val"] and parts["train"]:
                # One fold of the training part validates: its "test" part, the other two train.
                rest, folds = parts["train"], max(2, round(1 / self.val))
                inner = self._folds(rest, problems, folds=folds, fold=0)
                parts["train"] = [rest[i] for name in ("train", "val") for i in inner[name]]
                parts["val"] = [rest[i] for i in inner["test"]]
        else:
            inner = self._folds(records, problems, folds=self.n_folds, fold=self.fold)
            parts = {name: [records[i] for i in inner[name]] for name in PARTS}
        if problems.fatal or self.trained is not None:  # without a split, or a need of training, all parts are well
            return parts
        for name, members in parts.items():
            if not members:
                problems.stop("split", f"no image in the {name} part; put {name} into the split column of some")
        return parts

    def _folds(self, records: list[Record], problems: Problems, *, folds: int, fold: int) -> dict[str, list[int]]:
        """Fold numbers of the records, grouped by subject; everything trains where there are too few for folds."""
        subjects = len({record.subject for record in records})
        try:
            if subjects < max(3, folds):
                raise BadInput(
                    f"expected at least {max(3, folds)} subjects for {folds} folds, got {subjects}; choose fewer folds"
                )
            return split(
                [record.target if self._spec["kind"] in SINGLE else 0 for record in records],
                groups=[record.subject for record in records],
                folds=folds,
                fold=fold,
                val=self.val,
                seed=self.seed,
                stratify=self._spec["kind"] in SINGLE,
            )
        except BadInput as error:
            problems.stop("split", f"{error} (--data.folds), or add a split column")
            return {"train": list(range(len(records))), "val": [], "test": []}

    def _describe_training(self, parts: dict[str, list[Record]], problems: Problems) -> None:
        """Put class counts or the target's scale into the spec, from the training part alone."""
        describe_training(self._spec, parts, problems)

    def _dataset(self, records: list[Record], part: str) -> Dataset[Any]:
        masked, inside = any(record.mask for record in records), self.geometry["pool_mask"] is not None
        masks = [*["mask"] * masked, *["pool_mask"] * inside]
        steps = preprocessing(**self.geometry, mask=masked)
        if part == "train":
            steps += augmentation(self.augment, masks)
            if self.missing == "zero" and self.drop and len(self.channels) > 1:
                steps.append(DropSequences(self.drop))
        return self._cached(self._items(records, part), steps)

    def _items(self, records: list[Record], part: str) -> list[dict[str, Any]]:
        return [
            {
                "image": [MISSING if file is None else str(file) for file in record.files],
                "path": str(record.path),
                "id": record.id,
                # A prediction needs no target; NaN says that there is none.
                "target": torch.full((len(self.targets),), float("nan")) if part == "predict" else record.target,
                **{name: str(mask) for name in ("mask", "pool_mask") if (mask := getattr(record, name))},
            }
            for record in records
        ]

    def still(self, part: str) -> Dataset[Any]:
        """Leave random transforms out, and keep what is cached of the others."""
        dataset: Any = self.datasets[part]
        if not isinstance(getattr(dataset, "transform", None), Compose):
            return self.datasets[part]
        dataset = copy(dataset)
        steps = dataset.transform.transforms
        dataset.transform = Compose([step for step in steps if not isinstance(step, RandomizableTrait)])
        still: Dataset[Any] = dataset
        return still

    def digests(self, part: str) -> list[int]:
        """By the files."""
        return [self._content(record) for record in self._records[part]]

    def _content(self, record: Record) -> int:
        return record.digest(self.told_by)

    def reseed(self, seed: int) -> None:
        """MONAI's random transforms have generators of their own."""
        super().reseed(seed)
        set_rnd(getattr(self.datasets["train"], "transform", None), seed % 2**32)

    def _cached(self, items: list[dict[str, Any]], steps: list[Any]) -> Dataset[Any]:
        return cached(items, Compose(steps), self.cache, self.cache_dir, self.geometry)
