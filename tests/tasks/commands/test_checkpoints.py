"""Checkpoints: the last epoch, whole files, and trainings that go on as if nothing had happened."""

import csv
import os
import pickle
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from toy import ROOT, ToyData, ToyTask

from tasks.data.problems import BadInput
from tasks.outputs.checkpoints import WholeFiles, history
from tasks.outputs.stopping import Patience, patience_for


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def stored(path):
    return torch.load(path, weights_only=True)


def interrupt(monkeypatch, epoch):
    step = ToyTask.training_step

    def interrupted(self, batch, batch_idx):
        if self.current_epoch == epoch and batch_idx == 1:
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    monkeypatch.setattr(ToyTask, "training_step", interrupted)


def same(one, other):
    """Two runs that came to the same, to the bit."""
    for name in ("metrics.csv", "predictions.csv", "split.csv"):
        assert (one / name).read_text() == (other / name).read_text(), name
    for name in ("best.ckpt", "last.ckpt"):
        first, second = stored(one / "checkpoints" / name), stored(other / "checkpoints" / name)
        assert first["epoch"] == second["epoch"]
        for key, value in first["state_dict"].items():
            assert torch.equal(value, second["state_dict"][key])


def test_last_is_the_last_epoch_and_best_the_best(plain, tmp_path):
    plain("fit", "--model.lr=0", "--trainer.max_epochs=6")  # no epoch is better than the first
    folder = tmp_path / "runs/toy/version_0/checkpoints"
    last, best = stored(folder / "last.ckpt"), stored(folder / "best.ckpt")
    assert (last["epoch"], last["global_step"]) == (5, 18)
    assert (best["epoch"], best["global_step"]) == (0, 3)
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(["--model.head_dropout=0.5", "--model.pooled_mixup=0.4"], id="random"),
        pytest.param(["--model.lr=0"], id="best was before"),
        pytest.param(["--data.labelled=10", "--model.consistency=0.5"], id="two loaders"),
        pytest.param(["--model.lr=0", "--early_stopping.patience=5"], id="early stopping counts on"),
    ],
)
def test_a_resumed_training_is_the_one_that_was_not_interrupted(plain, tmp_path, monkeypatch, flags):
    plain("fit", *flags)
    with monkeypatch.context() as patch:
        interrupt(patch, 4)
        with pytest.raises(SystemExit):
            plain("fit", *flags)
    plain("fit", *flags, "--ckpt_path=last")
    whole, resumed = (tmp_path / "runs" / "toy" / f"version_{i}" for i in (0, 2))
    assert stored(tmp_path / "runs/toy/version_1/checkpoints/last.ckpt")["epoch"] == 3
    same(whole, resumed)


@pytest.mark.parametrize(
    ("workers", "epoch"), [(0, 1), *(pytest.param(2, epoch, marks=pytest.mark.slow) for epoch in (0, 1))]
)
def test_a_training_that_ended_within_an_epoch_goes_on_within_it(plain, tmp_path, monkeypatch, workers, epoch):
    """Of the 12 batches of an epoch 7 were done, the state after 6 was saved."""
    flags = ["--data.batch_size=8", f"--data.num_workers={workers}", "--run.save_every=3", "--trainer.max_epochs=3"]
    seen = []
    step = ToyTask.training_step

    def watched(self, batch, batch_idx):
        seen.append((self.current_epoch, batch_idx, batch["id"]))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(ToyTask, "training_step", watched)
    plain("fit", *flags)
    whole, seen[:] = list(seen), []
    with monkeypatch.context() as patch:

        def ended(self, batch, batch_idx):
            if (self.current_epoch, batch_idx) == (epoch, 7):
                raise KeyboardInterrupt
            return watched(self, batch, batch_idx)

        patch.setattr(ToyTask, "training_step", ended)
        with pytest.raises(SystemExit):
            plain("fit", *flags)
    assert seen == whole[: 12 * epoch + 7]
    seen[:] = []
    plain("fit", *flags, "--ckpt_path=last")
    assert seen == whole[12 * epoch + 6 :]
    first, second = (stored(tmp_path / f"runs/toy/version_{run}/checkpoints/last.ckpt") for run in (0, 2))
    assert first["global_step"] == second["global_step"] == 36
    for name, value in first["state_dict"].items():
        assert torch.equal(value, second["state_dict"][name]), name


def test_states_are_saved_after_a_step_or_more(plain):
    with pytest.raises(SystemExit, match="save_every: expected 1 step or more, got 0; leave it out to save after epo"):
        plain("fit", "--run.save_every=0")


KILLED = """
import sys, time
from toy import ToyTask
from tasks.__main__ import main
step = ToyTask.training_step
def slow(self, batch, batch_idx):
    time.sleep(0.02)
    return step(self, batch, batch_idx)
ToyTask.training_step = slow
main(sys.argv[1:])
"""


def kill_when(condition, command, folder):
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "tasks")])
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, *command], cwd=folder, env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not condition():
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def killed_and_resumed(plain, folder, conditions):
    """Kill a training once for each condition, on what is in the run folder, go on each time, and compare."""
    flags = ["--trainer.max_epochs=12", "--model.head_dropout=0.5"]
    plain("fit", *flags)
    command = ["fit", "-c", "toy.yaml", *flags, "--outputs.maps=0", "--outputs.every=0", "--outputs.bootstrap=20"]
    for number, condition in enumerate(conditions, start=1):
        run, before = folder / f"runs/toy/version_{number}", folder / f"runs/toy/version_{number - 1}"
        kill_when(lambda: condition(run), command + ["--ckpt_path=last"] * (number > 1), folder)  # noqa: B023
        done = [int(row["epoch"]) for row in history(run / "checkpoints" / "last.ckpt", _last(run))]
        assert _last(run)["epoch"] >= (_last(before)["epoch"] if number > 1 else 0)
        assert sorted(set(done)) == list(range(_last(run)["epoch"] + 1))
    plain("fit", *flags, "--ckpt_path=last")
    same(folder / "runs/toy/version_0", folder / f"runs/toy/version_{len(conditions) + 1}")


def _last(run):
    return stored(run / "checkpoints" / "last.ckpt")


def epochs(number):
    return (
        lambda run: (run / "metrics.csv").is_file() and len((run / "metrics.csv").read_text().splitlines()) > 2 * number
    )


def test_a_killed_training_loses_at_most_an_epoch(plain, tmp_path):
    killed_and_resumed(plain, tmp_path, [epochs(3)])


@pytest.mark.slow
def test_killed_at_many_moments(plain, tmp_path):
    def writing(name, number):
        place = f".{name}.ckpt.part"
        return lambda run: epochs(number)(run) and (run / "checkpoints" / place).exists()

    moments = [writing("last", 2), writing("best", 4), epochs(6), writing("last", 8), epochs(10)]
    killed_and_resumed(plain, tmp_path, moments)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path):
    resource = pytest.importorskip("resource")  # a limit on the size of files is met like the end of a disk
    path, small, large = tmp_path / "last.ckpt", {"x": torch.zeros(10)}, {"x": torch.zeros(10_000)}
    WholeFiles().save_checkpoint(small, path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(BadInput, match=r"last.ckpt could not be written \(.*large.*\); the last one that was is"):
            WholeFiles().save_checkpoint(large, path)
        with pytest.raises(BadInput, match="there is none yet; make room and resume"):
            WholeFiles().save_checkpoint(large, tmp_path / "best.ckpt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert torch.equal(stored(path)["x"], small["x"])
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_curves_that_were_not_written_yet_come_from_the_checkpoint(plain, tmp_path):
    plain("fit", "--trainer.max_epochs=3")
    run = tmp_path / "runs/toy/version_0"
    path, text = run / "checkpoints" / "last.ckpt", (run / "metrics.csv").read_text()
    rows = history(path, stored(path))
    assert len(rows) == 6  # without the test's
    (run / "metrics.csv").write_text("".join(text.splitlines(keepends=True)[:-2]))  # nor the last epoch's training
    assert history(path, stored(path))[-1] == pytest.approx(rows[-1])


def test_a_run_says_how_it_ended(plain, capsys):
    plain("fit", "--model.lr=0", "--early_stopping.patience=3")
    assert "stopped at epoch 4 of 8, best 1: no better val/loss for 3" in capsys.readouterr().out.splitlines()
    plain("fit", "--trainer.max_epochs=2")
    assert "trained 2 epochs, best 2" in capsys.readouterr().out.splitlines()


def test_patience_fits_the_validation_part(plain, tmp_path):
    assert [patience_for(count) for count in (10_000, 200, 100, 54, 17)] == [20, 20, 40, 75, 236]
    plain("fit", "--trainer.max_epochs=1")
    states = stored(tmp_path / "runs/toy/version_0/checkpoints/last.ckpt")["callbacks"]
    assert next(state["patience"] for name, state in states.items() if "Patience" in name) == 125  # 32 validate
    plain("fit", "--trainer.max_epochs=2", "--ckpt_path=last", "--early_stopping.patience=7")
    states = stored(tmp_path / "runs/toy/version_1/checkpoints/last.ckpt")["callbacks"]
    assert next(state["patience"] for name, state in states.items() if "Patience" in name) == 7


@pytest.mark.parametrize("samples", [54, 100])
def test_the_noise_of_a_small_validation_part_does_not_end_a_training_that_still_learns(samples):
    """54 graphs validate a fold of ENZYMES, which lost 13 points to a patience of 20."""
    draw = torch.Generator().manual_seed(0)
    falling = 1 + 0.7 * torch.exp(-torch.arange(120) / 40)
    ended = {20: 0, patience_for(samples): 0}
    for _ in range(100):
        losses = falling + torch.randn(120, generator=draw) / samples**0.5  # losses of single samples vary by 1
        for patience in ended:
            watch = Patience("val/loss", patience=patience)
            ended[patience] += any(watch._evaluate_stopping_criteria(loss)[0] for loss in losses)
    assert ended[20] > 80
    assert ended[patience_for(samples)] < 20


class Code:
    def __reduce__(self):
        return os.system, ("touch was_run",)


def test_what_is_no_checkpoint_is_refused_in_one_line_by_every_command(trained, tmp_path, capsys):
    good = (tmp_path / "runs/toy/version_0/checkpoints/last.ckpt").read_bytes()
    (tmp_path / "empty.ckpt").write_bytes(b"")
    (tmp_path / "truncated.ckpt").write_bytes(good[: len(good) // 2])
    (tmp_path / "text.ckpt").write_text("hello " * 100)
    (tmp_path / "malicious.ckpt").write_bytes(pickle.dumps({"state_dict": Code(), "hyper_parameters": {}}))
    torch.save({"state_dict": {}, "hyper_parameters": {"lr": 1}}, tmp_path / "foreign.ckpt")
    torch.save(Code(), tmp_path / "zipped.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    said = {
        "empty": "it is empty", "truncated": "it is truncated or of another format", "text": " (it is ",
        "malicious": "damaged, or holds code", "foreign": "is another program's checkpoint",
        "zipped": "damaged, or holds code", "list": "it has no state_dict and hyper_parameters",
    }  # fmt: skip
    commands = ("fit", "test", "predict", "embed", "diagnose", "judge")
    for turn, (name, message) in enumerate(said.items()):  # each by one command in turn, one by all
        for command in commands if name == "malicious" else (commands[turn % len(commands)],):
            with pytest.raises(SystemExit) as stopped:
                trained(command, f"--ckpt_path={name}.ckpt")
            assert str(stopped.value).startswith(f"error: {name}.ckpt is ")
            assert message in str(stopped.value)
            assert "\n" not in str(stopped.value)
            assert "weights_only" not in str(stopped.value)  # no advice to load it all the same
    assert not (tmp_path / "was_run").exists()


def test_weights_of_another_model_are_refused_in_one_line(trained):
    with pytest.raises(SystemExit, match=r"^error: the checkpoint's weights are not those of this model: size"):
        trained("fit", "--ckpt_path=last", "--model.hidden=5")


def test_options_that_a_checkpoint_overrules_are_named(trained, capsys):
    trained("test", "--model.reduction=max", "--model.hidden", "5", "--model.lr=0.02")
    lines = [line for line in capsys.readouterr().out.splitlines() if "is ignored" in line]
    path = "runs/toy/version_0/checkpoints/best.ckpt"
    assert lines == [f"--model.reduction max is ignored: {path} has mean", f"--model.hidden 5 is ignored: {path} has 8"]


@pytest.mark.parametrize(("train", "processes", "whole"), [(34, 2, True), (33, 1, True), (34, 1, False), (66, 2, True)])
def test_no_process_trains_on_a_batch_of_one(train, processes, whole):
    data = ToyData(train=train, batch_size=16)
    data.setup()
    none_yet = SimpleNamespace(current=SimpleNamespace(ready=0, processed=0), is_last_batch=False)
    loop = SimpleNamespace(epoch_progress=none_yet, epoch_loop=SimpleNamespace(batch_progress=none_yet))
    data.trainer = SimpleNamespace(world_size=processes, global_rank=0, fit_loop=loop, lightning_module=None)
    loader = data.train_dataloader()
    each = -(-train // processes)
    assert loader.drop_last == (each % 16 == 1) == whole


@pytest.mark.slow
def test_two_processes_with_one_sample_left_over_each(plain, tmp_path):
    command = [sys.executable, "-m", "tasks", "fit", "-c", "toy.yaml", "-c", str(ROOT / "configs" / "ddp.yaml")]
    flags = ["--data.train=34", "--data.batch_size=16", "--model.head_norm=true", "--trainer.max_epochs=2"]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "tasks")])
    environment = {**os.environ, "PYTHONPATH": path}
    assert subprocess.run([*command, *flags], cwd=tmp_path, env=environment, timeout=200, check=False).returncode == 0
