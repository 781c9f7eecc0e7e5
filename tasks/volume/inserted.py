"""Healthy heads, half of them with lesions of real shape put into them: is there one, and where?"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai import transforms as mt
from monai.data import MetaTensor
from torch.utils.data import Dataset

from tasks.data.base import Sample
from tasks.data.problems import BadInput, Problems
from tasks.data.splits import PARTS, split
from tasks.volume.checks import check_volume
from tasks.volume.formats import CSVData
from tasks.volume.lesions import Shape, insert, lesion_shapes
from tasks.volume.records import Record
from tasks.volume.transforms import Augment, augmentation, preprocessing

LOOK = Augment(flip=(0,), rotate=8.0, shift=2.0, bias_field=0.2, contrast=0.1, noise=0.02)


class InsertedLesionData(CSVData):
    """Healthy T1-weighted heads of a table, and lesions cut out of other people's masks: the truth is known.

    A sample is a new look at a head (moved, mirrored, with a bias field and noise of its own: ``augment`` holds for all
    parts here, or two heads to test on would be two healthy samples), and every second has lesions of one patient.
    Heads and masks are both split by fold: no head and no patient's lesions are in two parts. Training draws new
    lesions and looks in every epoch, from the training's seed, if it is ``fresh``; all else is fixed by ``seed``.

    Args:
        root: Table of the healthy heads; it needs no target.
        masks: Folder of lesion masks, one NIfTI file a patient.
        tissue: Column with the path of a mask of white matter, where lesions are put; without it the bright core of
            the brain is looked for, which takes T1-weighted heads.
        train: Number of training samples in an epoch, half of them with lesions.
        validate: Number of validation samples.
        test: Number of test samples.
        lesions: Fewest and most lesions put into a head.
        volume: Smallest and largest lesion taken, in mm³; masks without such a lesion are left out.
        contrast: Range of the relative change of intensity; negative is darker, as lesions are in T1-weighted images.
        edge: Standard deviation in mm of the Gaussian that blurs a lesion's outline.
        fresh: Draw new training samples in every epoch; otherwise ``train`` of them are drawn once and kept.
        augment: Random looks.
        options: See `CSVData` and `VolumeData`; ``size`` is cropped around the tissue.
    """

    def __init__(
        self,
        root: str,
        *,
        masks: str,
        tissue: str | None = None,
        train: int = 240,
        validate: int = 64,
        test: int = 64,
        lesions: tuple[int, int] = (3, 8),
        volume: tuple[float, float] = (500.0, 15000.0),
        contrast: tuple[float, float] = (-0.5, -0.3),
        edge: float = 1.5,
        fresh: bool = True,
        augment: Augment | None = LOOK,
        **options: Any,
    ):
        super().__init__(root, mask=tissue, target=[], task="classification", augment=None, fit="crop", **options)
        if self.geometry["size"] is None:
            raise ValueError("size: expected three numbers of voxels to crop around the tissue, got null; give them")
        self.geometry["fit"] = "brain"
        for name, low, high in (("lesions", *lesions), ("volume", *volume), ("contrast", *contrast)):
            if low > high:
                raise ValueError(f"{name}: expected the smaller number first, got [{low}, {high}]; turn them around")
        if lesions[0] < 1:
            raise ValueError(f"lesions: expected at least 1, got {lesions[0]}; healthy samples come by themselves")
        self.masks = Path(masks)
        self.counts = {"train": train, "val": validate, "test": test}
        self.insertion: dict[str, Any] = {"lesions": lesions, "contrast": contrast, "edge": edge}
        self.volume, self.look, self.fresh = volume, augment, fresh

    def records(self, problems: Problems) -> list[Record]:
        """One record a head; finds and checks the masks, too."""
        if not self.masks.is_dir():
            raise BadInput(f"folder of lesion masks {self.masks} does not exist; give --data.masks DIR")
        self.shapes: dict[str, list[Shape]] = {}
        for path in sorted(self.masks.rglob("*.nii*")):
            wrong = check_volume(path)
            if wrong:
                problems.add(f"mask {path.relative_to(self.masks)}", wrong)
                continue
            shapes = lesion_shapes(path, smallest=self.volume[0], largest=self.volume[1])
            if shapes:
                self.shapes[path.relative_to(self.masks).as_posix()] = shapes
        return super().records(problems)

    def _describe(self, records: list[Record], problems: Problems) -> None:
        for record in records:
            record.target = 0
        count = self.counts["train"]
        self._spec = {"kind": "binary", "classes": ["healthy", "lesion"], **self._input}
        self._spec["class_counts"] = [count // 2, count - count // 2]

    def _describe_training(self, parts: dict[str, list[Record]], problems: Problems) -> None:
        """Nothing: half of the samples have lesions."""

    def _test_all(self, records: list[Record]) -> dict[str, list[Record]]:
        """Keep to the split: masks are divided, too."""
        return self._split(records, Problems(self.source))

    def _split(self, records: list[Record], problems: Problems) -> dict[str, list[Record]]:
        """Divide the heads, and the masks as the heads are."""
        parts = super()._split(records, problems)
        self._divide_masks(problems)
        return parts

    def _divide_masks(self, problems: Problems) -> None:
        patients = list(self.shapes)
        try:
            inner = split(
                [0] * len(patients),
                folds=5 if self._fixed else self.n_folds,
                fold=0 if self._fixed else self.fold,
                val=self.val,
                seed=self.seed,
                stratify=False,
            )
        except BadInput as error:
            low, high = self.volume
            what = f"{len(patients)} have a lesion of {low:g} to {high:g} mm³: {error} (--data.folds), or add masks"
            problems.stop(f"masks of {self.masks.name}", what)
            return
        self.patients = {name: [patients[i] for i in members] for name, members in inner.items()}

    def samples(self, part: str) -> list[Sample]:
        """Each is a look at a head, and the head is its group."""
        heads = super().samples(part)
        if part == "predict":
            return heads
        looks = ((number, heads[_head(number, len(heads))]) for number in range(self.counts[part]))
        return [Sample(_name(head.id, number), head.group, head.columns, 1 - number % 2) for number, head in looks]

    def digests(self, part: str) -> list[int]:
        """By the head that is looked at."""
        heads = super().digests(part)
        if part == "predict":
            return heads
        return [heads[_head(number, len(heads))] for number in range(self.counts[part])]

    def _dataset(self, records: list[Record], part: str) -> Dataset[Any]:
        if part == "predict":
            return super()._dataset(records, part)
        return Inserted(
            self._cached(self._items(records, part), preprocessing(**self.geometry, mask=bool(self.mask))),
            [self.shapes[patient] for patient in self.patients[part]],
            count=self.counts[part],
            seed=None if part == "train" and self.fresh else self.seed + PARTS.index(part) * 1_000_003,
            look=augmentation(self.look, ["mask"]),
            **self.insertion,
        )


class Inserted(Dataset[dict[str, Any]]):
    """Looks at heads, every second with lesions, as the samples that `VolumeTask` expects.

    Args:
        heads: Samples of `AroundTissue`.
        shapes: The lesions of each patient.
        count: Number of samples.
        seed: Number ``i`` is always the same; None draws a new one from torch's generator each time.
        look: Random MONAI transforms of image and mask.
        lesions: Fewest and most lesions of a sample.
        contrast: Range of the relative change of intensity.
        edge: Blur of the outline in mm.
    """

    def __init__(
        self,
        heads: Dataset[Any],
        shapes: list[list[Shape]],
        *,
        count: int,
        seed: int | None,
        look: list[mt.Transform],
        lesions: tuple[int, int],
        contrast: tuple[float, float],
        edge: float,
    ):
        self.heads, self.shapes, self.count, self.seed = heads, shapes, count, seed
        self.look = mt.Compose(look)
        self.lesions, self.contrast, self.edge = lesions, contrast, edge
        self.kept: dict[int, dict[str, Any]] = {}

    def __len__(self) -> int:
        """Return the number of samples."""
        return self.count

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Return one sample; even numbers have lesions."""
        if not 0 <= number < self.count:
            raise IndexError(number)
        if self.seed is None:
            return self._draw(number, np.random.default_rng(int(torch.randint(2**62, ()))))
        if number not in self.kept:
            self.kept[number] = self._draw(number, np.random.default_rng([self.seed, number]))
        return self.kept[number]

    def _draw(self, number: int, generator: np.random.Generator) -> dict[str, Any]:
        head = self.heads[_head(number, len(self.heads))]  # type: ignore[arg-type]
        image, mask = head["image"][0].numpy(), np.zeros(head["image"].shape[1:], dtype=bool)
        zooms = tuple(head["affine"][:3, :3].norm(dim=0).tolist())
        if number % 2 == 0:
            patient = self.shapes[generator.integers(len(self.shapes))]
            for _ in range(generator.integers(self.lesions[0], self.lesions[1], endpoint=True)):
                image, added = insert(
                    image,
                    patient[generator.integers(len(patient))],
                    head["tissue"][0].numpy() & ~mask,
                    zooms=zooms,
                    contrast=generator.uniform(*self.contrast),
                    edge=self.edge,
                    generator=generator,
                )
                mask |= added
        both = {
            "image": MetaTensor(torch.from_numpy(image.copy())[None], affine=head["affine"]),
            "mask": MetaTensor(torch.from_numpy(mask.astype(np.uint8))[None], affine=head["affine"]),
        }
        self.look.set_random_state(int(generator.integers(2**31)))
        both = self.look(both)
        return {
            "image": both["image"].as_tensor().float().contiguous(),
            "mask": both["mask"].as_tensor() > 0,
            "target": 1 - number % 2,
            "id": _name(head["id"], number),
            "path": "",  # no file holds this image: it is written beside its map
            "affine": both["image"].affine,
        }


def _head(number: int, heads: int) -> int:
    """Which head a sample looks at: every head with and without lesions."""
    return number // 2 % heads


def _name(head: str, number: int) -> str:
    return f"{head.removesuffix('.gz').removesuffix('.nii')}_{number:04d}"
