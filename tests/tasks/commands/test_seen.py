"""No command looks at samples that a model was trained on, unless somebody insists."""

import csv

import pytest
import torch

from tasks.data.digests import digest_file
from tasks.data.trained import Trained

SHARED = ["--data.shared=true"]  # what tests in fold 1 was trained on in fold 0


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_every_command_refuses_what_was_trained_on(plain, capsys):
    located = [*SHARED, "--data.located=true"]
    plain("fit", "--trainer.max_epochs=1", *located)
    for command in ("test", "predict", "embed", "judge", "diagnose"):
        plain(command, *located)
        with pytest.raises(SystemExit) as stopped:
            plain(command, *located, "--data.fold=1")
        assert str(stopped.value) == (
            f"error: {command}: runs/toy/version_0/checkpoints/best.ckpt was trained on 96 of these 96 samples "
            "(set 0, set 1, set 2, ...); it had --data.fold 0 --data.seed 0, now --data.fold 1 --data.seed 0. "
            "Give the split of the training or other data, or insist with --allow_trained"
        )
        plain(command, *located, "--data.fold=1", "--allow_trained")


def test_a_training_that_goes_on_must_not_be_tested_on_its_past(plain, tmp_path):
    plain("fit", "--trainer.max_epochs=1", *SHARED)
    again = ["--trainer.max_epochs=2", "--ckpt_path=runs/toy/version_0/checkpoints/last.ckpt", "--data.fold=1", *SHARED]
    with pytest.raises(SystemExit, match=r"^error: fit: .*last.ckpt was trained on 96 of these 96 samples"):
        plain("fit", *again)
    plain("fit", *again, "--allow_trained")
    stored = torch.load(tmp_path / "runs/toy/version_1/checkpoints/last.ckpt", weights_only=True)
    assert len(Trained.read(stored).samples["train"]) == 192  # of both trainings


def test_test_takes_the_best_and_never_an_untrained_network(plain, tmp_path):
    for command in ("test", "predict", "validate"):
        with pytest.raises(SystemExit, match=r"^error: no best.ckpt under runs/toy; run fit first"):
            plain(command)
    plain("fit", "--trainer.max_epochs=2")
    plain("test")
    first, second = (tmp_path / "runs" / "toy" / f"version_{i}" / "predictions.csv" for i in (0, 1))
    assert first.read_text() == second.read_text()


def test_a_run_folder_says_who_was_in_which_part(trained, tmp_path):
    found = rows(tmp_path / "runs/toy/version_0/split.csv")
    assert [sum(row["part"] == part for row in found) for part in ("train", "val", "test")] == [96, 32, 32]
    assert {row["fold"] for row in found if row["part"] == "test"} == {"0"}
    assert found[0]["id"] == "set 0"
    assert len({row["digest"] for row in found}) == 160


def test_predict_takes_every_row_that_was_not_trained_on(trained, tmp_path, capsys):
    trained("predict")
    assert "predict: 128 samples that the checkpoint was trained on are left out" in capsys.readouterr().out
    trained("predict", "--allow_trained")
    trained("predict", "--data.fold=1")  # other sets, whatever part they are in
    names = [[row["id"] for row in rows(tmp_path / f"runs/toy/version_{i}/predictions.csv")] for i in (1, 2, 3)]
    assert [len(one) for one in names] == [32, 160, 160]
    assert len(set(names[1])) == 160


def test_a_checkpoint_that_does_not_say_is_looked_at_with_a_word(trained, tmp_path, capsys):
    path = tmp_path / "runs/toy/version_0/checkpoints/best.ckpt"
    stored = torch.load(path, weights_only=True)
    del stored["trained"]
    torch.save(stored, path)
    trained("test")
    assert "does not say what it was trained on, so that nothing can be checked" in capsys.readouterr().out


def test_a_copy_of_a_training_sample_among_the_test_samples_is_no_other_split():
    own = {"train": torch.tensor([1, 2]), "val": torch.tensor([3]), "test": torch.tensor([2, 4])}
    assert Trained({}, own, {}).saw([1, 2, 3, 4, 5]) == [True, False, True, False, False]


def test_digests_of_files_see_changes_anywhere_and_no_names(tmp_path):
    content = torch.randint(0, 256, (3_000_000,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()
    (tmp_path / "a").write_bytes(content.tobytes())
    (tmp_path / "b").write_bytes(content.tobytes())
    (tmp_path / "c").write_bytes(content[:-1].tobytes())
    changed = content.copy()
    changed[-1] ^= 1
    (tmp_path / "d").write_bytes(changed.tobytes())
    found = [digest_file(tmp_path / name) for name in "abcd"]
    assert found[0] == found[1]
    assert len(set(found)) == 3
    assert digest_file(tmp_path / "a", "part 1") != digest_file(tmp_path / "a", "part 2")
