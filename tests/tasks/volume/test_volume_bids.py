"""BIDS folders as pipelines leave them: sessions, runs, derivatives, masks, and all that can be missing."""

import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tasks.data.manifest import read_manifest
from tasks.data.problems import BadInput, Problems
from tasks.volume import BIDSData

SMALL = {"size": (8, 8, 8), "batch_size": 2}


@pytest.fixture
def bids(save_nifti, save_table, tmp_path):
    """Six participants: one without image, one with two sessions, one without age; and an image of a stranger."""
    rows = [{"participant_id": f"sub-{i:02d}", "sex": "FM"[i % 2], "age": 30 + i} for i in range(8)]
    rows[5]["age"] = "n/a"
    save_table("study/participants.tsv", rows)
    for i in range(7):
        sessions = ("ses-1/", "ses-2/") if i == 2 else ("",)
        for session in sessions:
            tag = session.rstrip("/") + "_" if session else ""
            save_nifti(f"study/sub-{i:02d}/{session}anat/sub-{i:02d}_{tag}T1w.nii.gz")
    save_nifti("study/sub-00/anat/sub-00_T2w.nii.gz")
    return tmp_path / "study"


def test_bids(bids):
    data = BIDSData(str(bids), target="sex", on_bad="skip", folds=3, **SMALL)
    with pytest.warns(UserWarning, match="1 of 9 samples left out") as warned:
        data.setup()
    assert "participants.tsv row 8 (sub-07): no image T1w; add it, delete the row, or" in str(warned[0].message)
    everyone = [sample["id"] for name in ("train", "val", "test") for sample in data.datasets[name]]
    assert len(everyone) == 8
    assert "sub-02/ses-2/anat/sub-02_ses-2_T1w.nii.gz" in everyone
    for name in ("train", "val", "test"):  # both sessions are in the same part
        assert sum("sub-02" in sample["id"] for sample in data.datasets[name]) in (0, 2)


def test_bids_missing_values_and_strangers(bids, save_nifti):
    save_nifti("study/sub-99/anat/sub-99_T1w.nii.gz")
    with pytest.raises(BadInput) as caught:
        BIDSData(str(bids), target="age", task="regression", folds=3, **SMALL).setup()
    message = str(caught.value)
    assert "participants.tsv row 6 (sub-05/anat/sub-05_T1w.nii.gz): column age is empty" in message
    assert "sub-99/anat/sub-99_T1w.nii.gz: sub-99 has no row in participants.tsv; add one" in message
    assert "3 problems found" in message
    with pytest.raises(BadInput, match=r"BIDS folder .* does not exist"):
        BIDSData(str(bids / "no"), target="age").setup()


def test_bids_repeated_participant(bids):
    with (bids / "participants.tsv").open("a") as file:
        file.write("sub-00\tF\t30\n")
    with pytest.raises(BadInput, match=r"row 9 \(sub-00\): the participant has a row already"):
        BIDSData(str(bids), target="sex", folds=3, **SMALL).setup()


@pytest.fixture
def tree(save_nifti, save_table, tmp_path):
    """Write images by their paths, and participants with their age."""

    def make(*paths, people=("sub-01", "sub-02"), **options):
        save_table("study/participants.tsv", [{"participant_id": one, "age": 30 + i} for i, one in enumerate(people)])
        for path in paths:
            save_nifti(f"study/{path}")
        return BIDSData(str(tmp_path / "study"), **{"target": "age", "task": "regression", **options})

    return make


def listed(data):
    problems = Problems("study")
    records = data.records(problems)
    names = [[None if one is None else one.name for one in record.files] for record in records]
    return names, problems.samples, records


def test_runs_and_acquisitions_are_samples_and_versions_are_not(tree):
    names = ("sub-01_run-1_T1w.nii.gz", "sub-01_run-2_T1w.nii.gz", "sub-02_acq-a_T1w.nii", "sub-02_acq-b_T1w.nii")
    data = tree(*(f"{name[:6]}/anat/{name}" for name in names))
    files, wrong, records = listed(data)
    assert files == [[name] for name in names]
    assert not wrong
    assert [record.subject for record in records] == ["sub-01", "sub-01", "sub-02", "sub-02"]
    files, wrong, _ = listed(tree(entities={"run": "01"}, people=("sub-01",)))
    assert files == [[names[0]]]  # a number is a number, with and without zeros
    assert wrong == []
    data = tree("sub-01/anat/sub-01_run-1_rec-norm_T1w.nii.gz", people=("sub-01",))
    _, wrong, _ = listed(data)
    assert wrong[:1] == [
        "sub-01/anat/sub-01_run-1_rec-norm_T1w.nii.gz: is another version of sub-01_run-1_T1w.nii.gz (they differ in "
        "rec); choose one, such as that with --data.entities '{\"rec\": null}'"
    ]
    files, wrong, _ = listed(tree(entities={"rec": None, "run": 1}, people=("sub-01",)))
    assert (files, wrong) == ([[names[0]]], [])
    _, wrong, _ = listed(tree(entities={"acq": "c"}, people=("sub-01",)))
    assert wrong == [
        "participants.tsv row 1 (sub-01): no image T1w with acq-c; add it, delete the row, or change --data.images or "
        "--data.entities"
    ]


def test_sequences_of_a_session_are_partners(tree):
    """The one FLAIR of a session belongs to both of its T1w; runs go with runs; what is missing is None."""
    data = tree(
        "sub-01/ses-a/anat/sub-01_ses-a_run-1_T1w.nii.gz", "sub-01/ses-a/anat/sub-01_ses-a_run-2_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-a_FLAIR.nii.gz", "sub-01/ses-b/anat/sub-01_ses-b_FLAIR.nii.gz",
        "sub-02/anat/sub-02_run-1_T1w.nii.gz", "sub-02/anat/sub-02_run-2_T1w.nii.gz",
        "sub-02/anat/sub-02_run-1_FLAIR.nii.gz", "sub-02/anat/sub-02_run-2_FLAIR.nii.gz", images="T1w,FLAIR",
    )  # fmt: skip
    files, wrong, _ = listed(data)
    assert not wrong
    assert files == [
        ["sub-01_ses-a_run-1_T1w.nii.gz", "sub-01_ses-a_FLAIR.nii.gz"],
        ["sub-01_ses-a_run-2_T1w.nii.gz", "sub-01_ses-a_FLAIR.nii.gz"],
        [None, "sub-01_ses-b_FLAIR.nii.gz"],
        ["sub-02_run-1_T1w.nii.gz", "sub-02_run-1_FLAIR.nii.gz"],
        ["sub-02_run-2_T1w.nii.gz", "sub-02_run-2_FLAIR.nii.gz"],
    ]
    with pytest.raises(BadInput, match=r"sub-01_ses-b_FLAIR.nii.gz\): no T1w; add it, leave the image out"):
        data.setup()


def test_values_of_a_session_and_ids_without_their_prefix(tree, save_table):
    """A column of sessions.tsv is each session's own, and needs not be in participants.tsv."""
    images = [f"sub-0{i}/ses-{s}/anat/sub-0{i}_ses-{s}_T1w.nii.gz" for i in (1, 2) for s in "ab"]
    data = tree(*images, people=("01", "sub-02"), target="score")
    save_table(
        "study/sub-01/sub-01_sessions.tsv", [{"session_id": "ses-a", "score": 1}, {"session_id": "b", "score": 2}]
    )
    save_table("study/sub-02/sub-02_sessions.tsv", [{"session_id": "ses-a", "score": 3}])
    _, wrong, records = listed(data)
    assert not wrong
    assert [record.values.get("score") for record in records] == ["1", "2", "3", None]
    assert [record.values["age"] for record in records] == ["30", "30", "31", "31"]
    with pytest.raises(BadInput, match=r"sub-02_ses-b_T1w.nii.gz\): column score is empty; fill it in or delete"):
        data.setup()
    save_table("study/sub-01/sub-01_sessions.tsv", [{"session_id": one, "score": 5} for one in ("ses-a", "a", "b")])
    with pytest.raises(BadInput, match=r"sub-01_sessions.tsv: ses-a has 2 rows; delete all but one"):
        data.setup()
    (data.root / "sub-01" / "sub-01_sessions.tsv").unlink()
    (data.root / "sub-02" / "sub-02_sessions.tsv").unlink()
    with pytest.raises(BadInput, match="expected the column score, got participant_id, age"):
        data.setup()


def test_derivatives_with_their_masks(tree, tmp_path):
    """fmriprep's images in a space, by the raw folder or by its own, with the mask of the same space."""
    place = "derivatives/fmriprep/sub-0{0}/anat/sub-0{0}_"
    kinds = (
        "desc-preproc_T1w",
        "space-MNI_res-2_desc-preproc_T1w",
        "desc-brain_mask",
        "space-MNI_res-2_desc-brain_mask",
    )
    paths = [f"{place.format(i)}{kind}.nii.gz" for i in (1, 2) for kind in kinds]
    raw = [f"sub-0{i}/anat/sub-0{i}_T1w.nii.gz" for i in (1, 2)]
    mni = {"entities": {"space": "MNI"}, "pool_mask": "brain"}
    data = tree(*paths, *raw, derivatives="fmriprep", **mni)
    files, wrong, records = listed(data)
    assert not wrong
    assert files == [[f"sub-0{i}_space-MNI_res-2_desc-preproc_T1w.nii.gz"] for i in (1, 2)]
    assert [record.pool_mask.name for record in records] == [
        f"sub-0{i}_space-MNI_res-2_desc-brain_mask.nii.gz" for i in (1, 2)
    ]
    own = BIDSData(str(tmp_path / "study" / "derivatives" / "fmriprep"), target="age", task="regression", **mni)
    assert listed(own)[0] == files
    _, wrong, _ = listed(tree(derivatives="fmriprep"))
    assert len(wrong) == 2
    assert "is another version of sub-01_desc-preproc_T1w.nii.gz (they differ in space, res); choose one" in wrong[0]
    _, wrong, records = listed(tree(pool_mask="brain"))  # raw images, a derivative's mask in their own space
    assert not wrong
    assert [record.pool_mask.name for record in records] == [f"sub-0{i}_desc-brain_mask.nii.gz" for i in (1, 2)]
    _, wrong, _ = listed(tree(pool_mask="white"))
    assert "expected one *_desc-white_mask of its session and space, got none" in wrong[0]


def test_without_participants(tmp_path, save_nifti):
    save_nifti("study/sub-01/anat/sub-01_T1w.nii.gz")
    with pytest.raises(BadInput, match=r"hold no participants.tsv; add it, or use a CSV table"):
        BIDSData(str(tmp_path / "study"), target="age").setup()


EXAMPLES = os.environ.get("BIDS_EXAMPLES", "")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what is left out
@pytest.mark.skipif(not EXAMPLES, reason="BIDS_EXAMPLES names no checkout of github.com/bids-standard/bids-examples")
@pytest.mark.parametrize("name", ["ds001", "ds003", "ds006", "ds008", "ds011", "ds101", "ds102", "ds108", "ds110",
                                  "ds114", "ds116", "7t_trt", "ds000117", "ds000247", "synthetic"])  # fmt: skip
def test_public_examples(name, tmp_path):
    """The public trees, small images in the place of their empty ones: every T1w of who has a row is a sample."""
    source, root = Path(EXAMPLES) / name, tmp_path / name
    shutil.copytree(source, root, symlinks=True)
    generator, expected = np.random.default_rng(0), 0
    rows = read_manifest(root / "participants.tsv", required=("participant_id",))
    people = {str(row["participant_id"]).removeprefix("sub-") for row in rows}
    for path in root.rglob("*_T1w.nii*"):
        path.unlink()
        nibabel.save(nibabel.Nifti1Image(generator.normal(size=(8, 9, 10)).astype(np.float32), np.eye(4)), path)
        place = path.relative_to(root)
        expected += place.parts[0].startswith("sub-") and place.parts[0].removeprefix("sub-") in people
    numbers = next((column for column in ("age", "age_at_first_scan_years") if column in rows[0]), None)
    options = {"task": "regression", "target": numbers} if numbers else {"target": "dominant_hand"}
    data = BIDSData(str(root), size=None, on_bad="skip", folds=2, **options)
    problems = Problems(name)
    records = data.records(problems)
    assert len(records) == expected
    assert all(record.path.is_file() for record in records)
    assert len({record.id for record in records}) == expected
    if len({record.subject for record in records}) > 8:
        data.setup()
        assert sum(map(len, data.datasets.values())) <= expected
