"""A trained model on another corpus in one command: other columns, folders, rates, fewer classes, no labels."""

import csv
import json

import numpy as np
import pytest
from undrawn import undrawn  # noqa: F401

from tasks.__main__ import main
from tasks.audio import AudioManifest
from tasks.data.problems import BadInput

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"]
SMALL = ["--model.widths=[4]", "--model.mels=16", "--trainer.max_epochs=1", "--outputs.maps=0", "--outputs.every=0"]
SMALL += ["--floors=false"]


@pytest.fixture
def trained(tones, tmp_path, monkeypatch):
    """A command line, after a model of three tones was trained with folds and groups of players."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tasks"])
    config = {
        "run": {"name": "own"},
        "model": {"class_path": "tasks.audio.AudioTask", "init_args": {}},
        "data": {
            "class_path": "tasks.audio.AudioManifest",
            "init_args": {"manifest": tones.manifest(), "fold_column": "fold", "group": "player", "val": 0.3},
        },
    }
    (tmp_path / "own.yaml").write_text(json.dumps(config))
    run = lambda command, *flags: main([command, "-c", "own.yaml", *QUIET, *SMALL, *flags])  # noqa: E731
    run("fit")
    return run


def other(tones, rows, ending="csv"):
    """Another corpus, in a folder of its own, at 44.1 kHz in stereo."""
    folder = tones.folder / "elsewhere" / "deep"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(7)
    for number, _ in enumerate(rows):
        wave = np.sin(2 * np.pi * 400 * np.arange(22050) / 44100)[:, None] + generator.standard_normal((22050, 2)) * 0.1
        tones.write(f"elsewhere/deep/{number}.flac", wave * 0.3, rate=44100)
    return tones.manifest(rows, name=f"elsewhere/other.{ending}")


def predictions(tmp_path):
    newest = max((tmp_path / "runs" / "own").glob("version_*"), key=lambda path: int(path.name[8:]))
    with (newest / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def test_rows_that_all_test_with_other_columns_and_fewer_classes(trained, tones, tmp_path):
    rows = [
        {"filename": f"deep\\{i}.flac", "label": "400 Hz", "split": "test", "onset": 0, "offset": 0.3} for i in range(4)
    ]
    rows[2]["label"] = "100 Hz"
    trained("test", f"--data.manifest={other(tones, rows)}")
    found = predictions(tmp_path)
    assert [one["target"] for one in found] == ["400 Hz", "400 Hz", "100 Hz", "400 Hz"]
    assert {"p(100 Hz)", "p(400 Hz)", "p(1600 Hz)"} <= set(found[0])


def test_rows_without_a_label_are_predicted(trained, tones, tmp_path):
    """Where there is no column of labels, and where some cells are empty."""
    rows = [{"wav": f"deep/{i}.flac"} for i in range(3)]
    without = other(tones, rows)
    some = tones.manifest([{**row, "label": "400 Hz" if i else ""} for i, row in enumerate(rows)], "elsewhere/some.csv")
    for path in (without, some):
        trained("predict", f"--data.manifest={path}")
        found = predictions(tmp_path)
        assert sorted(one["id"] for one in found) == ["deep/0.flac", "deep/1.flac", "deep/2.flac"]
        assert {one["prediction"] for one in found} <= {"100 Hz", "400 Hz", "1600 Hz"}
    trained("test", f"--data.manifest={some}")
    assert [one["target"] for one in predictions(tmp_path)] == ["400 Hz"] * 2
    with pytest.raises(SystemExit, match="expected samples to test, got none"):
        trained("test", f"--data.manifest={without}")


def test_rows_to_predict_may_stand_in_the_table_that_trains(tones, tmp_path, monkeypatch):
    rows = [{**one, "split": ["train", "test"][i > 8]} for i, one in enumerate(tones.rows)]
    rows[0] |= {"split": "predict", "label": ""}
    data = AudioManifest(tones.manifest(rows))
    data.setup()
    assert [sample.id for sample in data.samples("predict")] == ["00.wav"]
    assert sum(len(data.samples(part)) for part in ("train", "val", "test")) == 11


def test_a_table_that_only_asks_trains_nothing(tones):
    with pytest.raises(BadInput, match="rows: expected some with a label to learn from, got none; add them"):
        AudioManifest(tones.manifest([{**one, "split": "predict"} for one in tones.rows])).setup()
