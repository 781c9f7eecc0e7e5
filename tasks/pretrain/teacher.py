"""The teacher: a copy of the student that follows it slowly."""

import copy
import math
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def teacher_of(student: M) -> M:
    """A copy that takes no gradient and stays as it is in evaluation: its norms use their running statistics."""
    return copy.deepcopy(student).requires_grad_(False).eval()


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move a teacher's parameters and buffers towards its student's: t ← m t + (1 - m) s; whole numbers are copied.

    Tarvainen and Valpola 2017 (mean teachers, arXiv 1703.01780); buffers too, so that the running statistics of batch
    norms are those of the weights they stand beside.

    Args:
        teacher: A copy of the student.
        student: What is trained.
        momentum: m.

    Example:
        >>> student, teacher = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.ones_(student.weight), nn.init.zeros_(teacher.weight)
        >>> follow(teacher, student, 0.75)
        >>> teacher.weight.item()
        0.25
    """
    pairs = [*zip(teacher.parameters(), student.parameters(), strict=True)]
    pairs += zip(teacher.buffers(), student.buffers(), strict=True)  # type: ignore[arg-type]
    for own, other in pairs:
        if own.is_floating_point():
            own.lerp_(other.to(own), 1 - momentum)
        else:
            own.copy_(other)


def momentum_of(half_life: float, steps: float, progress: float, rise: bool = True) -> float:
    """The momentum with which what a teacher knows is half forgotten after a share of the training.

        m₀ = ½^(1 / (half_life · steps)),   m(t) = 1 - (1 - m₀) (1 + cos πt) / 2

    A momentum that is a constant of one training is wrong in another: .99 forgets half in 69 steps, which is all of a
    short training and nothing of a long one.

    Args:
        half_life: Share of the training.
        steps: Its number of optimizer steps.
        progress: How much of it is over, t, from 0 to 1.
        rise: Let the momentum rise to 1 at the end, as DINO does (a half cosine); else it stays m₀.

    Example:
        >>> momentum_of(0.1, 10, 0.0), round(momentum_of(0.01, 6900, 0.0), 2), momentum_of(0.1, 10, 1.0)
        (0.5, 0.99, 1.0)
    """
    start: float = 0.5 ** (1 / max(half_life * steps, 1e-9)) if math.isfinite(steps) else 0.99
    return 1 - (1 - start) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2 if rise else start
