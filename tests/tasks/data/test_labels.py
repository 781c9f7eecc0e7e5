"""Which class is positive, and what is said before training."""

from pathlib import Path

import pytest
import torch

from tasks.audio import AudioManifest
from tasks.data.describe import describe
from tasks.data.labels import order_classes
from tasks.data.problems import BadInput
from tasks.graph import MotifData


@pytest.mark.parametrize(
    ("counts", "positive", "why"),
    [
        ({"0": 10, "1": 90}, "1", "the larger number"),
        ({"1": 10, "-1": 90}, "1", "the larger number"),
        ({"10": 1, "9": 1}, "10", "the larger number"),
        ({"mass": 229, "normal": 69}, "mass", "'normal' says"),
        ({"Yes": 3, "No": 1}, "Yes", "'No' says"),
        ({"AD": 69, "CN": 229}, "AD", "the rarer class"),
        ({"a": 229, "z": 69}, "z", "the rarer class"),
        ({"left": 5, "right": 5}, "right", "perhaps it is the other"),
    ],
)
def test_the_positive_class_is_last(counts, positive, why):
    classes, because = order_classes(counts)
    assert classes[1] == positive
    assert why in because
    other = next(name for name in counts if name != positive)
    assert order_classes(counts, other).classes == [positive, other]


def test_many_classes_have_no_positive_one():
    assert order_classes({"b": 1, "10": 2, "9": 3}) == (["9", "10", "b"], "")
    with pytest.raises(BadInput, match="expected one of two classes, got 'b' and the classes 9, 10, b; name one"):
        order_classes({"b": 1, "10": 2, "9": 3}, "b")
    with pytest.raises(BadInput, match="got 'c' and the classes a, b"):
        order_classes({"a": 1, "b": 2}, "c")


def _manifest(folder, labels):
    import soundfile

    lines = ["path,label,player"]
    for i, label in enumerate(labels):
        wave = torch.rand(800, generator=torch.Generator().manual_seed(i)).numpy() - 0.5
        soundfile.write(folder / f"{i}.wav", wave, 8000)
        lines.append(f"{i}.wav,{label},p{i // 4}")
    (folder / "m.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "m.csv")


def test_a_manifest_says_its_parts(tmp_path):
    path = _manifest(tmp_path, ["mass"] * 10 + ["normal"] * 30)
    data = AudioManifest(path, sample_rate=8000, group="player")
    lines = list(describe(data))
    assert lines[0] == "positive class: mass ('normal' says that there is nothing); --data.positive NAME chooses"
    assert [line.split(":")[0] for line in lines[1:4]] == ["train", "val", "test"]
    for part, line in zip(("train", "val", "test"), lines[1:4], strict=True):
        samples = data.samples(part)
        counts = [sum(int(sample.target) == label for sample in samples) for label in (0, 1)]
        groups = len({sample.group for sample in samples})
        assert line == f"{part}: {len(samples)} samples; normal {counts[0]}, mass {counts[1]}; {groups} groups"
    chosen = AudioManifest(path, sample_rate=8000, group="player", positive="normal")
    assert next(describe(chosen)).startswith("positive class: normal (as asked)")
    assert chosen.spec["class_counts"] == data.spec["class_counts"][::-1]
    assert [int(s.target) for s in chosen.samples("test")] == [1 - int(s.target) for s in data.samples("test")]


def test_a_part_with_one_class_is_named(tmp_path):
    data = AudioManifest(_manifest(tmp_path, ["a", "b"] * 10), sample_rate=8000)
    data.setup()
    data._samples["val"] = [sample for sample in data.samples("val") if int(sample.target) == 0]
    assert list(describe(data))[-1] == ("val has no sample of b: what needs one, such as AUROC, is undefined there")


def test_data_that_name_their_classes_themselves():
    chosen = MotifData(train=8, val=4, test=4, positive="square")
    assert chosen.spec["classes"] == ["house", "square"]
    plain = MotifData(train=8, val=4, test=4)
    assert [int(s.target) for s in chosen.samples("test")] == [1 - int(s.target) for s in plain.samples("test")]
    with pytest.raises(BadInput, match="expected one of two classes that these data let choose, got 'circle'"):
        MotifData(train=8, val=4, test=4, positive="circle").setup()


def test_spellings_of_one_class_are_asked_about(tmp_path):
    with pytest.raises(BadInput, match=r"'Yes' \(2\) and 'yes' \(3\) differ in case or blanks only; write"):
        order_classes({"yes": 3, "Yes": 2, "no": 5})
    assert order_classes({"a": 3, "A": 2}, case_matters=True).classes == ["a", "A"]
    path = _manifest(tmp_path, ["yes", "Yes", "NaN", "no"] * 10)
    with pytest.raises(BadInput) as caught:
        AudioManifest(path, sample_rate=8000).setup()
    assert "classes: 'Yes' (10) and 'yes' (10) differ" in str(caught.value)
    assert str(caught.value).count("label is empty") == 10  # all in one report


def test_spellings_of_one_group_are_said(tmp_path):
    path = Path(_manifest(tmp_path, ["a", "b"] * 10))
    path.write_text(path.read_text().replace(",p0", ",s1").replace(",p1", ",s01").replace(",p2", ",S10"))
    lines = list(describe(AudioManifest(str(path), sample_rate=8000, group="player")))
    assert lines[-1] == "groups 's01' and 's1' count as 2; write them alike if they are one"
