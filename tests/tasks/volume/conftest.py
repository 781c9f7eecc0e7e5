import csv

import nibabel
import numpy as np
import pytest


@pytest.fixture
def save_nifti(tmp_path):
    """Write an array as NIfTI under tmp_path and return the path."""

    def save(name, data=None, affine=None):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if data is None:
            data = np.random.default_rng(len(name) + sum(map(ord, name))).normal(100, 20, (8, 9, 7)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(data, np.eye(4) if affine is None else affine), path)
        return path

    return save


@pytest.fixture
def save_table(tmp_path):
    """Write rows (dicts) as CSV or TSV under tmp_path and return the path."""

    def save(name, rows):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if name.endswith(".tsv") else ",")
            writer.writeheader()
            writer.writerows(rows)
        return path

    return save
