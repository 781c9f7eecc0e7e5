"""Lists of volumes: what is read, how it is split and cached, and that everything wrong is reported at once."""

import json
import re

import numpy as np
import pytest
import torch

import tasks.volume.checks
from tasks.data.problems import BadInput
from tasks.volume.formats import CSVData, DecathlonData
from tasks.volume.transforms import Augment

SMALL = {"size": (8, 8, 8), "batch_size": 2}


@pytest.fixture
def study(save_nifti, save_table):
    """Twelve scans of six subjects, half of them ill, with an age."""

    def make(**columns):
        rows = []
        for i in range(12):
            name = f"scans/s{i // 2}_{i % 2}.nii.gz"
            save_nifti(name)
            row = {"path": name, "label": "ill" if i // 2 % 2 else "well", "age": 20 + i, "subject": f"s{i // 2}"}
            rows.append(row | {key: values[i] for key, values in columns.items()})
        return save_table("study.csv", rows)

    return make


def subjects(data, part):
    return {sample["id"].split("/")[1].split("_")[0] for sample in data.datasets[part]}


def test_classes_folds_and_batches(study):
    data = CSVData(str(study()), folds=3, val=0.25, **SMALL)
    assert data.spec == {
        "kind": "binary",
        "classes": ["ill", "well"],
        "channels": 1,
        "images": ["path"],
        "volumes": 1,
        "orientation": "check",
        "class_counts": data.spec["class_counts"],
        "train_size": sum(data.spec["class_counts"]),
        "preprocessing": {
            "size": (8, 8, 8),
            "spacing": None,
            "fit": "crop",
            "pad": "constant",
            "intensity": "percentile",
            "pool_mask": None,
        },
    }
    assert data.folds == [0, 1, 2]
    parts = [subjects(data, name) for name in ("train", "val", "test")]
    assert set.union(*parts) == {f"s{i}" for i in range(6)}
    assert sum(map(len, parts)) == 6  # nobody is in two parts
    batch = next(iter(data.test_dataloader()))
    assert batch["image"].shape == (2, 1, 8, 8, 8)
    assert type(batch["image"]) is torch.Tensor
    assert batch["target"].dtype == torch.int64
    assert batch["affine"].shape == (2, 4, 4)
    assert batch["id"][0].startswith("scans/")


def test_regression_on_the_given_split(study):
    part = ["train"] * 6 + ["val"] * 2 + ["test"] * 2 + ["predict"] * 2
    data = CSVData(str(study(split=part, age=[*range(20, 30), "", ""])), target="age", task="regression", **SMALL)
    assert data.spec["kind"] == "regression"
    assert data.spec["target_mean"] == [22.5]
    assert data.spec["target_std"] == pytest.approx([np.std(range(20, 26))])
    assert data.folds == [0]
    assert [len(data.datasets[name]) for name in ("train", "val", "test", "predict")] == [6, 2, 2, 2]
    assert next(iter(data.test_dataloader()))["target"].tolist() == [[28.0], [29.0]]
    assert torch.isnan(next(iter(data.predict_dataloader()))["target"]).all()  # no target, no error


def test_validation_is_taken_from_training(study):
    data = CSVData(str(study(split=["train"] * 10 + ["test"] * 2)), val=0.2, **SMALL)
    data.setup()
    assert len(subjects(data, "val")) == 1
    assert subjects(data, "train") | subjects(data, "val") == {f"s{i}" for i in range(5)}
    assert subjects(data, "test") == {"s5"}


def test_several_columns_of_labels(study):
    data = CSVData(str(study(a=[0, 1] * 6, b=[1, 1, 0] * 4)), target=["a", "b"], folds=3, **SMALL)
    assert data.spec["kind"] == "multilabel"
    assert data.spec["classes"] == ["a", "b"]
    assert data.spec["train_size"] == len(data.datasets["train"])
    assert next(iter(data.train_dataloader()))["target"].shape == (2, 2)


def test_numbers_as_classes_sort_as_numbers(study):
    data = CSVData(str(study(grade=[2, 10, 1] * 4)), target="grade", subject="path", folds=2, **SMALL)
    assert data.spec["classes"] == ["1", "2", "10"]
    assert data.spec["kind"] == "multiclass"


def test_everything_wrong_in_one_report(study, save_nifti, save_table, tmp_path):
    study()
    save_nifti("nan.nii.gz", np.full((4, 4, 4), np.nan, np.float32))
    save_nifti("flat.nii.gz", np.ones((4, 4, 4), np.float32))
    cut = save_nifti("cut.nii.gz", np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32))
    cut.write_bytes(cut.read_bytes()[:5000])
    rows = [{"path": f"scans/s{i // 2}_{i % 2}.nii.gz", "age": 20 + i, "subject": f"s{i // 2}"} for i in range(10)]
    rows += [
        {"path": "nowhere.nii.gz", "age": 1, "subject": "x1"},
        {"path": "nan.nii.gz", "age": 1, "subject": "x2"},
        {"path": "flat.nii.gz", "age": "", "subject": "x3"},
        {"path": "cut.nii.gz", "age": 1, "subject": "x4"},
        {"path": "scans/s5_0.nii.gz", "age": "old", "subject": "s5"},
        {"path": "", "age": 3, "subject": "s5"},
    ]
    table = save_table("all.csv", rows)
    options = {"target": "age", "task": "regression", "folds": 3, **SMALL}
    with pytest.raises(BadInput) as caught:
        CSVData(str(table), **options).setup()
    message = str(caught.value)
    for line in (
        "all.csv: 7 problems found",
        "all.csv row 11 (nowhere.nii.gz): file does not exist; correct the path or leave it out",
        "all.csv row 12 (nan.nii.gz): 64 of 64 voxels are NaN or infinite",
        "all.csv row 13 (flat.nii.gz): every voxel is 1",
        "all.csv row 13 (flat.nii.gz): column age is empty; fill it in or delete the row",
        "all.csv row 14 (cut.nii.gz): its gzip stream is truncated or damaged",
        "all.csv row 15 (scans/s5_0.nii.gz): expected a number in column age, got 'old'",
        "all.csv row 16 (None): column path is empty",
        "--data.on_bad skip",
    ):
        assert line in message
    data = CSVData(str(table), on_bad="skip", **options)
    with pytest.warns(UserWarning, match="6 of 16 samples left out"):
        data.setup()
    assert sum(len(data.datasets[name]) for name in ("train", "val", "test")) == 10


def test_overlap_missing_class_and_empty_part_cannot_be_skipped(study):
    part = ["train", "test"] + ["train"] * 4 + ["test"] * 6
    label = ["a", "a", "b", "b", "b", "b"] + ["c"] * 6
    table = study(split=part, label=label, subject=["p0", "p0", *"123456789x"])
    with pytest.raises(BadInput) as caught:
        CSVData(str(table), on_bad="skip", on_leak="error", val=0.4, **SMALL).setup()
    words = str(caught.value)
    assert re.search(
        r"row \d+ \(scans/s0_1.nii.gz\): is in test, with the same \w+ as study.csv row \d+ \(.*\) in train", words
    )
    assert "class c: has no training sample" in str(caught.value)
    with pytest.raises(BadInput, match="no image in the test part"):
        CSVData(str(study(split=["train"] * 8 + ["val"] * 4)), **SMALL).setup()


@pytest.mark.parametrize(
    ("columns", "options", "words"),
    [
        ({"split": ["train"] * 11 + ["dev"]}, {}, "expected train, val, test or predict in column split, got 'dev'"),
        ({"label": ["same"] * 12}, {}, r"expected two or more classes, got \['same'\]"),
        ({"age": [5] * 12}, {"target": "age", "task": "regression", "folds": 3}, "is the same in every training row"),
        ({"a": [0, 2] * 6}, {"target": ["a", "age"]}, "expected 0 or 1 in column a, got '2'"),
        ({"subject": ["one"] * 12}, {}, "expected at least 5 subjects for 5 folds, got 1; choose fewer folds"),
        ({}, {"target": "sex"}, "expected the column sex, got"),
    ],
)
def test_other_mistakes_are_named(study, columns, options, words):
    with pytest.raises(BadInput, match=words):
        CSVData(str(study(**columns)), **options, **SMALL).setup()


def test_too_many_classes_hint_at_regression(save_nifti, save_table):
    rows = [{"path": save_nifti(f"{i}.nii.gz").name, "label": 20 + i / 7} for i in range(24)]
    with pytest.raises(BadInput, match=r"24 classes in 24 rows; to predict a number add --data\.task regression"):
        CSVData(str(save_table("many.csv", rows)), **SMALL).setup()


def test_decathlon(save_nifti, tmp_path):
    entries = [{"image": f"./imagesTr/{i}.nii.gz", "label": i % 2} for i in range(8)]
    for i in range(8):
        save_nifti(f"imagesTr/{i}.nii.gz")
    save_nifti("imagesTs/9.nii.gz")
    table = tmp_path / "dataset.json"
    table.write_text(json.dumps({"training": entries, "test": ["./imagesTs/9.nii.gz"]}))
    data = DecathlonData(str(tmp_path), folds=2, val=0.5, **SMALL)
    assert data.spec["classes"] == ["0", "1"]
    assert [sample["id"] for sample in data.datasets["predict"]] == ["imagesTs/9.nii.gz"]
    table.write_text(json.dumps({"training": entries[:4], "validation": entries[4:6], "test": entries[6:]}))
    fixed = DecathlonData(str(table), **SMALL)
    fixed.setup()
    assert [len(fixed.datasets[name]) for name in ("train", "val", "test")] == [4, 2, 2]
    table.write_text(json.dumps({"training": [*entries, {"label": 1}, {"image": "./gone.nii.gz", "label": 0}]}))
    with pytest.raises(BadInput) as caught:
        DecathlonData(str(table), **SMALL).setup()
    assert "dataset.json training 9 (None): expected the key image" in str(caught.value)
    assert "dataset.json training 10 (./gone.nii.gz): file does not exist" in str(caught.value)


def test_decathlon_file_itself(tmp_path):
    with pytest.raises(BadInput, match=r"does not exist; give a dataset\.json"):
        DecathlonData(str(tmp_path)).setup()
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(BadInput, match="not valid JSON"):
        DecathlonData(str(tmp_path)).setup()
    (tmp_path / "dataset.json").write_text('{"test": []}')
    with pytest.raises(BadInput, match="expected an object with a list training"):
        DecathlonData(str(tmp_path)).setup()


def test_caches_agree_and_augmentation_stays_random(study, tmp_path):
    table = str(study(split=["train"] * 6 + ["val"] * 2 + ["test"] * 4))
    augment = Augment(probability=1.0, flip=(0,))
    made = {}
    for cache in ("none", "memory", "disk"):
        data = CSVData(table, cache=cache, cache_dir=str(tmp_path / "cache"), augment=augment, **SMALL)
        data.setup()
        made[cache] = data
    for part in ("val", "test"):  # no random change, so all the same, also when read again
        for _ in range(2):
            for one, two, three in zip(*(made[cache].datasets[part] for cache in made), strict=True):
                assert torch.equal(one["image"], two["image"])
                assert torch.equal(one["image"], three["image"])
                assert torch.equal(one["affine"], three["affine"])
    for data in made.values():
        first, again = data.datasets["train"][0]["image"], data.datasets["train"][0]["image"]
        assert not torch.equal(first, again)
        assert torch.equal(data.datasets["train"][0]["affine"], data.datasets["train"][0]["affine"])


def test_disk_cache_notices_other_settings_and_changed_files(study, save_nifti, tmp_path):
    table = str(study(split=["train"] * 6 + ["val"] * 2 + ["test"] * 4))
    options = {"cache": "disk", "cache_dir": str(tmp_path / "cache"), "batch_size": 2}

    def first(size):
        data = CSVData(table, size=size, **options)
        data.setup()
        return data.datasets["test"][0]["image"]

    assert first((8, 8, 8)).shape == (1, 8, 8, 8)
    before = first((6, 6, 6))
    assert before.shape == (1, 6, 6, 6)
    save_nifti("scans/s4_0.nii.gz", np.arange(8 * 9 * 7, dtype=np.float32).reshape(8, 9, 7))
    assert not torch.equal(before, first((6, 6, 6)))


def test_disk_cache_notices_another_mask(study, save_nifti, tmp_path):
    save_nifti("outline.nii.gz", np.zeros((8, 9, 7), np.uint8))
    table = str(study(split=["train"] * 6 + ["val"] * 2 + ["test"] * 4, outline=["outline.nii.gz"] * 12))
    options = {"cache": "disk", "cache_dir": str(tmp_path / "cache"), "mask": "outline", "size": (8, 9, 7)}

    def marked():
        data = CSVData(table, **options)
        data.setup()
        return int((data.datasets["test"][0]["mask"] > 0).sum())

    assert marked() == 0
    save_nifti("outline.nii.gz", np.ones((8, 9, 7), np.uint8))
    assert marked() == 8 * 9 * 7


def test_intensities(study):
    table = str(study(split=["train"] * 6 + ["val"] * 2 + ["test"] * 4))
    scaled = CSVData(table, intensity="percentile", size=(8, 9, 7))
    scaled.setup()
    image = scaled.datasets["test"][0]["image"]
    assert (float(image.min()), float(image.max())) == (0.0, 1.0)
    score = CSVData(table, intensity="zscore", size=(8, 9, 7))
    score.setup()
    image = score.datasets["test"][0]["image"]
    assert abs(float(image.mean())) < 1e-5
    assert float(image.std(correction=0)) == pytest.approx(1, abs=1e-4)
    # Another scale and offset of the scanner give the same input.
    assert float(image.max()) < 4


def test_a_mask_is_brought_to_the_images_grid(save_nifti, save_table):
    """The mask is stored left-right turned, of half the voxel size, over a part of the field of view."""
    image = np.random.default_rng(0).normal(100, 20, (10, 12, 8)).astype(np.float32)
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[2:6, 0:4, 2:8] = 3
    turned = np.array([[-1.0, 0, 0, 11.0], [0, 1, 0, 6.0], [0, 0, 1, 2.0], [0, 0, 0, 1]])
    rows = []
    for i in range(6):
        save_nifti(f"im{i}.nii.gz", image + i, np.diag([2.0, 2.0, 2.0, 1.0]))
        save_nifti(f"mask{i}.nii.gz", mask if i % 2 else 0 * mask, turned)
        rows.append({"path": f"im{i}.nii.gz", "label": i % 2, "outline": f"mask{i}.nii.gz"})
    data = CSVData(str(save_table("t.csv", rows)), mask="outline", folds=3, val=0.3, size=(6, 8, 8), batch_size=2)
    data.setup()
    seen = [sample for part in ("train", "val", "test") for sample in data.datasets[part]]
    for sample in seen:
        assert sample["mask"].dtype == torch.bool
        assert sample["mask"].shape == sample["image"].shape
        if not sample["target"]:
            assert not sample["mask"].any()
            continue
        for voxel in np.ndindex(6, 8, 8):
            mm = sample["affine"].numpy() @ [*voxel, 1]
            at = np.round(np.linalg.inv(turned) @ mm)[:3].astype(int)
            inside = (at >= 0).all() and (at < 8).all() and mask[tuple(at)] > 0
            assert bool(sample["mask"][0][voxel]) == inside
    assert len(seen) == 6
    assert next(iter(data.test_dataloader()))["mask"].shape == (2, 1, 6, 8, 8)


def test_masks_are_checked(study, save_nifti, tmp_path):
    """One column cell is empty, one mask is missing; an empty mask is fine."""
    save_nifti("empty.nii.gz", np.zeros((8, 9, 7), np.uint8))
    outlines = ["empty.nii.gz"] * 10 + ["", "gone.nii.gz"]
    with pytest.raises(BadInput) as error:
        CSVData(str(study(outline=outlines)), mask="outline", folds=3, **SMALL).setup()
    assert "2 problems found" in str(error.value)
    assert "column outline is empty; name a mask, or an empty one where there is nothing" in str(error.value)
    assert "row 12 (scans/s5_1.nii.gz): mask gone.nii.gz: file does not exist" in str(error.value)


def test_folds_beside_a_split_are_not_ignored(study):
    table = str(study(split=["train"] * 6 + ["val"] * 2 + ["test"] * 4))
    with pytest.raises(BadInput, match="folds: expected none where the data bring a split, got 3; leave"):
        CSVData(table, folds=3, **SMALL).setup()
    assert CSVData(table, folds=3, split=None, **SMALL).folds == [0, 1, 2]


def test_of_very_many_images_a_sample_is_looked_at(study, monkeypatch, tmp_path):
    """Four of twelve; which are told by the list, so that copies under other names count as others."""
    table = study()
    monkeypatch.setattr("tasks.data.checking.DRAWN", 4)
    looked = []
    look = tasks.volume.checks.look_at
    monkeypatch.setattr(tasks.volume.checks, "look_at", lambda path, **kw: (looked.append(path), look(path, **kw))[1])
    data = CSVData(str(table), folds=3, check="sample", cache="none", **SMALL)
    data.setup()
    assert len(looked) == 4
    unseen = next(row for row in data._records["train"] if row.path not in looked)
    assert data.training().told_by == "index"
    whole = CSVData(str(table), folds=3, **SMALL)
    whole.setup()
    assert data.spec == whole.spec
    assert data.digests("test") != whole.digests("test")
    unseen.path.write_bytes(b"no scan")
    CSVData(str(table), folds=3, check="sample", cache="none", **SMALL).setup()
    with pytest.raises(BadInput, match="1 problem found"):
        CSVData(str(table), folds=3, **SMALL).setup()
