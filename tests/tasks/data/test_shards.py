"""Shards against WebDataset itself, which reads them from end to end."""

import io
import json
import tarfile

import pytest
import webdataset

from tasks.data.problems import BadInput
from tasks.data.shards import find_shards, read_shards


def write(path, files):
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def written(tmp_path):
    """Shards that WebDataset wrote, its pattern of them, and the samples."""
    pattern = str(tmp_path / "part-%03d.tar")
    samples = [
        {"__key__": f"folder/{i:03d}", "flac": bytes([i]) * (i + 1), "json": {"speaker": f"s{i % 3}"}, "cls": i % 2}
        for i in range(25)
    ]
    with webdataset.ShardWriter(pattern, maxcount=10, verbose=0) as writer:
        for sample in samples:
            writer.write(sample)
    return tmp_path, samples


def test_the_index_has_what_webdataset_reads(written):
    folder, samples = written
    wanted = list(webdataset.WebDataset(str(folder / "part-{000..002}.tar"), shardshuffle=False))
    rows, members = read_shards(find_shards(str(folder / "part-{000..002}.tar")), [".flac"])
    assert len(rows) == len(wanted) == 25
    for row, sample, written_one in zip(rows, wanted, samples, strict=True):
        assert row["path"] == f"{sample['__url__'].rpartition('/')[2]}/{sample['__key__']}.flac"
        assert members[row["path"]].open().read() == sample["flac"] == written_one["flac"]
        assert {"speaker": row["speaker"]} == json.loads(sample["json"])
        assert row["label"] == sample["cls"].decode()


def test_shards_are_named_by_pattern_folder_or_file(written):
    folder, _ = written
    three = [folder / f"part-00{i}.tar" for i in range(3)]
    for pattern in ("part-{000..002}.tar", "*.tar", ""):
        assert find_shards(str(folder / pattern)) == three
    assert find_shards(str(folder / "part-{001..001}.tar")) == find_shards(str(three[1])) == three[1:2]
    assert find_shards(str(folder / "part-{000..007}.tar")) == three
    assert find_shards(str(folder / "other-*.tar")) == find_shards("table.csv") == []


def test_what_is_wrong_is_said_of_all_shards(tmp_path):
    good = write(tmp_path / "0.tar", {"a.flac": b"a", "b.json": b"{}", "c.flac": b"c", "c.wav": b"c"})
    packed = tmp_path / "1.tar"
    packed.write_bytes(b"\x1f\x8b" + b"no tar" * 200)
    broken = write(tmp_path / "2.tar", {"a.flac": b"a", "a.json": b"{"})
    listed = write(tmp_path / "3.tar", {"a.flac": b"a", "a.json": b"[1]"})
    cut = write(tmp_path / "4.tar", {"a.flac": b"a" * 5000})
    cut.write_bytes(cut.read_bytes()[:2000])
    with pytest.raises(BadInput) as caught:
        read_shards([good, packed, broken, listed, cut], [".flac", ".wav"])
    lines = str(caught.value).splitlines()
    assert lines[0] == "shards: 6 problems found"
    for line, (where, what) in zip(
        lines[1:],
        [
            ("0.tar/b", "expected one file with an ending of .flac, .wav, got none"),
            ("0.tar/c", "got c.flac, c.wav"),
            ("1.tar", "cannot be read as tar"),
            ("2.tar", "a.json cannot be read"),
            ("3.tar", "a.json: expected an object, got list"),
            ("4.tar", "truncated"),
        ],
        strict=True,
    ):
        assert line.strip().startswith(where + ": ")
        assert what in line


def test_samples_have_names_of_their_own(tmp_path):
    twice = write(tmp_path / "0.tar", {"a.flac": b"a", "b.flac": b"b", "a.json": b"{}"})
    with pytest.raises(BadInput, match=r"0\.tar/a: expected one file with an ending of \.flac, got none"):
        read_shards([twice], [".flac"])
    write(tmp_path / "0.tar", {"a.flac": b"a", "b.flac": b"b"})
    (tmp_path / "more").mkdir()
    write(tmp_path / "more" / "0.tar", {"a.flac": b"a"})
    with pytest.raises(BadInput, match=r"0\.tar/a\.flac: is there twice; give every sample a name of its own"):
        read_shards([tmp_path / "0.tar", tmp_path / "more" / "0.tar"], [".flac"])
    with pytest.raises(BadInput, match=r"expected samples in 0\.tar, got none"):
        read_shards([write(tmp_path / "0.tar", {})], [".flac"])
