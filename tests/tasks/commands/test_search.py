"""Embed, then search: by an id and by what is read from a file, in all three modalities."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from toy import ROOT

from tasks.__main__ import main
from tasks.search.table import read_table

PLAIN = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--outputs.bootstrap=0"]
PLAIN += ["--outputs.maps=0", "--outputs.every=0", "--floors=false"]
SMALL = {
    "graph/motifs": ["--data.train=24", "--data.val=6", "--data.test=8", "--model.hidden=8", "--model.layers=2"],
    "audio/timbre": ["--data.train=2", "--data.val=1", "--data.test=1", "--model.widths=[4,6]", "--model.mels=24"],
    "volume/lesions": ["--data.train=6", "--data.val=4", "--data.test=4", "--data.size=16", "--model.width=4"],
}


@pytest.fixture
def walked(request, tmp_path, monkeypatch):
    """A table of a config's samples, and the flags that name the data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tasks"])
    flags = ["-c", str(ROOT / "configs" / f"{request.param}.yaml"), "--run.name=small", *SMALL[request.param]]
    main(["fit", *flags, *PLAIN, "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.callbacks=null"])
    main(["embed", *flags, "--format=npz"])
    return Path("runs/small/version_0/embeddings.npz"), flags


def answers(folder):
    with (folder / "neighbours.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("walked", SMALL, indirect=True)
def test_a_walk_from_samples_to_those_like_them(walked, capsys):
    table, flags = walked
    read = read_table(table)
    asked = read.ids[-1]
    main(["search", "--index", str(table), "--query", asked, "-k", "3", "--output", "found", *flags])
    rows = answers(Path("found"))
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert asked not in [row["id"] for row in rows]
    assert float(rows[0]["similarity"]) >= float(rows[2]["similarity"])
    assert rows[0]["target"] == read.columns["target"][read.row(rows[0]["id"])]
    page = Path("found/index.html").read_text()
    pictures = sorted(Path("found/samples").glob("*.png"))
    assert len(pictures) == 4
    assert all(picture.name in page for picture in pictures)
    sounds = sorted(Path("found/samples").glob("*.wav"))
    assert len(sounds) == (4 if "audio" in flags[1] else 0)
    main(["search", "--index", str(table), "--query", asked, "-k", "1"])  # into the run's folder, whose report says so
    assert '<a href="search_0/index.html">' in table.with_name("report.html").read_text()
    main(
        [
            "curate",
            "--out",
            "curated",
            "--vectors",
            str(table),
            "--near=0.9",
            "--duplicates",
            "--decontaminate",
            "--threshold=0.9",
            *flags,
        ]
    )
    assert "samples" in Path("curated/index.html").read_text()
    if sounds:  # the clip itself is a query, too, and finds itself
        main(["search", "--index", str(table), "--query", str(sounds[0]), "-k", "1", "--output", "heard"])
        (row,) = answers(Path("heard"))
        assert (row["id"], float(row["similarity"])) == (asked, pytest.approx(1, abs=1e-3))


@pytest.mark.parametrize("walked", ["graph/motifs"], indirect=True)
def test_what_cannot_be_searched_is_said(walked, capsys):
    table, _ = walked
    read = read_table(table)

    def says(*args):
        with pytest.raises(SystemExit) as stop:
            main(["search", "--index", str(table), *args])
        return str(stop.value)

    assert "expected --query or --save, got neither" in says()
    assert "expected -k from 1, got 0" in says("--query", read.ids[0], "-k", "0")
    both = says("--query", "nowhere/X-1", "nothing.txt")
    assert both.startswith("error: these queries cannot be answered:")
    assert "nowhere/X-1: neither an id of the index nor readable" in both
    assert "nothing.txt: neither an id" in both
    main(["search", "--index", str(table), "--save", "index", "--whiten", "0"])
    assert "index of 38 vectors (exact): index" in capsys.readouterr().out
    main(["search", "--index", "index", "--query", read.ids[0], read.ids[1], "-k", "2", "--output", "saved"])
    rows = answers(Path("saved"))
    assert [row["query"] for row in rows] == [read.ids[0]] * 2 + [read.ids[1]] * 2
    x = read.vectors / np.linalg.norm(read.vectors, axis=1, keepdims=True)
    best = np.sort(np.delete(x @ x[0], 0))[-1]
    assert float(rows[0]["similarity"]) == pytest.approx(float(best), abs=1e-5)
    told = json.loads(Path("index/about.json").read_text())
    (Path("index") / "about.json").write_text(json.dumps({**told, "about": {**told["about"], "digest": 1}}))
    with pytest.raises(SystemExit, match="is not the checkpoint that made index"):
        main(["search", "--index", "index", "--query", "other.txt"])
    del told["about"]["checkpoint"]
    (Path("index") / "about.json").write_text(json.dumps(told))
    with pytest.raises(SystemExit, match="index does not say which checkpoint made it; give --ckpt_path FILE"):
        main(["search", "--index", "index", "--query", "other.txt"])
