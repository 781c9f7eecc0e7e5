"""The teacher is a copy at first, follows once a step, parameters and buffers, and forgets half in a share of a run."""

import pytest
import torch
from pretraining import fit, make
from torch import nn

from tasks.pretrain.teacher import follow, momentum_of, teacher_of


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_it_starts_as_a_copy_in_evaluation_without_gradient():
    student = network()
    teacher = teacher_of(student)
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    for name, value in student.state_dict().items():
        assert torch.equal(teacher.state_dict()[name], value)
        assert teacher.state_dict()[name].data_ptr() != value.data_ptr()


def test_parameters_and_buffers_follow():
    student = network()
    teacher = teacher_of(student)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    with torch.no_grad():
        student[0].weight.add_(1)
    student(torch.randn(5, 3) + 2)  # moves the running statistics
    follow(teacher, student, 0.9)
    for name, value in teacher.state_dict().items():
        other = student.state_dict()[name]
        expected = 0.9 * before[name] + 0.1 * other if value.is_floating_point() else other
        torch.testing.assert_close(value, expected)
    assert teacher[1].num_batches_tracked == 1
    assert not torch.equal(teacher[1].running_mean, before["1.running_mean"])


@pytest.mark.parametrize(("half_life", "steps"), [(0.1, 50), (0.01, 1000)])
def test_half_is_forgotten_in_the_half_life(half_life, steps):
    """By the definition: after half_life · steps steps, the weight of what was there is one half."""
    kept = 1.0
    for _ in range(round(half_life * steps)):
        kept *= momentum_of(half_life, steps, 0.0)
    assert kept == pytest.approx(0.5)
    assert momentum_of(half_life, steps, 1.0) == 1.0
    assert momentum_of(half_life, steps, 1.0, rise=False) == momentum_of(half_life, steps, 0.0)
    rising = [momentum_of(half_life, steps, t / 10) for t in range(11)]
    assert rising == sorted(rising)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_it_follows_once_a_step_of_the_optimizer(accumulated, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("tasks.pretrain.task.follow", lambda *args: calls.append(args[2]))
    module, data = make("dino")
    trainer = fit(module, data, tmp_path, epochs=2, accumulate_grad_batches=accumulated)
    assert len(calls) == trainer.global_step == 2 * 2 // accumulated


def test_it_is_never_in_training(tmp_path):
    module, data = make("dino")
    seen = []
    forward = module.teacher.encode
    module.teacher.encode = lambda batch: seen.append(module.teacher.training) or forward(batch)
    fit(module, data, tmp_path, epochs=1)
    assert seen
    assert not any(seen)
    assert module.student.training
    assert not module.objective.teacher_heads.training


def test_prototypes_are_frozen_at_first(tmp_path):
    module, data = make("dino", freeze=1.0)
    before = None

    def remember(*_):
        nonlocal before
        before = {name: value.clone() for name, value in module.objective.named_parameters()}

    module.on_train_start = lambda start=module.on_train_start: (start(), remember())
    fit(module, data, tmp_path, epochs=1)
    moved = {name for name, value in module.objective.named_parameters() if not torch.equal(value, before[name])}
    assert "heads.samples.prototypes" not in moved
    assert "heads.samples.layers.0.weight" in moved
