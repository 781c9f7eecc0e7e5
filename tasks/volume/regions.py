"""What maps say of the regions of an atlas: sums a subject, and means and t values over subjects."""

import csv
import math
import re
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from torch import Tensor

from tasks.data.manifest import read_manifest
from tasks.data.problems import BadInput
from tasks.outputs.gallery import file_name
from tasks.outputs.predictions import safe
from tasks.task.decisions import Decision
from tasks.volume.batches import unpadded
from tasks.volume.checks import check_volume
from tasks.volume.maps import to_grid


class Regions:
    """Sums of maps over the regions of an atlas, and group maps on its grid.

    Each map is carried to the atlas's grid with its sum kept (`tasks.volume.maps.to_grid`), so that regions, what lies
    in none and what lies beyond the atlas add up to the map, and with the bias to the logit. Nothing is registered: the
    images have to lie in the atlas's space.

    Args:
        path: A volume of labels; its names stand beside it (`region_names`).

    Raises:
        BadInput: If it is no volume of whole numbers from 0.
    """

    def __init__(self, path: str):
        self.path = Path(path)
        wrong = check_volume(self.path)
        if wrong:
            raise BadInput(f"atlas {path}: {wrong}")
        image = nibabel.load(self.path)
        labels = np.asanyarray(image.dataobj).reshape(image.shape[:3])
        if (labels != np.rint(labels)).any() or labels.min() < 0:
            raise BadInput(f"atlas {path}: expected whole numbers from 0, got {labels.min():g} to {labels.max():g}")
        self.affine = image.affine
        self.numbers, place = np.unique(np.concatenate([[0], labels.ravel()]).astype(int), return_inverse=True)
        self.place = place[1:].reshape(labels.shape)
        names = region_names(self.path)
        self.names = [names.get(int(number), f"region {number}") for number in self.numbers[1:]]
        self.rows: list[tuple[Decision, list[float]]] = []
        self.groups: dict[str, list[np.ndarray]] = {}  # sum and sum of squares on the grid, by class
        self.counts: dict[str, int] = {}
        self.far: list[str] = []

    def add(self, batch: dict[str, Any], number: int, shown: Tensor, decision: Decision) -> None:
        """Add sample ``number`` of a batch and its map; in classification it belongs to its target's group."""
        values = shown.double().cpu().numpy()
        affine = batch["affine"][number].double().cpu().numpy()
        inside = unpadded(batch, "pool_mask")[number][0].cpu().numpy() > 0 if "pool_mask" in batch else None
        there = to_grid(values, affine, onto=self.affine, shape=self.place.shape, totals=True, inside=inside)
        sums = np.bincount(self.place.ravel(), weights=there.ravel(), minlength=len(self.numbers))
        total = float(values.sum())
        beyond = total - float(sums.sum())
        self.rows.append((decision, [*sums[1:].tolist(), float(sums[0]), beyond, total]))
        if np.abs(there).sum() < 0.5 * np.abs(values).sum():
            self.far.append(decision.id)
        group = "all" if math.isnan(decision.sure) else decision.target or f"predicted {decision.prediction}"
        first, second = self.groups.setdefault(group, [np.zeros(there.shape), np.zeros(there.shape)])
        first += there
        second += there**2
        self.counts[group] = self.counts.get(group, 0) + 1

    def write(self, folder: Path) -> list[Path]:
        """Write ``regions.csv``, and of each group ``*_mean.nii.gz`` and ``*_t.nii.gz`` (of two subjects or more).

        The t value tests against 0 that the mean over subjects is none, voxel by voxel: mean · √n / standard deviation;
        0 where all are the same. It is not corrected for the number of voxels.
        """
        folder.mkdir(parents=True, exist_ok=True)
        table = folder / "regions.csv"
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            known = ["id", "target", "prediction", "about", "bias", "gap"]
            writer.writerow([*known, *map(safe, self.names), "no region", "beyond the atlas", "sum"])
            for decision, sums in self.rows:
                facts = (decision.id, decision.target, decision.prediction, decision.about)
                numbers = (decision.bias, decision.missing, *sums)
                writer.writerow([*map(safe, facts), *(f"{number:.6g}" for number in numbers)])
        written = [table]
        for group, (first, second) in self.groups.items():
            count = self.counts[group]
            mean = first / count
            written.append(self._save(folder, group, "mean", mean, count))
            if count > 1:
                spread = np.sqrt((second / count - mean**2).clip(0) * count / (count - 1))
                same = spread <= 1e-7 * np.sqrt(second / count)  # rounding apart
                t = np.divide(mean * np.sqrt(count), spread, out=np.zeros_like(mean), where=~same)
                written.append(self._save(folder, group, "t", t, count))
        if self.far:
            names = ", ".join(self.far[:5]) + (f" and {len(self.far) - 5} more" if len(self.far) > 5 else "")
            print(f"{self.path.name}: more than half of the map lies beyond the atlas for {names}; register the images "
                  "to its space")  # fmt: skip
        return written

    def _save(self, folder: Path, group: str, kind: str, values: np.ndarray, count: int) -> Path:
        image = nibabel.Nifti1Image(values.astype(np.float32), self.affine)
        image.header["descrip"] = f"{kind} over {count} maps, {group}".encode()[:79]
        image.header.set_xyzt_units("mm")
        path = folder / f"{file_name(group)}_{kind}.nii.gz"
        nibabel.save(image, path)
        return path


def region_names(path: Path) -> dict[int, str]:
    """Names of labels from the file beside an atlas, of the same name but for the ending.

    ``.tsv`` or ``.csv`` with the columns ``index`` and ``name``, as BIDS has them, or ``.txt`` with a number and a name
    a line, as FreeSurfer's colour tables and ITK-SNAP's label descriptions have them. Regions of one name get their
    number beside it.

    Returns:
        By number; none where there is no such file.
    """
    stem = path.name.removesuffix(".gz").rpartition(".")[0]
    found: dict[int, str] = {}
    for ending in (".tsv", ".csv"):
        if (table := path.with_name(stem + ending)).is_file():
            rows = read_manifest(table, required=("index", "name"))
            found = {int(row["index"]): str(row["name"]) for row in rows if row.get("name") is not None}
    if not found and (table := path.with_name(f"{stem}.txt")).is_file():
        for line in table.read_text(encoding="utf-8").splitlines():
            if match := re.match(r'\s*(\d+)\s+(?:.*"([^"]+)"|(\S+))', line):
                found[int(match[1])] = match[2] or match[3]
    names = list(found.values())
    return {number: f"{name} ({number})" if names.count(name) > 1 else name for number, name in found.items()}
