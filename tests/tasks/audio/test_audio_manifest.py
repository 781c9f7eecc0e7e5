import json
from argparse import Namespace

import numpy as np
import pytest

from tasks.audio import AudioManifest
from tasks.commands.runs import start
from tasks.data.problems import BadInput


def names(data, part):
    return {clip["id"] for clip in data.datasets[part].clips}


def test_the_held_out_fold_tests_and_validation_comes_from_training(tones):
    data = AudioManifest(tones.manifest(), fold=2, val=0.25)
    assert data.folds == [0, 1, 2, 3]
    assert data.spec["classes"] == ["100 Hz", "1600 Hz", "400 Hz"]
    assert names(data, "test") == {"06.wav", "07.wav", "08.wav"}
    assert names(data, "train") | names(data, "val") == {f"{i:02d}.wav" for i in range(12)} - names(data, "test")
    assert not names(data, "train") & names(data, "val")
    assert sum(data.spec["class_counts"]) == data.spec["train_size"] == len(names(data, "train"))
    assert {int(clip["target"]) for clip in data.datasets["val"].clips} == {0, 1, 2}


def test_a_fold_apart_is_only_ever_tested(tones):
    data = AudioManifest(tones.manifest(), fold=2, apart=[0])
    assert data.folds == [1, 2, 3]
    data.setup()
    apart = {"00.wav", "01.wav", "02.wav"}
    assert not apart & (names(data, "train") | names(data, "val") | names(data, "test"))
    other = AudioManifest(tones.manifest(), fold=0, apart=[0])
    other.setup()
    assert names(other, "test") == apart


def test_folds_may_be_names(tones):
    data = AudioManifest(tones.manifest(), fold_column="player", fold=1)
    data.setup()
    assert data.folds == [0, 1]
    assert names(data, "test") == {f"{i:02d}.wav" for i in range(6, 12)}
    players = {row["path"]: row["player"] for row in tones.rows}
    assert {players[name] for name in names(data, "test")} == {data.fold_names[1]}
    chosen = start("crossval", Namespace(folds=list(data.fold_names.values())[::-1], seeds=None), data)
    assert chosen["folds"] == [1, 0]
    with pytest.raises(BadInput, match=r"expected --folds of .*, which the data have, got nobody"):
        start("crossval", Namespace(folds=["nobody"], seeds=None), data)


def test_named_folds_go_before_a_split(tones, capfd):
    parts = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    path = tones.manifest([{**row, "split": part} for row, part in zip(tones.rows, parts, strict=True)])
    by_split = AudioManifest(path)
    assert by_split.folds == [0]
    by_player = AudioManifest(path, fold_column="player", fold=0)
    by_player.setup()
    assert by_player.folds == [0, 1]
    assert names(by_player, "test") == {f"{i:02d}.wav" for i in range(6)}
    with pytest.raises(BadInput, match="expected the column singer, got"):
        AudioManifest(path, fold_column="singer").setup()


def test_groups_are_not_divided_between_training_and_validation(tones):
    rows = [{**row, "take": row["fold"]} for row in tones.rows]
    data = AudioManifest(tones.manifest(rows), fold=0, group="take", val=0.3)
    data.setup()
    takes = {row["path"]: row["take"] for row in rows}
    assert not {takes[name] for name in names(data, "train")} & {takes[name] for name in names(data, "val")}


def test_a_given_split_is_kept(tones):
    parts = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    data = AudioManifest(tones.manifest([{**row, "split": part} for row, part in zip(tones.rows, parts, strict=True)]))
    assert data.folds == [0]
    data.setup()
    assert names(data, "val") == {"06.wav", "07.wav", "08.wav"}
    assert names(data, "test") == {"09.wav", "10.wav", "11.wav"}


def test_without_split_and_fold_there_are_five_folds_that_cover_everything(tones):
    rows = [{"path": row["path"], "label": "ab"[i % 2]} for i, row in enumerate(tones.rows[:10])]
    tested = []
    for fold in range(5):
        data = AudioManifest(tones.manifest(rows), fold=fold)
        assert data.folds == [0, 1, 2, 3, 4]
        assert data.spec["kind"] == "binary"
        tested += names(data, "test")
    assert sorted(tested) == [row["path"] for row in rows]


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_json_reads_as_csv_does(tones, ending):
    lines = [json.dumps(row) for row in tones.rows]
    text = "\n".join(lines) if ending == "jsonl" else json.dumps({row["path"]: row for row in tones.rows})
    (tones.folder / f"clips.{ending}").write_text(text)
    data, other = AudioManifest(str(tones.folder / f"clips.{ending}"), fold=1), AudioManifest(tones.manifest(), fold=1)
    assert data.spec == other.spec
    assert names(data, "test") == names(other, "test")


def test_parts_of_one_file_are_clips_of_their_own(tones):
    tones.write("long.wav", np.random.default_rng(0).standard_normal(32000) * 0.1)
    rows = [{"path": "long.wav", "label": "ab"[i % 2], "start": 0.2 * i, "duration": 0.2} for i in range(10)]
    data = AudioManifest(tones.manifest(rows))
    data.setup()
    clips = [clip for part in data.datasets.values() for clip in part.clips]
    assert len({clip["id"] for clip in clips}) == 10
    assert {len(clip["wave"]) for clip in clips} == {3200}


def test_several_labels_and_numbers(tones):
    several = [{**row, "label": f"all|{row['label']}"} for row in tones.rows]
    data = AudioManifest(tones.manifest(several), target="multilabel", val=0.34)
    assert data.spec["kind"] == "multilabel"
    assert data.spec["classes"] == ["100 Hz", "1600 Hz", "400 Hz", "all"]
    assert data.spec["class_counts"][3] == data.spec["train_size"]
    rated = [{**row, "label": float(i)} for i, row in enumerate(tones.rows)]
    data = AudioManifest(tones.manifest(rated), target="regression", fold=3)
    targets = [float(clip["target"]) for clip in data.datasets["train"].clips] if data.spec else []
    assert data.spec["target_mean"] == pytest.approx([np.mean(targets)])
    assert data.spec["target_std"] == pytest.approx([np.std(targets, ddof=1)])


def spoiled(tones):
    """A manifest with one row of every bad kind."""
    tones.write("silent.wav", np.zeros(800))
    tones.write("nan.wav", np.array([0.1, np.nan]), subtype="FLOAT")
    (tones.folder / "broken.wav").write_text("nothing")
    bad = [
        {"path": "gone.wav", "label": "100 Hz", "fold": 0},
        {"path": "silent.wav", "label": "100 Hz", "fold": 0},
        {"path": "nan.wav", "label": "100 Hz", "fold": 0},
        {"path": "broken.wav", "label": "100 Hz", "fold": 0},
        {"path": "00.wav", "label": "100 Hz", "fold": 0, "start": 9},
        {"path": "00.wav", "label": "100 Hz", "fold": 0, "start": "late"},
        {"path": "01.wav", "label": "", "fold": 0},
        {"path": "02.wav", "label": "100 Hz", "fold": "x", "start": 0.01},
        {"path": "00.wav", "label": "100 Hz", "fold": 3},
    ]
    return tones.manifest([*tones.rows, *bad])


def test_everything_bad_is_in_one_report(tones):
    with pytest.raises(BadInput) as report:
        AudioManifest(spoiled(tones), fold=0, on_leak="error").setup()
    lines = str(report.value).splitlines()
    for number, what in [
        (13, "(gone.wav): file does not exist"),
        (14, "(silent.wav): silent"),
        (15, "(nan.wav): 1 samples are NaN or inf"),
        (16, "(broken.wav): cannot be read as audio"),
        (17, "(00.wav): start: expected 0 to 0.250 s"),
        (18, "(00.wav): start: expected a number, got 'late'"),
        (19, "(01.wav): label is empty"),
        (20, "(02.wav): fold: expected one of [0, 1, 2, 3], got 'x'"),
        (1, "(00.wav): is in test, with the same content as clips.csv row 21 (00.wav) in "),
    ]:
        assert any(f"clips.csv row {number} " in line and what in line for line in lines), (number, what, lines)
    assert "9 problems found" in lines[0]
    assert "--data.on_bad skip" in lines[-1]


def test_skip_leaves_them_out_and_says_so(tones):
    data = AudioManifest(spoiled(tones), fold=1, on_bad="skip")
    with pytest.warns(UserWarning, match="of 21 samples left out"):
        data.setup()
    left = [clip["id"] for part in data.datasets.values() for clip in part.clips]
    assert sorted(set(left)) == [row["path"] for row in tones.rows]


def test_a_class_without_a_training_clip_is_found(tones):
    rows = [{**row, "label": "only here" if row["fold"] == 1 else row["label"]} for row in tones.rows]
    with pytest.raises(BadInput, match="class only here: has no training sample"):
        AudioManifest(tones.manifest(rows), fold=1).setup()


def test_one_class_is_not_a_task(tones):
    rows = [{**row, "label": "a"} for row in tones.rows]
    with pytest.raises(BadInput, match="column label: expected at least two classes, got a"):
        AudioManifest(tones.manifest(rows), fold=1).setup()


def test_an_unknown_split_word_and_a_missing_part_are_found(tones):
    rows = [{**row, "split": "train" if row["fold"] else "practice"} for row in tones.rows]
    with pytest.raises(BadInput) as report:
        AudioManifest(tones.manifest(rows)).setup()
    assert "clips.csv row 1 (00.wav): split: expected train, val or test, got 'practice'" in str(report.value)
    assert "column split: expected a usable row with 'test', got none" in str(report.value)


@pytest.mark.parametrize("options", [{"fold": 7}, {"fold": 0, "apart": [7]}])
def test_an_unknown_fold_names_those_that_are_there(tones, options):
    with pytest.raises(BadInput, match="which are 0, 1, 2, 3, got 7; correct fold or apart"):
        AudioManifest(tones.manifest(), **options).setup()


def test_a_missing_column_names_those_that_are_there(tones):
    with pytest.raises(BadInput, match="expected the column instrument, got path, label, fold, player"):
        AudioManifest(tones.manifest(), label="instrument").setup()


@pytest.mark.parametrize("columns", [["fold"], []], ids=["folds", "random folds"])
def test_copies_train_and_nothing_else_and_not_where_their_recording_is_held_out(tones, columns):
    rows = [{key: value for key, value in row.items() if key in ("path", "label", *columns)} for row in tones.rows]
    generator = np.random.default_rng(1)
    for row in list(rows):
        tones.write("copy_" + row["path"], generator.standard_normal(800) * 0.1)
        rows.append({**row, "path": "copy_" + row["path"], "made_from": row["path"]})
    data = AudioManifest(tones.manifest(rows), copies="made_from", fold=2, val=0.25)
    data.setup()
    held_out = names(data, "val") | names(data, "test")
    assert not any(name.startswith("copy_") for name in held_out)
    trained = {name for name in names(data, "train") if not name.startswith("copy_")}
    assert {name for name in names(data, "train") if name.startswith("copy_")} == {"copy_" + name for name in trained}
    assert trained | held_out == {row["path"] for row in tones.rows}
