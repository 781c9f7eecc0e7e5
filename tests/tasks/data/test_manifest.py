import json

import pytest

from tasks.data.manifest import read_manifest
from tasks.data.problems import BadInput

RECORDS = [{"path": "a.wav", "label": "oboe"}, {"path": "sub/b.wav", "label": "flute"}]


def write(folder, suffix):
    path = folder / f"clips{suffix}"
    if suffix in (".csv", ".tsv"):
        mark = "," if suffix == ".csv" else "\t"
        path.write_text(
            "\ufeff" + "".join(mark.join(cells) + "\n" for cells in [("path", "label"), *(r.values() for r in RECORDS)])
        )
    elif suffix == ".json":
        path.write_text(json.dumps(RECORDS))
    else:
        path.write_text("\n".join(json.dumps(record) for record in RECORDS))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl"])
def test_formats_agree(tmp_path, suffix):
    rows = read_manifest(write(tmp_path, suffix))
    assert [dict(row) for row in rows] == RECORDS
    assert rows[1].where == f"clips{suffix} row 2 (sub/b.wav)"
    assert rows[1].resolve() == (tmp_path / "sub" / "b.wav").resolve()


def test_json_keyed_by_id(tmp_path):
    path = tmp_path / "clips.json"
    path.write_text(json.dumps({"one": RECORDS[0], "two": RECORDS[1]}))
    assert [row["id"] for row in read_manifest(path)] == ["one", "two"]


def test_empty_and_not_available_are_missing(tmp_path):
    path = tmp_path / "clips.csv"
    path.write_text("path,label,fold\na.wav,oboe,\nb.wav,n/a,3\n")
    assert [(row["label"], row["fold"]) for row in read_manifest(path)] == [("oboe", None), (None, "3")]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        pytest.param("a.txt", "x", "expected .csv, .tsv, .json, .jsonl or .parquet, got '.txt'", id="format"),
        pytest.param("a.csv", "path,label\n", "expected at least one row, got none", id="empty"),
        pytest.param("a.csv", "file,label\na,b\n", "expected the column path, got file, label", id="column"),
        pytest.param(
            "a.csv", "path,label\na,b,c\n", "a.csv row 1: expected 2 cells as in the header, got more", id="cells"
        ),
        pytest.param("a.json", "{", "a.json: not valid JSON", id="json"),
        pytest.param("a.json", "[1]", "expected a list of objects", id="json-shape"),
        pytest.param("a.jsonl", '{"path": 1, "label": 2}\n{', "a.jsonl line 2: not valid JSON", id="jsonl"),
        pytest.param("a.jsonl", "3", "a.jsonl line 1: expected an object, got int", id="jsonl-shape"),
    ],
)
def test_bad_manifests_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput) as caught:
        read_manifest(tmp_path / name)
    assert message in str(caught.value)


def test_missing_manifest(tmp_path):
    with pytest.raises(BadInput, match="does not exist; give the path of a"):
        read_manifest(tmp_path / "none.csv")


def test_other_encoding(tmp_path):
    (tmp_path / "a.csv").write_bytes("path,label\na,Flöte\n".encode("latin-1"))
    with pytest.raises(BadInput, match="expected UTF-8 text"):
        read_manifest(tmp_path / "a.csv")


def test_what_is_missing_is_none_and_a_class_may_be_called_none(tmp_path):
    cells = ["", "NA", "NaN", "nan", "None", "null", "N/A", "n/a", "<NA>"]
    (tmp_path / "m.csv").write_text("path,label\n" + "".join(f"a.wav,{cell}\n" for cell in [*cells, "none", "Na"]))
    assert [row["label"] for row in read_manifest(tmp_path / "m.csv")] == [None] * 9 + ["none", "Na"]
    (tmp_path / "m.json").write_text('[{"path": "a.wav", "label": NaN}, {"path": "b.wav", "label": null}]')
    assert [row["label"] for row in read_manifest(tmp_path / "m.json")] == [None, None]
