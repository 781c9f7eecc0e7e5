"""``python -m tasks match``: from a manifest with captions to two tables, and a search across the towers."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from toy import ROOT

from tasks.__main__ import main
from tasks.commands.inner import own_options
from tasks.commands.match import INNER
from tasks.match.task import load_match
from tasks.search.table import read_table

CONFIGS = ["-c", str(ROOT / "configs/audio/timbre12.yaml"), "-c", str(ROOT / "configs/audio/match.yaml")]
SMALL = ["--data.manifest=manifest.csv", "--data.apart=null", "--data.batch_size=8", "--model.widths=[4,6]",
         "--model.mels=24", "--model.mixup=0", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu",
         "--trainer.enable_model_summary=false", "--trainer.max_epochs=2", "--run.name=small"]  # fmt: skip


@pytest.fixture
def tones(tmp_path, monkeypatch):
    """Tones of eight pitches, of two sounds, loud and soft."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tasks"])
    t, rows = np.arange(4000) / 16000, []
    for pitch in range(8):
        for label, wave in (("flute", np.sin), ("buzzer", lambda x: np.sign(np.sin(x)))):
            for dynamic, gain in (("loud", 0.8), ("soft", 0.1)):
                name = f"{label}{pitch}{dynamic}.wav"
                soundfile.write(name, gain * wave(2 * np.pi * 200 * 1.2**pitch * t), 16000)
                split = "test" if pitch > 5 else "val" if pitch > 4 else "train"
                rows.append({"path": name, "label": label, "pitch": f"P{pitch}", "dynamic": dynamic, "split": split})
    with open("manifest.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_a_walk_from_pairs_to_a_search_by_words(tones, capsys):
    main(["match", *CONFIGS, *SMALL])
    folder = Path("runs/small/version_0")
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["candidates"], summary["different"]) == (8, 8)
    rows = summary["test"]
    assert rows[0]["pairs"] == "two towers"
    assert [row["pairs"] for row in rows[1:]] == ["ridge, log-mel over time", "ridge, MFCC", "ridge, coarse log-mel"]
    assert all(row["R@1"] <= row["R@5"] <= row["R@10"] == 1.0 for row in rows)
    assert summary["zero-shot"]["classes"] == 2
    assert "8 test pairs, 8 of them different" in capsys.readouterr().out
    (table,) = folder.glob("samples.*")
    read, texts = read_table(table), read_table(folder / f"texts{table.suffix}")
    assert len(read.ids) == 32
    assert read.columns["text"][read.row("flute0loud.wav")] == "flute P0 loud"
    np.testing.assert_allclose(np.linalg.norm(texts.vectors, axis=1), 1, atol=1e-5)

    main(
        ["search", "--index", str(table), "--query", "flute P3 soft", "flute0loud.wav", "-k", "2", "--output", "found"]
    )
    with Path("found/neighbours.csv").open() as file:
        found = list(csv.DictReader(file))
    model = load_match(folder / "checkpoints" / "best.ckpt")
    scores = read.vectors @ model.others(["flute P3 soft"])[0].detach().numpy()
    assert found[0]["id"] == read.ids[scores.argmax()]
    assert float(found[0]["similarity"]) == pytest.approx(scores.max(), abs=1e-4)
    assert found[2]["id"] != "flute0loud.wav"
    main(["search", "--index", str(texts_of(folder)), "--query", "./flute0loud.wav", "-k", "1", "--output", "back"])
    with Path("back/neighbours.csv").open() as file:
        (back,) = csv.DictReader(file)
    own = read.vectors[read.row("flute0loud.wav")]
    assert back["id"] == texts.ids[(texts.vectors @ own).argmax()]


def texts_of(folder):
    (path,) = folder.glob("texts.*")
    return path


@pytest.mark.parametrize("args", [[], ["--help"]])
def test_help_names_its_own_options(args, capsys):
    main(["match", *args])
    out = capsys.readouterr().out
    for section, (_, kind) in INNER.items():
        assert all(f"--{section}.{name} VALUE" in out for name in own_options(kind))


def test_what_is_wrong_is_said_before_training(tones):
    def says(*flags):
        with pytest.raises(SystemExit) as stop:
            main(["match", *CONFIGS, *SMALL, *flags])
        return str(stop.value)

    assert "clips" not in says("--ckpt_path=x.ckpt")
    assert "a training of two towers begins anew" in says("--ckpt_path=x.ckpt")
    assert "expected nowhere in its row, which the captions name" in says(
        "--data.texts.init_args.template={label} {nowhere}"
    )
