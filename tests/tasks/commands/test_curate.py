"""Planted copies, leaks and strangers are found; nothing is written but what was asked for."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from toy import ROOT

from tasks.__main__ import main
from tasks.search.table import VectorTable, write_table

CONFIG = str(ROOT / "configs" / "audio" / "manifest.yaml")


@pytest.fixture
def clips(tmp_path, monkeypatch):
    """Twelve notes as a manifest: 0 and 1 of one content in two formats, 2 of training near test note 9."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tasks"])
    random, rows = np.random.default_rng(0), []
    Path("sounds").mkdir()
    for number in range(12):
        wave = (random.normal(size=4000) * 0.1).astype("f4").clip(-0.9, 0.9)
        soundfile.write(f"sounds/{number}.wav", wave, 16000, subtype="PCM_16")
        split = "test" if number >= 8 else "val" if number >= 6 else "train"
        rows.append({"path": f"sounds/{number}.wav", "label": "ab"[number % 2], "split": split})
    wave, rate = soundfile.read("sounds/0.wav", dtype="int16")
    soundfile.write("sounds/1.flac", wave, rate, subtype="PCM_16")
    rows[1] |= {"path": "sounds/1.flac", "label": "a"}
    with open("manifest.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    vectors = random.normal(size=(12, 8)).astype("f4")
    vectors[1] = vectors[0]
    vectors[2] = vectors[9] + 0.01
    vectors[3] = vectors[4] + 0.02
    write_table(Path("vectors.npz"), VectorTable([row["path"] for row in rows], vectors))
    flags = ["-c", CONFIG, "--data.manifest=manifest.csv", "--data.on_leak=warn"]
    return lambda *own: main(["curate", "--out", "out", *own, *flags])


def left():
    with open("out/left_out.csv") as file:
        return {row["id"]: (row["stage"], row["because of"]) for row in csv.DictReader(file)}


def test_a_dry_run_lists_and_writes_nothing(clips, capsys):
    before = sorted(Path().rglob("*"))
    clips("--duplicates")
    assert left() == {"sounds/1.flac": ("duplicates", "sounds/0.wav")}
    new = {path.relative_to("out").parts[0] for path in set(Path().rglob("*")) - set(before) - {Path("out")}}
    assert new <= {"index.html", "left_out.csv", "samples"}
    told = capsys.readouterr().out
    assert "duplicates: 1 copies in 1 groups (1 of the same content)" in told
    assert "a dry run: nothing is written but the report" in told
    page = Path("out/index.html").read_text()
    assert page.count("<audio") == page.count("<img") == 2  # to look at and to listen to, without a network


def test_all_stages_and_a_table_that_trains(clips, capsys):
    Path("seeds.txt").write_text("sounds/8.wav\nsounds/9.wav\nsounds/10.wav\nsounds/11.wav\nsounds/0.wav\n")
    clips("--vectors", "vectors.npz", "--whiten=0", "--duplicates", "--near=0.99", "--decontaminate", "--apply",
          "--relevant", "seeds.txt", "-k", "3")  # fmt: skip
    found = left()
    assert found["sounds/1.flac"] == ("duplicates", "sounds/0.wav")
    assert found["sounds/4.wav"] == ("duplicates", "sounds/3.wav")
    assert found["sounds/2.wav"] == ("duplicates", "sounds/9.wav")  # the test note stays
    page = Path("out/index.html").read_text()
    assert "2 copies of sounds/9.wav" in page
    assert all((Path("out") / name).is_file() for name in ("nearest.png", "decontaminated.png", "relevant.png"))
    with open("out/manifest.csv") as file:
        kept = list(csv.DictReader(file))
    assert len(kept) == 12 - len(found)
    assert all((Path("out") / row["path"]).is_file() for row in kept)
    assert {row["path"].rpartition("/")[2]: row["split"] for row in kept}["9.wav"] == "test"


def test_what_is_near_a_test_sample_goes_from_training(clips):
    clips("--vectors", "vectors.npz", "--whiten=0", "--decontaminate")
    assert left() == {"sounds/2.wav": ("decontaminate", "sounds/9.wav")}
    clips("--vectors", "vectors.npz", "--whiten=0", "--decontaminate", "--threshold=0.99999")
    assert left() == {}


def test_what_curate_cannot_do_is_said(clips):
    def says(*own):
        with pytest.raises(SystemExit) as stop:
            clips(*own)
        return str(stop.value)

    assert "expected --duplicates, --decontaminate or --relevant FILE, got none" in says()
    assert "--relevant compares what a network learned; give --vectors FILE" in says("--relevant", "seeds.txt")
    shutil.copy("vectors.npz", "few.npz")
    write_table(Path("few.npz"), VectorTable(["sounds/0.wav"], np.ones((1, 3), "f4")))
    assert "expected a vector of every sample, got none of 11 (sounds/1.flac, sounds/2.wav, sounds/3.wav)" in says(
        "--vectors=few.npz", "--decontaminate"
    )
    Path("seeds.txt").write_text("nobody\n")
    told = says("--vectors=vectors.npz", "--relevant=seeds.txt")
    assert "seeds.txt: expected ids of the samples, got 1 others: nobody" in told
    assert "no.txt: expected a file with an id of a seed" in says("--vectors=vectors.npz", "--relevant=no.txt")


def test_copies_are_found_by_fingerprints_without_a_network(clips, capsys):
    """A codec, a shift with another gain, and half the sampling rate; each beside eleven other noises."""
    wave, rate = soundfile.read("sounds/5.wav")
    soundfile.write("sounds/6.wav", 0.5 * np.roll(wave, 160), rate, subtype="PCM_16")
    clips("--duplicates", "--near=0.6", "--whiten=8")
    assert left() == {
        "sounds/1.flac": ("duplicates", "sounds/0.wav"),
        "sounds/5.wav": ("duplicates", "sounds/6.wav"),  # the validation part stays
    }
    assert "duplicates: 2 copies in 2 groups (1 of the same content)" in capsys.readouterr().out


def test_graphs_have_no_fingerprints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["-c", str(ROOT / "configs/graph/motifs.yaml"), "--data.train=12", "--data.val=4", "--data.test=4"]
    with pytest.raises(SystemExit, match=r"GraphTask has no fingerprints; give --vectors FILE"):
        main(["curate", "--out", "out", "--duplicates", "--near=0.9", *flags])


def test_graphs_without_a_table_get_a_split_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tasks"])
    sizes = ["--data.train=12", "--data.val=4", "--data.test=4"]
    main(["curate", "--out", "out", "--duplicates", "--apply", "-c", str(ROOT / "configs/graph/motifs.yaml"), *sizes])
    splits = json.loads(Path("out/splits.json").read_text())
    assert {part: len(ids) for part, ids in splits.items()} == {"train": 12, "val": 4, "test": 4}
