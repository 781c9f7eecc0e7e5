"""The page docs/audio.md and the configs, on the real sets beside the project."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.audio import AudioManifest

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.slow


def test_timbre12_folds_hold_out_pitches_and_the_other_source_is_apart(shared_data):
    manifest = shared_data / "audio" / "TIMBRE12" / "manifest.csv"
    data = AudioManifest(str(manifest), apart=[0], fold=1)
    data.setup()
    assert data.folds == [1, 2, 3, 4, 5]
    source = {row["path"]: row["source"] for row in csv.DictReader(manifest.open())}
    ids = {part: {clip["id"] for clip in clips.clips} for part, clips in data.datasets.items()}
    assert len(ids["test"]) == 72
    assert len(ids["train"] | ids["val"]) == 288
    assert {source[name] for part in ids.values() for name in part} == {"philharmonia"}


def test_the_recipe_for_groove10_renders_what_the_config_needs(shared_data, tmp_path):
    code = re.search(r"```python\n(import csv.*?)```", (ROOT / "docs" / "audio.md").read_text(), re.S).group(1)
    (tmp_path / "render_groove10.py").write_text(code)
    for words in ([], ["mono"]):
        out = tmp_path / ("mono" if words else "kits")
        command = [sys.executable, tmp_path / "render_groove10.py", shared_data / "audio" / "GROOVE10", out, *words]
        subprocess.run(command, check=True)
        data = AudioManifest(str(out / "manifest.csv"), group="recording", copies="copy_of", fold=1, val=0.05)
        data.setup()
        assert data.folds == [1, 2, 3, 4]
        assert len(data.datasets["test"]) == 60
        assert len(data.datasets["train"]) + 6 * len(data.datasets["val"]) == 180 * 6
