"""Several tags a clip: in cells and in columns, none at all, scarce ones, and the metrics over them."""

import csv
import json

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from undrawn import unchosen, undrawn  # noqa: F401

from tasks.__main__ import main
from tasks.audio import AudioManifest
from tasks.data.describe import describe
from tasks.data.problems import BadInput
from tasks.data.splits import PARTS
from tasks.data.trained import Trained

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"]
TAGS = ["low|calm", "", "high", "low", "calm|high", "", "low|high", "calm", "low", "high|low", "calm", "high"]
ONE_HOT = [{tag: int(tag in cell.split("|")) for tag in ("calm", "high", "low")} for cell in TAGS]


def tagged(tones, name="clips.csv", **more):
    """A table whose first nine clips train; others test."""
    rows = [
        {"path": one["path"], "label": tags, "split": "train" if i < 9 else "test"}
        for i, (one, tags) in enumerate(zip(tones.rows, TAGS, strict=True))
    ]
    return tones.manifest([{**one, **more} for one in rows], name=name)


def targets(data):
    data.setup()
    return {clip["id"]: clip["target"].tolist() for part in data.datasets.values() for clip in part.clips}


def test_tags_in_cells_are_recognised_and_said_and_no_tag_is_a_negative(tones, caplog):
    with caplog.at_level("INFO"):
        data = AudioManifest(tagged(tones), val=0.3)
        found = targets(data)
    assert data.spec["kind"] == "multilabel"
    assert data.spec["classes"] == ["calm", "high", "low"]
    assert found == {one["path"]: list(map(float, hot.values())) for one, hot in zip(tones.rows, ONE_HOT, strict=True)}
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "target: multilabel, as clips.csv row 1 (00.wav) has low|calm; --data.target class takes" in said
    assert "2 clips have no tag and count as negatives of all" in said
    with pytest.raises(BadInput, match=r"row 2 \(01.wav\): label is empty") as report:
        AudioManifest(tagged(tones), val=0.3, target="class").setup()
    assert "class low|high: has no training sample" not in str(report.value)  # it trains
    assert "class high|low: has no training sample" in str(report.value)


def test_columns_of_zeros_and_ones_say_the_same(tones):
    rows = [
        {"path": one["path"], "split": "train" if i < 9 else "test"} | {f"tag_{tag}": hit for tag, hit in hot.items()}
        for i, (one, hot) in enumerate(zip(tones.rows, ONE_HOT, strict=True))
    ]
    by_name = AudioManifest(tones.manifest(rows), label=["tag_calm", "tag_high", "tag_low"], val=0.3)
    by_pattern = AudioManifest(tones.manifest(rows), label="tag_*", val=0.3)
    assert targets(by_name) == targets(by_pattern) == targets(AudioManifest(tagged(tones, "cells.csv"), val=0.3))
    assert by_name.spec == by_pattern.spec
    rows[0]["tag_high"] = ""  # not known
    data = AudioManifest(tones.manifest(rows), label="tag_*", val=0.3)
    assert np.isnan(targets(data)["00.wav"][1])
    known = [clip["target"].isfinite().tolist() for clip in data.datasets["train"].clips]
    assert data.spec["known_counts"] == np.sum(known, 0).tolist()
    rows[1]["tag_high"] = "perhaps"
    with pytest.raises(BadInput, match=r"row 2 \(01.wav\): tag_high: expected 0 or 1, got 'perhaps'"):
        AudioManifest(tones.manifest(rows), label="tag_*", val=0.3).setup()
    with pytest.raises(BadInput, match=r"label: expected columns named mood_\*, got path, split, tag_calm"):
        AudioManifest(tones.manifest(rows), label="mood_*").setup()
    with pytest.raises(BadInput, match="label: expected one column for target class, got tag_calm, tag_high, tag_low"):
        AudioManifest(tones.manifest(rows), label="tag_*", target="class").setup()


def test_lists_in_json_and_another_separator(tones):
    plain = targets(AudioManifest(tagged(tones), val=0.3))
    rows = [
        {"path": one["path"], "label": tags.split("|") if tags else [], "split": "train" if i < 9 else "test"}
        for i, (one, tags) in enumerate(zip(tones.rows, TAGS, strict=True))
    ]
    (tones.folder / "clips.json").write_text(json.dumps(rows))
    assert targets(AudioManifest(str(tones.folder / "clips.json"), val=0.3)) == plain
    rows = [{**one, "label": ", ".join(one["label"])} for one in rows]
    assert targets(AudioManifest(tones.manifest(rows), val=0.3, separator=",")) == plain


def test_what_is_not_known_is_no_negative(tones):
    rows = [{"path": one["path"], "label": "n/a" if i == 3 else TAGS[i]} for i, one in enumerate(tones.rows)]
    with pytest.raises(BadInput, match=r"row 4 \(03.wav\): label is empty; fill it in or delete the row"):
        AudioManifest(tones.manifest(rows)).setup()


def test_chosen_tags_are_learned_and_others_not_looked_at(tones):
    data = AudioManifest(tagged(tones), val=0.3, tags=["low", "high"])
    found = targets(data)
    assert data.spec["classes"] == ["high", "low"]
    assert found["00.wav"] == [0.0, 1.0]
    rows = [{"path": one["path"], "label": "a|rare" if i > 9 else "a|b", "split": "train" if i < 9 else "test"}
            for i, one in enumerate(tones.rows)]  # fmt: skip
    with pytest.raises(BadInput, match=r"1 tags \(rare\): have no training clip .* with --data.tags"):
        AudioManifest(tones.manifest(rows), val=0.3).setup()


def test_a_table_of_tags_is_tested_with_a_mean_over_those_that_can_be_measured(tones, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tasks"])
    rows = [{"path": one["path"], "label": tags, "split": "train"} for one, tags in zip(tones.rows, TAGS, strict=True)]
    rows[0]["label"] = "low|calm|always|never"
    tests = ["low|always", "high|always", "always", "low|always"]
    for number, tags in enumerate(tests):
        tones.write(f"t{number}.wav", np.random.default_rng(number).standard_normal(4000) * 0.1)
        rows.append({"path": f"t{number}.wav", "label": tags, "split": "test"})
    flags = [
        "--model.balance=true",
        "--data=tasks.audio.AudioManifest",
        f"--data.manifest={tones.manifest(rows)}",
        "--data.sampling=balanced",
    ]
    main(["fit", "--model=tasks.audio.AudioTask", "--model.mels=16", "--model.widths=[4]", *flags,
          "--trainer.max_epochs=2", "--outputs.maps=0", "--outputs.every=0", "--run.name=tags", *QUIET])  # fmt: skip
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "in test no sample has calm, never; none lacks always: ap and auroc are means over the other labels" in said
    assert (
        "test ap and auroc leave out 3 of 5 labels, which all or none of the samples have: always, calm, never" in said
    )
    folder = tmp_path / "runs" / "tags" / "version_0"
    with (folder / "predictions.csv").open() as file:
        found = list(csv.DictReader(file))
    truth, said = (
        np.array([[float(one[form.format(tag)]) for tag in ("high", "low")] for one in found])
        for form in ("target {}", "p({})")
    )
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["test"]["ap"]["value"] == pytest.approx(average_precision_score(truth, said), abs=1e-5)
    assert summary["test"]["auroc"]["value"] == pytest.approx(roc_auc_score(truth, said), abs=1e-5)
    assert summary["per_class"]["never"]["positive"] == 0


def test_balanced_sampling_draws_classes_alike(tones):
    rows = [{**one, "label": "scarce" if i % 6 == 0 else "plenty"} for i, one in enumerate(tones.rows)]
    data = AudioManifest(tones.manifest(rows), fold=3, val=0.2, sampling="balanced", batch_size=4)
    data.setup()
    loader = data.train_dataloader()
    drawn = [target for _ in range(200) for batch in loader for target in batch["target"].tolist()]
    one_by_one = np.mean([clip["target"] for clip in data.datasets["train"].clips])
    assert one_by_one < 0.3  # scarce is the positive class
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.05)
    tags = AudioManifest(tagged(tones), val=0.3, sampling="balanced", batch_size=4)
    tags.setup()
    loader = tags.train_dataloader()
    hits = torch.cat([batch["target"] for _ in range(200) for batch in loader])
    targets = torch.stack([clip["target"] for clip in tags.datasets["train"].clips])
    bare = (targets.sum(1) == 0).double()
    weights = (targets.double() / targets.sum(0)).sum(1) + bare / bare.sum().clamp(min=1)  # a tag, then a clip with it
    expected = (weights[:, None] * targets).sum(0) / weights.sum()
    assert hits.mean(0).tolist() == pytest.approx(expected.tolist(), abs=0.05)
    assert list(describe(tags))
    wrong = AudioManifest(tones.manifest(), sampling="balanced", buckets=2)
    wrong.setup()
    with pytest.raises(BadInput, match="sampling: expected classes or tags, 1 bucket and all labels to balance, got"):
        wrong.train_dataloader()


def test_another_table_of_tags_for_a_model(tones):
    """Columns that are not there are not known; tags that a model does not know are named; without any all is asked."""
    spec = {"kind": "multilabel", "classes": ["tag_calm", "tag_low"], "sample_rate": 16000}

    def of(rows):
        data = AudioManifest(tones.manifest(rows), label="tag_*")
        data.trained = Trained(spec, {part: torch.empty(0, dtype=torch.long) for part in PARTS}, {})
        data.trained.samples["train"] = torch.tensor([1])
        data.setup()
        return data

    some = of([{"path": one["path"], "tag_low": i % 2} for i, one in enumerate(tones.rows[:4])])
    found = torch.stack([clip["target"] for clip in some.datasets["test"].clips])
    assert found[:, 0].isnan().all()
    assert found[:, 1].tolist() == [0, 1, 0, 1]
    none = of([{"path": one["path"]} for one in tones.rows[:4]])
    assert len(none.samples("predict")) == 4
    with pytest.raises(
        BadInput, match=r"row 1 \(00.wav\): class tag_high is none of the model's \(tag_calm, tag_low\)"
    ):
        of([{"path": one["path"], "tag_high": 1} for one in tones.rows[:4]])
