"""How well a map points at what made the target: torchmetrics for weak localisation, one sample an update.

Every metric takes a sample's signed map, the truth (which elements made the target, bool) and optionally which elements
may be looked at at all, all of one shape: nodes, a spectrogram, a volume. A sample whose truth is empty is skipped:
nothing is there to be found. A metric that has seen no sample is NaN.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from scipy.ndimage import distance_transform_edt
from sklearn.metrics import average_precision_score
from torch import Tensor
from torchmetrics import Metric

from tasks.maps.thresholds import Rule, cut_values, select


class MapMetric(Metric):
    """A mean over samples of what one map is worth; subclasses say what in `measure`."""

    full_state_update = False
    higher_is_better = True
    total: Tensor
    count: Tensor

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, signed_map: Tensor, truth: Tensor, valid: Tensor | None = None) -> None:
        """Add one sample.

        Args:
            signed_map: Signed map of the output in question, any shape.
            truth: Which elements made the target, bool, the same shape.
            valid: Which elements count, bool, the same shape; None = all.

        Raises:
            ValueError: If the shapes differ, or the map is not finite where it counts.
        """
        shapes = {"truth": truth, "valid": truth if valid is None else valid}
        for name, given in shapes.items():
            if given.dtype != torch.bool or given.shape != signed_map.shape:
                raise ValueError(
                    f"{name}: expected bool of the map's shape {tuple(signed_map.shape)}, got {given.dtype} of shape "
                    f"{tuple(given.shape)}; bring the map to the input's grid first (tasks.maps.grids.upsample)"
                )
        valid = torch.ones_like(truth) if valid is None else valid
        signed_map = signed_map.detach()
        if not signed_map[valid].isfinite().all():
            raise ValueError("signed_map: expected finite numbers, got nan or inf; leave such elements out with valid=")
        if (truth & valid).any():
            self.total += torch.as_tensor(self.measure(signed_map, truth, valid), dtype=torch.float64).to(self.total)
            self.count += 1

    @abstractmethod
    def measure(self, signed_map: Tensor, truth: Tensor, valid: Tensor) -> Tensor | float:
        """The worth of one map whose truth is not empty."""

    def compute(self) -> Tensor:
        """The mean over samples."""
        return self.total / self.count


class PointingGame(MapMetric):
    """How often the largest value of the map lies on the truth (Zhang et al. 2018).

    Where several elements share the largest value it counts as if one of them were drawn: a constant map scores the
    share of elements that are true.

    Args:
        tolerance: How many elements, along the grid's axes and diagonals (Euclidean), a hit may lie beside the truth; 0
            for nodes, whose numbers mean nothing.
        options: Of `torchmetrics.Metric`.

    Example:
        >>> metric = PointingGame()
        >>> metric.update(torch.tensor([0.0, 3.0, -9.0]), torch.tensor([False, True, False]))
        >>> metric.compute().item()
        1.0
    """

    def __init__(self, tolerance: float = 0, **options: Any):
        super().__init__(**options)
        self.tolerance = tolerance

    def measure(self, signed_map: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
        """1 for a hit."""
        if self.tolerance > 0:
            distance = torch.from_numpy(distance_transform_edt(~(truth & valid).cpu().numpy()))
            truth = (distance <= self.tolerance).to(truth.device)
        best = signed_map[valid].max()
        return truth[valid & (signed_map == best)].double().mean()


class MapAveragePrecision(MapMetric):
    """Mean over samples of the average precision with which the map ranks true elements before others."""

    def measure(self, signed_map: Tensor, truth: Tensor, valid: Tensor) -> float:
        """Average precision of one map: scikit-learn's, in which ties have no order."""
        return float(average_precision_score(truth[valid].cpu().numpy(), signed_map[valid].double().cpu().numpy()))


class EnergyInside(MapMetric):
    """Share of what speaks for the target (positive values) that lies on the truth (Wang et al. 2020); 0 of none."""

    def measure(self, signed_map: Tensor, truth: Tensor, valid: Tensor) -> Tensor | float:
        """The share of one map."""
        positive = signed_map.double().clamp(min=0)
        total = positive[valid].sum()
        return positive[valid & truth].sum() / total if total > 0 else 0.0


class BestIoU(MapMetric):
    """Mean intersection over union of the truth with the elements that `tasks.maps.thresholds.select` marks.

    Args:
        threshold: The threshold; None tries ``candidates`` on all samples at once and takes the best. Search on
            validation data, and give what it found (`threshold`) to the metric that sees the test data.
        rule: See `tasks.maps.thresholds.select`; ``otsu`` needs no threshold.
        candidates: Thresholds to try; by default 1 % to 100 % (``relative``), 0.1 % to 100 % in even ratios (``top``).
        options: Of `torchmetrics.Metric`.

    Attributes:
        threshold: The threshold given, or the best so far.

    Raises:
        ValueError: If the rule is ``fixed`` and there is neither a threshold nor candidates.

    Example:
        >>> validation, test = BestIoU(), BestIoU(threshold=0.5)
        >>> validation.update(torch.tensor([0.2, 1.0, 0.8, -1.0]), torch.tensor([False, True, True, False]))
        >>> validation.compute().item(), round(validation.threshold, 2)
        (1.0, 0.21)
    """

    tried: Tensor

    def __init__(
        self,
        threshold: float | None = None,
        *,
        rule: Rule = "relative",
        candidates: Sequence[float] | Tensor | None = None,
        **options: Any,
    ):
        super().__init__(**options)
        if rule == "fixed" and threshold is None and candidates is None:
            raise ValueError("candidates: expected thresholds in the map's unit for the rule 'fixed', got None")
        if threshold is not None:
            tried = torch.tensor([threshold])
        elif candidates is not None:
            tried = torch.as_tensor(candidates, dtype=torch.float32)
        else:
            tried = torch.logspace(-3, 0, 100) if rule == "top" else torch.arange(1, 101) / 100
        self.rule: Rule = rule
        self.register_buffer("tried", tried[:1] if rule == "otsu" else tried, persistent=False)
        self.add_state("total", torch.zeros(len(self.tried), dtype=torch.float64), dist_reduce_fx="sum")

    @property
    def threshold(self) -> float:
        """The threshold given, or the one with the largest mean so far."""
        return float(self.tried[self.total.argmax()])

    def measure(self, signed_map: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
        """Intersection over union of one map at each threshold."""
        values, there = signed_map[valid], truth[valid]
        if self.rule == "otsu":
            marked = select(values, "otsu")
            return (marked & there).sum().double().reshape(1) / (marked | there).sum()
        ordered, order = values.sort(descending=True)
        cuts = cut_values(ordered, self.rule, self.tried)
        marked = torch.searchsorted(-ordered, -cuts, right=True)  # how many values reach each cut
        hits = torch.cat([there.new_zeros(1, dtype=torch.long), there[order].cumsum(0)])[marked]
        return hits.double() / (marked + there.sum() - hits)

    def compute(self) -> Tensor:
        """The mean over samples at the given or best threshold."""
        return (self.total / self.count).max()
