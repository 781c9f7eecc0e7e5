"""Small recordings on disk, made for each test."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

RATE = 16000


@pytest.fixture
def tones(tmp_path):
    """Twelve clips of three classes (100, 400 and 1600 Hz tones), two columns of groups, and a writer of manifests."""
    return Tones(tmp_path)


class Tones:
    """A folder of clips and the rows that list them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.rows = []
        generator = np.random.default_rng(0)
        for i in range(12):
            pitch = (100, 400, 1600)[i % 3]
            time = np.arange(RATE // 4 + 200 * i) / RATE
            self.write(
                f"{i:02d}.wav", np.sin(2 * np.pi * pitch * time) * 0.5 + 0.01 * generator.standard_normal(len(time))
            )
            self.rows.append({"path": f"{i:02d}.wav", "label": f"{pitch} Hz", "fold": i // 3, "player": f"p{i // 6}"})

    def write(self, name: str, samples, rate: int = RATE, **options) -> Path:
        path = self.folder / name
        soundfile.write(path, samples, rate, **options)
        return path

    def manifest(self, rows=None, name: str = "clips.csv") -> str:
        rows = self.rows if rows is None else rows
        path = self.folder / name
        with path.open("w", newline="") as file:
            columns = list(dict.fromkeys(key for row in rows for key in row))
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
        return str(path)
