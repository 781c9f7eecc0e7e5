"""The walk of docs/audio.md, by its own commands, on generated voices: tones in a noise that is the speaker's own."""

import csv
import json
import re
import shlex

import numpy as np
import pytest
import soundfile
from toy import ROOT
from undrawn import unchosen, undrawn  # noqa: F401

from tasks.__main__ import main

QUICK = [
    "--model.widths=[6,6]", "--model.mels=24", "--model.mixup=0", "--model.mask_bands=0", "--model.pitch=0",
    "--model.mask_frames=0", "--model.lr=0.01", "--data.batch_size=4", "--trainer.max_epochs=4", "--outputs.maps=0",
    "--outputs.mistakes=0", "--outputs.bootstrap=5", "--outputs.every=0", "--data.sample_rate=4000",
    "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
]  # fmt: skip
PITCHES = {"3": 250, "5": 700, "7": 1400}


def commands():
    """The words of each command of the walk, with the config where it is."""
    page = (ROOT / "docs" / "audio.md").read_text(encoding="utf-8")
    block = re.search(r"## A walk: .*?```\n(.*?)```", page, flags=re.DOTALL)[1]
    lines = [line.partition(" # ")[0] for line in block.splitlines()]
    return [[word.replace("configs/", f"{ROOT}/configs/") for word in shlex.split(line)[3:]] for line in lines]


def say(path, digit, seed, rate=8000):
    """Write a digit of somebody, which lasts 0.2 s or a little more."""
    generator = np.random.default_rng(seed)
    time = np.arange(int(rate * generator.uniform(0.2, 0.3))) / rate
    tone = np.sin(2 * np.pi * PITCHES[digit] * generator.uniform(0.95, 1.05) * time)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.3 * tone + 0.05 * generator.standard_normal(len(time)), rate)


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder with recordings of four speakers, another corpus at 44.1 kHz, and a folder of unknown digits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tasks"])
    for speaker, name in enumerate(("jackson", "lucas", "nicolas", "theo")):
        for digit in PITCHES:
            for take in (0, 1, 32):
                say(tmp_path / "recordings" / f"{digit}_{name}_{take}.wav", digit, 1000 * speaker + take)
    table = []
    for number, digit in enumerate("3737"):  # fewer classes, other columns
        say(tmp_path / "other" / "audio" / f"{number}.flac", digit, 77 + number, rate=44100)
        table.append({"file": rf"audio\{number}.flac", "label": digit, "onset": 0, "offset": 0.18, "singer": "ann"})
        say(tmp_path / "new" / f"mail{number}.wav", digit, 99 + number, rate=16000)
    (tmp_path / "other" / "clips.json").write_text(json.dumps(table))
    return tmp_path


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_digits_by_voices_that_were_not_heard(work, capsys):
    floors, crossval, fit, explain, test, predict = commands()
    runs = work / "runs" / "audio" / "digits"

    main([*floors, *QUICK])
    assert "MFCC" in capsys.readouterr().out
    assert {row["fold"] for row in table(runs / "floors_0" / "floors.csv")} == {"0", "1"}

    main([*crossval, *QUICK])
    said = capsys.readouterr().out
    lines = [line.split() for line in said.splitlines()]
    by_name = {line[0]: float(line[2]) for line in lines if line and line[0] in ("jackson", "lucas")}
    assert set(by_name) == {"jackson", "lucas"}
    assert "this network" in said
    assert "majority" in said
    assert np.mean(list(by_name.values())) > 0.6  # a third is chance
    for fold, name in enumerate(("jackson", "lucas")):
        split = {row["id"]: row["part"] for row in table(runs / "crossval_0" / f"fold_{fold}_seed_0" / "split.csv")}
        assert {one.split("_")[1] for one, part in split.items() if part == "test"} == {name}
        heard = {part: {one.split("_")[1] for one in split if split[one] == part} for part in ("train", "val")}
        assert not heard["train"] & heard["val"]

    main([*fit, *QUICK, "--floors=false", "--trainer.max_epochs=1"])
    best = runs / "version_0" / "predictions.csv"
    assert {row["group"] for row in table(best)} == {"jackson"}
    capsys.readouterr()

    main(explain)
    said = capsys.readouterr().out
    assert "7_jackson_32.wav" in said
    assert list((runs / "version_0").glob("explained_0/*.png"))

    main([*test, *QUICK])
    found = table(runs / "version_1" / "predictions.csv")
    assert [row["target"] for row in found] == ["3", "7", "3", "7"]
    assert {"p(3)", "p(5)", "p(7)"} <= set(found[0])

    main([*predict, *QUICK])
    assert [row["id"] for row in table(runs / "version_2" / "predictions.csv")] == [f"mail{i}.wav" for i in range(4)]
