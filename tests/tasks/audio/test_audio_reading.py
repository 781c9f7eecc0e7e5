"""Clips that are read when a batch needs them: the same numbers, and what is told without reading them."""

import warnings

import numpy as np
import pytest
import torch
import webdataset

from tasks.__main__ import main
from tasks.audio import AudioManifest
from tasks.audio.tables import Table
from tasks.data import checking
from tasks.data.problems import BadInput

LATER = {"cache": "none", "check": "sample"}


def parts(data):
    data.setup()
    return {name: {clip["id"]: clip for clip in dataset} for name, dataset in data.datasets.items()}


@pytest.mark.parametrize("check", ["all", "header", "sample"])
def test_clips_that_are_read_later_are_those_in_memory(tones, check):
    rows = [{**row, "start": 0.05 * (i % 2), "duration": 0.1} for i, row in enumerate(tones.rows)]
    kept = AudioManifest(tones.manifest(rows), fold=1)
    later = AudioManifest(tones.manifest(rows), fold=1, cache="none", check=check)
    wanted, found = parts(kept), parts(later)
    assert {name: list(clips) for name, clips in found.items()} == {name: list(clips) for name, clips in wanted.items()}
    for name, clips in wanted.items():
        for key, clip in clips.items():
            assert torch.equal(found[name][key]["wave"], clip["wave"])
            assert found[name][key]["target"] == clip["target"]
    assert all(wave is None for clips in later.datasets.values() for wave in clips.clips.waves)
    assert later.spec == kept.spec
    assert (later.digests("test") == kept.digests("test")) == (check == "all")
    batches = [[batch["wave"] for batch in one.val_dataloader()] for one in (kept, later)]
    assert all(torch.equal(*pair) for pair in zip(*batches, strict=True))


def test_what_is_read_before_training(tones, monkeypatch):
    heard, measured = [], []
    hear, measure = Table.hear, Table.measure
    monkeypatch.setattr(Table, "hear", lambda *args, **kw: (heard.append(args[1].number), hear(*args, **kw))[1])
    monkeypatch.setattr(Table, "measure", lambda *args: (measured.append(args[1].number), measure(*args))[1])
    monkeypatch.setattr(checking, "DRAWN", 5)
    for check, counts in (("all", (12, 0)), ("header", (0, 12)), ("sample", (5, 0))):
        heard.clear()
        measured.clear()
        AudioManifest(tones.manifest(), cache="none", check=check).setup()
        assert (len(heard), len(measured)) == counts
    with pytest.raises(
        ValueError, match="expected all where clips are kept in memory, for which all are read, got sample"
    ):
        AudioManifest(tones.manifest(), check="sample")


def test_headers_tell_what_is_missing_no_sound_or_too_short(tones):
    rows = [dict(row) for row in tones.rows]
    rows[1]["path"] = "gone.wav"
    rows[2]["duration"] = 9
    tones.write("03.wav", np.zeros(4000))  # silent: that is not in the header
    (tones.folder / "04.wav").write_text("no sound")
    with pytest.raises(BadInput) as caught:
        AudioManifest(tones.manifest(rows), cache="none", check="header").setup()
    found = str(caught.value)
    assert "3 problems" in found
    for row, what in ((2, "does not exist"), (3, "duration: expected more than 0"), (5, "cannot be read as audio")):
        assert any(f"row {row} " in line and what in line for line in found.splitlines())


def test_cells_are_looked_at_in_every_row(tones, monkeypatch):
    monkeypatch.setattr(checking, "DRAWN", 2)
    rows = [dict(row) for row in tones.rows]
    rows[4]["label"], rows[5]["start"] = "", "soon"
    with pytest.raises(BadInput, match=r"(?s)row 5 .*label is empty.*row 6 .*start: expected a number, got 'soon'"):
        AudioManifest(tones.manifest(rows), **LATER).setup()


@pytest.fixture
def spoilt(tones, monkeypatch):
    """Data of which one training clip cannot be read, which nobody has noticed."""
    monkeypatch.setattr(checking, "DRAWN", 0)

    def build(**options):
        data = AudioManifest(tones.manifest(), fold=1, batch_size=2, **LATER, **options)
        data.setup()
        row = data.datasets["train"].clips.rows[0]
        (tones.folder / row["path"]).write_text("no sound")
        return data, row

    return build


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_file_that_turns_out_bad_is_named(spoilt, workers):
    data, row = spoilt(num_workers=workers)
    with pytest.raises(BadInput) as caught:
        list(data.train_dataloader())
    last = str(caught.value).rpartition("BadInput: ")[2]
    assert last.startswith(f"{row.where}: cannot be read as audio")


def test_or_left_out(spoilt):
    data, row = spoilt(on_bad="skip")
    with pytest.warns(UserWarning, match=f"row {row.number} .*: left out: cannot be read as audio"):
        ids = [name for batch in data.train_dataloader() for name in batch["id"]]
    assert row["path"] not in ids
    assert len(ids) == len(data.datasets["train"]) - 1
    alone = AudioManifest(data.manifest, fold=1, batch_size=1, on_bad="skip", **LATER)
    alone.setup()
    warnings.simplefilter("ignore")
    with pytest.raises(BadInput, match="expected a batch with clips that can be read, got"):
        list(alone.train_dataloader())


@pytest.mark.parametrize("options", [{}, {"cache": "none", "check": "header"}, LATER], ids=["kept", "header", "later"])
def test_shards_hold_what_a_table_lists(tones, options):
    """WebDataset's writer packs the files of the table."""
    with webdataset.ShardWriter(str(tones.folder / "%03d.tar"), maxcount=5, verbose=0) as writer:
        for row in tones.rows:
            sound = (tones.folder / row["path"]).read_bytes()
            writer.write({"__key__": row["path"][:2], "wav": sound, "json": row})
    listed = AudioManifest(tones.manifest(), fold=1)
    wanted = parts(listed)
    for row in tones.rows:
        (tones.folder / row["path"]).unlink()
    packed = AudioManifest(str(tones.folder / "{000..002}.tar"), fold=1, **options)
    for name, clips in wanted.items():
        found = {key.rpartition("/")[2]: clip for key, clip in parts(packed)[name].items()}
        assert found.keys() == clips.keys()
        for key, clip in clips.items():
            assert torch.equal(found[key]["wave"], clip["wave"])
    assert packed.spec["classes"] == listed.spec["classes"]


SMALL = [
    "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu",
    "--model=tasks.audio.AudioTask", "--model.widths=[4]", "--model.mels=16", "--trainer.max_epochs=1",
    "--outputs.maps=0", "--outputs.every=0", "--data=tasks.audio.AudioManifest", "--data.fold=1", "--floors=false",
]  # fmt: skip


@pytest.mark.slow
def test_a_model_knows_its_samples_as_it_was_told_them(tones, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tasks"])
    table = f"--data.manifest={tones.manifest()}"
    later = ["--data.cache=none", "--data.check=sample"]
    for name, flags in (("index", later), ("content", [])):
        main(["fit", *SMALL, table, *flags, f"--run.name={name}"])
        assert torch.load(f"runs/{name}/version_0/checkpoints/best.ckpt", weights_only=True)["trained"][
            "told_by"
        ] == name  # fmt: skip
        for own in ([], later):  # whatever is read now
            with pytest.raises(SystemExit, match=r"was trained on \d of these"):
                main(["test", *SMALL, table, *own, f"--run.name={name}", "--data.fold=2"])
    main(["test", *SMALL, table, *later, "--run.name=content"])
    assert "check: all clips are read, as the model knows those" in caplog.text


def test_samples_that_are_told_otherwise_cannot_be_checked(tones, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tasks"])
    flags = [*SMALL, f"--data.manifest={tones.manifest()}"]
    main(["fit", *flags])
    main(["fit", *flags, "--ckpt_path=last", "--trainer.max_epochs=2", "--data.cache=none", "--data.check=header"])
    said = "knows its samples by content, these are told by index (--data.check), so that nothing can be checked"
    assert said in capsys.readouterr().out
