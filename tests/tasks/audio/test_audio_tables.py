"""Tables and folders of recordings as other people write them: columns, times, paths, names."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tasks.audio import AudioManifest
from tasks.audio.folders import read_folder
from tasks.audio.paths import COLUMNS, locate
from tasks.audio.times import part_of
from tasks.data.manifest import Row
from tasks.data.problems import BadInput


def row(**cells):
    return Row(cells, manifest=Path("a.csv"), number=1)


def clips(data):
    data.setup()
    return {clip["id"]: clip["wave"] for part in data.datasets.values() for clip in part.clips}


@pytest.fixture
def long(tones):
    """A file of 4 s at 8 kHz, and its samples."""
    wave = np.random.default_rng(0).standard_normal(32000).astype(np.float32) * 0.1
    tones.write("long.wav", wave, rate=8000, subtype="FLOAT")
    return torch.from_numpy(wave)


@pytest.mark.parametrize("column", COLUMNS[1:])
def test_the_path_column_goes_by_many_names(tones, column):
    rows = [{column: one["path"], "label": one["label"], "fold": one["fold"]} for one in tones.rows]
    assert set(clips(AudioManifest(tones.manifest(rows), fold=1))) == {one["path"] for one in tones.rows}


def test_any_other_is_named(tones):
    rows = [{"sound": one["path"], "label": one["label"], "fold": one["fold"]} for one in tones.rows]
    with pytest.raises(
        BadInput, match=r"expected the column path \(or file, wav, .*got sound, label, fold; name yours, --da"
    ):
        AudioManifest(tones.manifest(rows)).setup()
    assert len(clips(AudioManifest(tones.manifest(rows), path_column="sound"))) == 12
    with pytest.raises(BadInput, match="expected the column take, got sound, label, fold"):
        AudioManifest(tones.manifest(rows), path_column="take").setup()


@pytest.mark.parametrize(
    ("cells", "first", "last"),
    [
        ({"start": 1, "end": 1.5}, 1, 1.5),
        ({"start": 1, "stop": 1.5}, 1, 1.5),
        ({"onset": 1, "offset": 1.5}, 1, 1.5),
        ({"onset": 1, "duration": 0.5}, 1, 1.5),
        ({"end": 0.5}, 0, 0.5),
        ({"start": 1, "end": 1.5, "duration": 0.5}, 1, 1.5),
        ({"start": 3.5}, 3.5, 4),
        ({"start": 3, "end": 4.005}, 3, 4),  # rounded beyond the end
    ],
)
def test_the_end_of_a_part_is_where_the_clip_ends(tones, long, cells, first, last):
    rows = [{"path": "long.wav", "label": "ab"[i % 2], **cells} for i in range(10)]
    found = clips(AudioManifest(tones.manifest(rows), sample_rate=8000, on_leak="warn"))
    (wave,) = {tuple(one.tolist()) for one in found.values()}
    assert wave == tuple(long[round(first * 8000) : round(last * 8000)].tolist())


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"start": 2, "end": 1}, "end: expected more than the start, 2, got 1"),
        ({"start": 0, "end": 2, "duration": 1}, "contradict each other; correct the row, or.*--data.times samples"),
        ({"start": 0, "end": 2, "stop": 3}, "end 2 and stop 3 are two words for one thing"),
        ({"offset": 2, "duration": 1}, "offset: some tables call a clip's start so, others its end; rename"),
        ({"end": "late"}, "end: expected a number, got 'late'"),
    ],
)
def test_times_that_contradict_are_said(cells, message):
    with pytest.raises(ValueError, match=message):
        part_of(row(**cells))


@pytest.mark.parametrize("column", ["wav", "sig"])
def test_speechbrain_json_counts_samples_of_the_file(tones, long, column):
    table = {
        f"id{i}": {
            column: {"file": "{data_root}/long.wav", "start": 800 * i, "stop": 800 * i + 400},
            "duration": 0.05, "length": 4.0, "spk_id": "ab"[i % 2],
        }
        for i in range(10)
    }  # fmt: skip
    (tones.folder / "train.json").write_text(json.dumps(table))
    path_column = None if column == "wav" else column
    data = AudioManifest(str(tones.folder / "train.json"), label="spk_id", sample_rate=8000, path_column=path_column)
    found = clips(data)
    assert len(found) == 10
    assert torch.equal(found["{data_root}/long.wav@1600"], long[1600:2000])


def test_a_table_may_count_samples(tones, long):
    rows = [{"path": "long.wav", "label": "ab"[i % 2], "start": 800 * i, "stop": 800 * i + 400} for i in range(10)]
    found = clips(AudioManifest(tones.manifest(rows), sample_rate=16000, times="samples"))
    assert {len(wave) for wave in found.values()} == {800}  # of the file's 8 kHz
    with pytest.raises(BadInput, match=r"start: expected 0 to 4.000 s"):
        AudioManifest(tones.manifest(rows), sample_rate=16000).setup()


def test_paths_start_at_the_table_or_at_a_root(tones, tmp_path):
    (tmp_path / "tables").mkdir()
    lists = tones.manifest(name="tables/clips.csv")
    with pytest.raises(
        BadInput, match=r"\(00.wav\): file does not exist in .*tables; .*give the folder with --data.ro"
    ):
        AudioManifest(lists).setup()
    assert len(clips(AudioManifest(lists, root=str(tmp_path), fold=1))) == 12


@pytest.fixture
def corpus(tmp_path):
    """A folder with sub/a.wav, and a.flac."""
    (tmp_path / "sub").mkdir()
    for name in ("sub/a.wav", "b.flac"):
        soundfile.write(tmp_path / name, np.ones(10), 8000)
    return tmp_path


def test_paths_of_other_systems_lead_to_the_file(corpus):
    there = (corpus / "sub" / "a.wav").resolve()
    for text in ("sub/a.wav", r"sub\a.wav", str(there), there.as_uri(), "{data_root}/sub/a.wav"):
        assert locate(text, corpus) == there
    assert locate(r"D:\mine\sub\a.wav", corpus, strip=r"D:\mine") == there
    assert locate("/mnt/mine/sub/a.wav", corpus, strip="/mnt/mine/") == there


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (r"C:\data\sub\a.wav", r"sub/a.wav is in .*: leave the beginning out with --data.strip 'C:\\data'"),
        ("/mnt/data/sub/a.wav", "sub/a.wav is in .*: leave the beginning out with --data.strip '/mnt/data'"),
        (r"C:\data\x.wav", "is a path of a Windows machine; write paths relative to .* with --data.root and --data.st"),
        ("/mnt/x.wav", "file does not exist; write paths relative to"),
        ("https://zenodo.org/a.wav", "is a URL, and nothing is downloaded; download the file and give its path"),
        ("s3://bucket/a.wav", "is a URL"),
        ("sub", "is a folder; name a file in it"),
        ("b", "file does not exist, but b.flac does; correct the path"),
        ("B.FLAC", "file does not exist, but b.flac does"),
        ("c.wav", "file does not exist in .*; correct the path, leave it out, or give the folder with --data.root"),
        ("a" * 5000, "cannot be a path"),
    ],
)
def test_paths_that_lead_nowhere_are_answered(corpus, text, message):
    with pytest.raises(ValueError, match=message):
        locate(text, corpus)


def test_names_of_files_say_what_they_are(tones, caplog):
    folder = tones.folder / "recordings"
    folder.mkdir()
    for i, one in enumerate(tones.rows):
        name = f"{one['label'].split()[0]}_{('ann', 'ben', 'cem')[i // 4]}_{i}.wav"
        (tones.folder / one["path"]).rename(folder / name)
    data = AudioManifest(str(folder), pattern="{label}_{player}_{take}.wav", fold_column="player", fold=1)
    assert data.spec["classes"] == ["100", "400", "1600"]
    assert data.fold_names == {0: "ann", 1: "ben", 2: "cem"}
    assert {sample.columns["player"] for sample in data.samples("test")} == {"ben"}
    assert {sample.id for sample in data.samples("test")} == {path.name for path in folder.glob("*_ben_*")}
    with pytest.raises(
        BadInput, match=r"expected sound files named as \{label\}/\*\*, got 100_ann_0.wav, .*--data.patt"
    ):
        AudioManifest(str(folder)).setup()
    with pytest.raises(BadInput, match=r"pattern \{label\}_\*: expected \{player\} in it"):
        AudioManifest(str(folder), pattern="{label}_*", fold_column="player").setup()


def test_folders_may_be_classes(tones):
    for one in tones.rows:
        folder = tones.folder / "set" / one["label"]
        folder.mkdir(parents=True, exist_ok=True)
        (tones.folder / one["path"]).rename(folder / one["path"])
    (tones.folder / "set" / "readme.txt").write_text("")
    soundfile.write(tones.folder / "set" / "noise.wav", np.ones(10), 8000)
    rows = read_folder(tones.folder / "set")
    assert [(one["path"], one["label"]) for one in rows[:2]] == [
        ("100 Hz/00.wav", "100 Hz"),
        ("100 Hz/03.wav", "100 Hz"),
    ]
    assert len(rows) == 12


def test_files_that_leave_bands_empty_are_said(tones, caplog):
    for one in tones.rows[:5]:
        wave, _ = soundfile.read(tones.folder / one["path"])
        tones.write(one["path"], wave[::2], rate=8000)
    with caplog.at_level("INFO"):
        AudioManifest(tones.manifest(), fold=1).setup()
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "5 of 12 files have a lower rate than 16000 Hz (5 at 8000 Hz): above half of their rate their" in said
    assert "classes that have more of them can be told by that; --data.sample_rate 8000 takes no more than" in said
    caplog.clear()
    with caplog.at_level("INFO"):
        AudioManifest(tones.manifest(), fold=1, sample_rate=8000).setup()
    assert "lower rate" not in "\n".join(record.getMessage() for record in caplog.records)
