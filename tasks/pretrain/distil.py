"""Self-distillation: the student says of a view, or of what it does not see, what the teacher says of the whole."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tasks.data.problems import BadInput
from tasks.pretrain.alarms import mutual_information, used
from tasks.pretrain.elements import Sizes, hide, rows, vectors
from tasks.pretrain.heads import PrototypeHead
from tasks.pretrain.koleo import koleo
from tasks.pretrain.losses import dino_loss, ibot_loss
from tasks.pretrain.objective import Objective, Step
from tasks.pretrain.sinkhorn import Centre, sinkhorn
from tasks.pretrain.teacher import follow, teacher_of
from tasks.task.base import PoolingTask

Centring = Literal["sinkhorn", "centre"]


class Distil(Objective):
    """DINO (Caron et al. 2021) with what DINOv2 adds (Oquab et al. 2023, arXiv 2304.07193, section 4).

    Args:
        sizes: Of the task.
        prototypes: Of each head.
        hidden: Neurons of a head's hidden layers.
        bottleneck: Numbers of the vector that is held against the prototypes.
        centring: How the teacher's probabilities are made: "sinkhorn" or "centre".
        temperature: Of the student.
        teacher_temperature: Of the teacher, at the beginning and after the warm-up.
        temperature_warmup: Share of the training in which it goes from the one to the other.
        koleo_weight: Weight of KoLeo of the student's pooled vectors; 0 turns it off.
        ibot_weight: Weight of iBOT's loss on hidden elements; 0 turns it off, and nothing is hidden.
        share: Of the elements of a sample that are hidden, in half of the samples.
        tied: Use one head for samples and elements.
        freeze: Share of the training in which prototypes do not learn.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        prototypes: int = 256,
        hidden: int = 256,
        bottleneck: int = 64,
        centring: Centring = "sinkhorn",
        temperature: float = 0.1,
        teacher_temperature: tuple[float, float] = (0.04, 0.07),
        temperature_warmup: float = 0.3,
        koleo_weight: float = 0.0,
        ibot_weight: float = 0.0,
        share: float = 0.3,
        tied: bool = False,
        freeze: float = 0.02,
    ):
        super().__init__()
        self.cell, self.share, self.centring, self.freeze = sizes.cell, share, centring, freeze
        self.temperature, self.teacher_temperature = temperature, teacher_temperature
        self.temperature_warmup = temperature_warmup
        self.koleo_weight, self.ibot_weight = koleo_weight, ibot_weight
        if tied and ibot_weight and sizes.width != sizes.features:
            raise BadInput(
                "tied: expected pooled vectors of as many numbers as elements have for one head, got "
                f"{sizes.width} and {sizes.features}; set --model.tied false"
            )
        options = {"hidden": hidden, "bottleneck": bottleneck}
        names = ["samples", *(["elements"] if ibot_weight and not tied else [])]
        widths = {"samples": sizes.width, "elements": sizes.features}
        self.heads = nn.ModuleDict({name: PrototypeHead(widths[name], prototypes, **options) for name in names})
        self.teacher_heads = teacher_of(self.heads)
        self.centres = nn.ModuleDict({name: Centre(prototypes) for name in ("samples", "elements")})
        if ibot_weight:
            self.token = nn.Parameter(torch.zeros(sizes.inputs or 0))

    def step(self, student: PoolingTask, teacher: PoolingTask | None, views: Sequence[Any], progress: float) -> Step:
        """The loss of a batch."""
        assert teacher is not None
        whole, local = views[:2], views[2:]
        with torch.no_grad():
            seen = [teacher.encode(view) for view in whole]
            taught = torch.stack([self.teacher_heads["samples"](vectors(teacher, *one)) for one in seen])  # (2, B, K)
            p = self._probabilities("samples", taught.flatten(0, 1), progress).view_as(taught)
        hidden = []
        if self.ibot_weight:
            hidden = [hide(student, view, self.token, self.share, self.cell, chance=0.5) for view in whole]
        told = [student.encode(one.batch if hidden else one) for one in (hidden or whole)]
        pooled = [vectors(student, *one) for one in [*told, *(student.encode(view) for view in local)]]
        dino = dino_loss(p, torch.stack([self.heads["samples"](z) for z in pooled]), self.temperature)
        logged = {"dino": dino, "information": mutual_information(p.flatten(0, 1)), "used": used(p.flatten(0, 1))}
        loss = dino
        if self.koleo_weight:
            logged["koleo"] = torch.stack([koleo(z) for z in pooled[:2]]).mean()
            loss = loss + self.koleo_weight * logged["koleo"]
        if self.ibot_weight:
            logged["ibot"] = self._ibot(student, teacher, hidden, told, seen, progress)
            loss = loss + self.ibot_weight * logged["ibot"]
        return Step(loss, pooled[0], logged)

    def _ibot(self, student: PoolingTask, teacher: PoolingTask, hidden: list[Any], told: list[Any], seen: list[Any],
              progress: float) -> Tensor:  # fmt: skip
        name = "elements" if "elements" in self.heads else "samples"
        wanted, made, own, samples = [], [], [], 0
        for one, (x, sets), (y, others) in zip(hidden, told, seen, strict=True):
            elements, there, sample = rows(student, x, sets)
            chosen = one.rows(student, x) & there
            wanted.append(rows(teacher, y, others)[0][chosen])
            made.append(elements[chosen])
            count = sets["dim_size"] if "dim_size" in sets else int(sample[-1]) + 1
            own.append(sample[chosen] + samples)
            samples += count
        with torch.no_grad():
            logits = self.teacher_heads[name](torch.cat(wanted))
            p = self._probabilities("elements", logits, progress)
        return ibot_loss(p, self.heads[name](torch.cat(made)), torch.cat(own), samples, self.temperature)

    def _probabilities(self, name: str, logits: Tensor, progress: float) -> Tensor:
        first, last = self.teacher_temperature
        over = min(1.0, progress / self.temperature_warmup) if self.temperature_warmup else 1.0
        temperature = first + (last - first) * over
        if self.centring == "sinkhorn":
            return sinkhorn(logits, temperature)
        p: Tensor = self.centres[name](logits, temperature)
        return p

    def follow(self, momentum: float) -> None:
        """Move the teacher's heads."""
        follow(self.teacher_heads, self.heads, momentum)

    def frozen(self, progress: float) -> Iterable[nn.Parameter]:
        """The prototypes, at first."""
        heads: Any = self.heads.values()
        return [head.prototypes for head in heads] if progress < self.freeze else []
